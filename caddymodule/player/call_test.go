package player

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

var kinds = []smapi.Kind{smapi.Login, smapi.SessionID, smapi.LoginToken, smapi.Anonymous}

// awkward is a value that needs care in XML.
const awkward = `  <&>"' ]]> 音楽 🎵	&amp; `

func awkwardAccount(kind smapi.Kind) Account {
	a := Account{Credentials: smapi.Credentials{Kind: kind}}
	switch kind {
	case smapi.Login:
		a.Username, a.Password = awkward, awkward+"2"
	case smapi.SessionID:
		a.SessionID = awkward
	case smapi.LoginToken:
		a.Token, a.Key = awkward, awkward+"2"
	}
	return a
}

func TestEverySpellingIsReadAsAnUpgradeWithItsCredentials(t *testing.T) {
	for _, kind := range kinds {
		for turn := range spellings {
			accounts := append(Synthetic(kind, 1), awkwardAccount(kind))
			assignHomes(accounts, 1, 1)
			for i, a := range accounts {
				t.Run(fmt.Sprint(kind, turn, i), func(t *testing.T) {
					r, err := request(context.Background(), "http://localhost/", a, turn)
					if err != nil {
						t.Fatal(err)
					}
					call, _, err := smapi.Read(r, []smapi.Method{smapi.GetDeviceAuthToken})
					if call == nil {
						t.Fatalf("not read: %v", err)
					}
					if call.HouseholdID != a.HouseholdID || call.Credentials != a.Credentials {
						t.Errorf("read as %+v, want %+v", call, a)
					}
				})
			}
		}
	}
}

func TestSpellingsDiffer(t *testing.T) {
	a := Synthetic(smapi.LoginToken, 1)
	assignHomes(a, 1, 1)
	seen := map[string]int{}
	for turn := range spellings {
		r, err := request(context.Background(), "http://localhost/", a[0], turn)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(body)]; ok {
			t.Errorf("spelling %d is like %d", turn, other)
		}
		seen[string(body)] = turn
	}
}

func TestAccountsAreSpreadOverHomesBySeed(t *testing.T) {
	ids := func(seed uint64) (ids []string) {
		accounts := Synthetic(smapi.Login, 10)
		assignHomes(accounts, 4, seed)
		for _, a := range accounts {
			ids = append(ids, a.HouseholdID)
		}
		return ids
	}
	one, again, two := ids(1), ids(1), ids(2)
	if fmt.Sprint(one) != fmt.Sprint(again) || one[0] == two[0] {
		t.Errorf("homes %v and %v by seed 1, %v by seed 2", one, again, two)
	}
	seen := map[string]bool{}
	for i, id := range one {
		if !strings.HasPrefix(id, one[i%4]) {
			t.Errorf("account %d lives in %s, want %s", i, id, one[i%4])
		}
		if seen[id] || utf8.RuneCountInString(id) > 255 {
			t.Errorf("the id %s is there twice or too long", id)
		}
		seen[id] = true
	}
}
