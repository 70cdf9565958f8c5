package vault

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

func TestAHandleOfAnyKeyInTheFileIsGood(t *testing.T) {
	const first = `{"kty":"oct","kid":"a","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`
	const second = `{"kty":"oct","kid":"b","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`
	s, oauth := newStorage(), newServer()
	pair := open(t, parseKeys(t, []byte(`{"keys":[`+first+`]}`)), s).Upgraded(call(t), home, account, oauth.login("a"))
	// Wrongly put behind instead of in front, so that names come from it.
	v := open(t, parseKeys(t, []byte(`{"keys":[`+first+`,`+second+`]}`)), s)
	if _, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
		t.Error(err)
	}
	if n, err := v.ForgetHousehold(call(t), home); n != 1 || err != nil {
		t.Errorf("%d forgotten, %v", n, err)
	}
}

// Two instances read a new key file at different moments, while their homes refresh.
func TestKeysAreRotatedUnderLoad(t *testing.T) {
	s, oauth := newStorage(), newServer()
	oauth.life = time.Millisecond // each refresh asks
	text, _ := seal.GenerateKeys(nil)
	var inForce [2]atomic.Pointer[seal.Keys]
	var vaults [2]*Vault
	for i := range vaults {
		inForce[i].Store(parseKeys(t, text))
		vaults[i] = New(Config{Keys: inForce[i].Load, Storage: at(s)})
	}
	pair := vaults[0].Upgraded(call(t), home, account, oauth.login("a"))
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var refreshed atomic.Int64
	for i := range 4 {
		wait.Go(func() {
			held := pair.AuthToken
			for ctx.Err() == nil {
				got, err := vaults[i%2].Refresh(call(t), home, pair.PrivateKey, held, oauth.ask)
				if err != nil {
					t.Error(err)
					return
				}
				held = got.AuthToken
				refreshed.Add(1)
			}
		})
	}
	for range 3 {
		text, _ = seal.GenerateKeys(text)
		keys := parseKeys(t, text)
		for i := range inForce {
			before := refreshed.Load()
			inForce[i].Store(keys)
			for deadline := time.Now().Add(20 * time.Second); refreshed.Load() < before+20 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		if done, err := vaults[0].Rotate(call(t)); err != nil || done.Unreadable != 0 {
			t.Errorf("rotated %+v, %v", done, err)
		}
	}
	cancel()
	wait.Wait()
	if len(oauth.revoked) != 0 || refreshed.Load() < 100 {
		t.Errorf("%d refreshes, revoked: %v", refreshed.Load(), oauth.revoked)
	}
}

func TestRotatingSealsEverythingAnew(t *testing.T) {
	s, oauth := newStorage(), newServer()
	text, _ := seal.GenerateKeys(nil)
	v := open(t, parseKeys(t, text), s)
	pair := v.Upgraded(call(t), home, account, oauth.login("a"))
	old := oauth.login("b")
	if _, err := v.Refresh(call(t), home, old.Refresh, old.Access, oauth.ask); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Forget(call(t)); err != nil {
		t.Fatal(err)
	}
	damaged := keysOf(text).Namers()[0].Record("damaged", seal.OfAccount, account)
	s.objects[damaged.Key()] = memoryObject{content: []byte("x")}
	if err := v.Histories("endpoint").Write(call(t), "instance", map[string]uint64{"total": 1<<63 + 1}); err != nil {
		t.Fatal(err)
	}
	rotated, _ := seal.GenerateKeys(text)
	if done, err := open(t, parseKeys(t, rotated), s).Rotate(call(t)); err != nil || done != (Rotated{Seen: 3, Sealed: 2, Unreadable: 1}) {
		t.Fatalf("got %+v, %v", done, err)
	}
	// The old key is gone from the file, but for the one that makes names.
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(rotated, &set); err != nil {
		t.Fatal(err)
	}
	set.Keys = []json.RawMessage{set.Keys[0], set.Keys[2]}
	left, _ := json.Marshal(map[string]any{"keys": set.Keys})
	v = open(t, parseKeys(t, left), s)
	for _, key := range []string{pair.PrivateKey, old.Refresh} {
		if _, err := v.Refresh(call(t), home, key, "another", oauth.ask); err != nil {
			t.Error(err)
		}
	}
	if oauth.times() != 1 {
		t.Errorf("asked %d times", oauth.times())
	}
	history := map[string]uint64{}
	if err := v.Histories("endpoint").Read(call(t), "instance", &history); err != nil || history["total"] != 1<<63+1 {
		t.Errorf("the history is %v, %v", history, err)
	}
	if done, err := v.Rotate(call(t)); err != nil || done.Sealed != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
}

func keysOf(text []byte) *seal.Keys {
	keys, err := seal.ParseKeys(text)
	if err != nil {
		panic(err)
	}
	return keys
}
