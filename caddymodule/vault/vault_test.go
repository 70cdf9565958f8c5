package vault

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
)

const (
	home    = "Sonos_marker-home"
	account = "marker-account"
)

// call is the context of one, with the time that a player has.
func call(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAHandleStandsForAnAccountOfAHomeForEver(t *testing.T) {
	text, _ := seal.GenerateKeys(nil)
	rotated, err := seal.GenerateKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	s, oauth := newStorage(), newServer()
	first := open(t, parseKeys(t, text), s).Upgraded(call(t), home, account, oauth.login("a"))
	again := open(t, parseKeys(t, rotated), s).Upgraded(call(t), home, account, oauth.login("a"))
	if first.PrivateKey != again.PrivateKey {
		t.Errorf("%s at first, and %s again", first.PrivateKey, again.PrivateKey)
	}
	if !regexp.MustCompile(`^smv1[A-Za-z0-9_-]{43}$`).MatchString(first.PrivateKey) {
		t.Errorf("the handle is %s", first.PrivateKey)
	}
	if n := len(s.keys(seal.Records)); n != 1 {
		t.Errorf("%d records", n)
	}
	for _, other := range [][2]string{{home, "another"}, {"another", account}} {
		if r := open(t, parseKeys(t, text), s).Upgraded(call(t), other[0], other[1], oauth.login("b")); r.PrivateKey == first.PrivateKey {
			t.Error("another account or home has the same handle")
		}
	}
	// Dex ends the first session at the second login, so that the newest tokens have to be the ones that are kept.
	got, err := open(t, parseKeys(t, rotated), s).Refresh(call(t), home, first.PrivateKey, first.AuthToken, oauth.ask)
	if err != nil || got.AuthToken != again.AuthToken || got.Asked {
		t.Errorf("got %v, %v", got.AuthToken, err)
	}
}

func TestARefreshThatComesTooLateForItsTokensKeepsTheNewerOnes(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	v := open(t, keys, s)
	older := oauth.login("a")
	older.Obtained = time.Now().Add(-time.Second)
	newer := v.Upgraded(call(t), home, account, oauth.login("a"))
	if got := v.Upgraded(call(t), home, account, older); got.AuthToken != newer.AuthToken || got.PrivateKey != newer.PrivateKey {
		t.Error("older tokens took the place of newer ones")
	}
}

func TestAMadeUpHandleCostsNoLookIntoTheStorage(t *testing.T) {
	s, oauth := newStorage(), newServer()
	v, other := open(t, sealtest.NewKeys(t), s), sealtest.NewKeys(t)
	m := other.Namers()[0].Record(home, seal.OfAccount, account)
	forged := m.Handle()
	if _, err := v.Refresh(call(t), home, forged, "", oauth.ask); !errors.Is(err, ErrMadeUp) {
		t.Errorf("got %v", err)
	}
	if n := s.count() + oauth.times(); n != 0 {
		t.Errorf("it cost %d looks", n)
	}
}

func TestTwoControllersWithTheHouseholdsFirstKeyAlwaysGetTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		pair := open(t, keys, s).Upgraded(call(t), home, account, oauth.login("a"))
		held := [2]string{pair.AuthToken, pair.AuthToken}
		for hour := range 5 {
			time.Sleep(time.Hour)
			for controller := range held {
				// A restart, another instance: each finds what the others left.
				got, err := open(t, keys, s).Refresh(call(t), home, pair.PrivateKey, held[controller], oauth.ask)
				if err != nil || got.PrivateKey != pair.PrivateKey || got.AuthToken == held[controller] {
					t.Fatalf("hour %d, controller %d: %+v, %v", hour, controller, got, err)
				}
				held[controller] = got.AuthToken
				time.Sleep(63 * time.Second)
			}
			if oauth.times() != hour+1 {
				t.Errorf("asked %d times after %d lives", oauth.times(), hour+1)
			}
		}
	})
}

func TestOneOfAllInstancesAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		oauth.takes = 2 * time.Second
		instances := [3]*Vault{open(t, keys, s), open(t, keys, s), open(t, keys, s)}
		pair := instances[0].Upgraded(call(t), home, account, oauth.login("a"))
		time.Sleep(2 * time.Hour)
		var wait sync.WaitGroup
		for i := range 24 {
			wait.Go(func() {
				got, err := instances[i%3].Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask)
				if err != nil || got.AuthToken == pair.AuthToken || got.PrivateKey != pair.PrivateKey {
					t.Errorf("got %+v, %v", got, err)
				}
			})
		}
		wait.Wait()
		synctest.Wait()
		if oauth.times() != 1 || s.lockedNow() != 0 {
			t.Errorf("asked %d times, %d locks left", oauth.times(), s.lockedNow())
		}
	})
}

func TestATokenFromBeforeIsTakenInOnceAndFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		oauth.takes = time.Second
		instances := [2]*Vault{open(t, keys, s), open(t, keys, s)}
		old := oauth.login("a")
		var wait sync.WaitGroup
		for i := range 8 {
			wait.Go(func() {
				got, err := instances[i%2].Refresh(call(t), home, old.Refresh, old.Access, oauth.ask)
				if err != nil || !got.Known || !strings.HasPrefix(got.PrivateKey, "smv1") {
					t.Errorf("got %+v, %v", got, err)
				}
			})
		}
		wait.Wait()
		if oauth.times() != 1 || len(s.keys(seal.Records)) != 1 || len(s.keys("tokens")) != 1 {
			t.Errorf("asked %d times, there are %v", oauth.times(), s.keys(""))
		}
		for range 3 { // the household goes on holding it
			time.Sleep(2 * time.Hour)
			if _, err := open(t, keys, s).Refresh(call(t), home+"_2", old.Refresh, old.Access, oauth.ask); err != nil {
				t.Error(err)
			}
		}
		if oauth.times() != 4 {
			t.Errorf("asked %d times", oauth.times())
		}
	})
}

func TestAKeyThatNobodyKnowsIsToldFromOneOfOurs(t *testing.T) {
	s, oauth := newStorage(), newServer()
	v := open(t, sealtest.NewKeys(t), s)
	got, err := v.Refresh(call(t), home, "somebody else's", "", oauth.ask)
	if got.Known || err != errRefused || oauth.times() != 1 || len(s.keys(seal.Records))+len(s.keys("tokens")) != 0 {
		t.Errorf("got %+v, %v; asked %d times; there are %v", got, err, oauth.times(), s.keys(""))
	}
	pair := v.Upgraded(call(t), home, account, oauth.login("a"))
	oauth.revoked["a"] = true
	if got, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); !got.Known || err != errRefused {
		t.Errorf("got %+v, %v", got, err)
	}
	if !v.Close(call(t)) || s.lockedNow() != 0 {
		t.Error("a lock is left")
	}
}

func TestAnAnswerWithoutARefreshTokenKeepsTheOneBefore(t *testing.T) {
	s, v := newStorage(), (*Vault)(nil)
	v = open(t, sealtest.NewKeys(t), s)
	pair := v.Upgraded(call(t), home, account, Tokens{Access: "a1", Refresh: "r1"})
	for i := range 3 {
		held := fmt.Sprint("a", i+1)
		got, err := v.Refresh(call(t), home, pair.PrivateKey, held, func(_ context.Context, refresh string, _ func() bool) (Tokens, error) {
			if refresh != "r1" {
				t.Errorf("asked with %s", refresh)
			}
			return Tokens{Access: fmt.Sprint("a", i+2)}, nil
		})
		if err != nil || got.AuthToken == held {
			t.Fatal(got, err)
		}
	}
}

func TestOnlyLifeThatIsLeftAnswersWithoutAsking(t *testing.T) {
	at := time.Unix(1e9, 0)
	for name, test := range map[string]struct {
		life      time.Duration // 0 is not said
		presented string
		after     time.Duration
		serves    bool
	}{
		"another token":                         {time.Hour, "old", 50 * time.Minute, true},
		"another token, in its last minute":     {time.Hour, "old", 59*time.Minute + time.Second, false},
		"another token, of a short life":        {10 * time.Second, "old", 8 * time.Second, true},
		"another token, at its end":             {10 * time.Second, "old", 9500 * time.Millisecond, false},
		"the same token":                        {time.Hour, "new", time.Second, false},
		"no token, just now":                    {time.Hour, "", time.Second, true},
		"no token, later":                       {time.Hour, "", 2 * time.Minute, false},
		"another token, whose life is not said": {0, "old", 4 * time.Minute, true},
		"the same, later":                       {0, "old", 6 * time.Minute, false},
	} {
		r := &record{}
		r.take(&Tokens{Access: "new", Life: test.life, Obtained: at}, at)
		if got := r.serves(test.presented, at.Add(test.after)); got != test.serves {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAMissingRecordIsARejectionOnlyInAStorageThatIsNotNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		pair := v.Upgraded(call(t), home, account, oauth.login("a"))
		refresh := func() error {
			_, err := open(t, keys, s).Refresh(call(t), home, pair.PrivateKey, "", oauth.ask)
			return err
		}
		time.Sleep(48 * time.Hour)
		if _, err := v.ForgetHousehold(call(t), home); err != nil {
			t.Fatal(err)
		}
		if err := refresh(); !errors.Is(err, ErrLost) {
			t.Errorf("forgotten: %v", err)
		}
		s.lose()
		if err := refresh(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a lost volume: %v", err)
		}
		open(t, keys, s).Upgraded(call(t), "another", account, oauth.login("b"))
		if err := refresh(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a lost volume that is filled anew: %v", err)
		}
		if oauth.times() != 0 {
			t.Error("somebody was asked")
		}
	})
}

func TestADamagedRecordAndAnothersAreLost(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	v := open(t, keys, s)
	pair := v.Upgraded(call(t), home, account, oauth.login("a"))
	v.Upgraded(call(t), "another", account, oauth.login("b"))
	mine := keys.Namers()[0].Record(home, seal.OfAccount, account)
	others := keys.Namers()[0].Record("another", seal.OfAccount, account)
	good := s.objects[mine.Key()].content
	damaged := append([]byte{}, good...)
	damaged[len(damaged)-30] ^= 1
	unused, err := keys.SealObject(record{Version: 2, Name: mine.Text()})
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		content []byte
		want    error
	}{
		"damaged":            {damaged, ErrLost},
		"cut":                {good[:40], ErrLost},
		"empty":              {nil, ErrLost},
		"another's":          {s.objects[others.Key()].content, ErrLost},
		"a later version's":  {unused, ErrUnavailable},
		"of a key not known": {mustSeal(t, sealtest.NewKeys(t), record{}), ErrKey},
		"larger than any":    {make([]byte, seal.MaxObject+1), ErrLost},
	} {
		s.objects[mine.Key()] = memoryObject{content: test.content}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		got, err := v.Refresh(ctx, home, pair.PrivateKey, "", oauth.ask)
		cancel()
		if !errors.Is(err, test.want) || !got.Known || oauth.times() != 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.objects[mine.Key()] = memoryObject{content: damaged}
	if got := v.Upgraded(call(t), home, account, oauth.login("c")); got.Unsaved != nil || got.PrivateKey != pair.PrivateKey {
		t.Errorf("an upgrade over what is damaged: %+v", got)
	}
}

func mustSeal(t testing.TB, keys *seal.Keys, content any) []byte {
	t.Helper()
	sealed, err := keys.SealObject(content)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestNothingOfAHomeIsInTheStorage(t *testing.T) {
	s, oauth := newStorage(), newServer()
	v := open(t, sealtest.NewKeys(t), s)
	v.Upgraded(call(t), home, account, oauth.login("a"))
	old := oauth.login("b")
	if _, err := v.Refresh(call(t), home, old.Refresh, old.Access, oauth.ask); err != nil {
		t.Fatal(err)
	}
	failure := Failure{At: time.Now(), Proof: v.Digest("proof", "marker-password"), Network: v.Digest("network", "marker-address")}
	if err := v.Failed(call(t), account, failure, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Forget(call(t)); err != nil {
		t.Fatal(err)
	}
	if len(s.objects) < 6 {
		t.Fatalf("there are %v", s.keys(""))
	}
	for key, object := range s.objects {
		if strings.Contains(key, "marker") || strings.Contains(string(object.content), "marker") {
			t.Errorf("%s holds a marker", key)
		}
		if key != strings.ToLower(key) {
			t.Errorf("%s is not the same in every file system", key)
		}
	}
	for lock := range s.locks {
		if strings.Contains(lock, "marker") {
			t.Errorf("the lock %s holds a marker", lock)
		}
	}
}
