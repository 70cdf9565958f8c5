package vault

import (
	"context"
	"errors"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
)

// No key finds a record but the handle that was made for it, and none has the vault panic.
func FuzzRefresh(f *testing.F) {
	keys, s, oauth := sealtest.NewKeys(f), newStorage(), newServer()
	v := open(f, keys, s)
	pair := v.Upgraded(f.Context(), home, account, oauth.login("a"))
	for _, key := range []string{pair.PrivateKey, pair.PrivateKey + "x", pair.PrivateKey[:46], "smv1" + pair.PrivateKey, ""} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		got, err := v.Refresh(t.Context(), home, key, "another", func(context.Context, string, func() bool) (Tokens, error) {
			return Tokens{}, errRefused
		})
		if key == pair.PrivateKey && err == nil {
			return
		}
		if got.AuthToken != "" || got.Known || !errors.Is(err, errRefused) && !errors.Is(err, ErrMadeUp) {
			t.Errorf("%q got %+v, %v", key, got, err)
		}
	})
}

// Whatever stands in the storage is a record of this very name, or none.
func FuzzOpen(f *testing.F) {
	keys, s := sealtest.NewKeys(f), newStorage()
	v := open(f, keys, s)
	m := keys.Namers()[0].Record(home, seal.OfAccount, account)
	good := mustSeal(f, keys, record{Version: 1, Name: m.Text(), AccessToken: "a"})
	f.Add(good)
	f.Add(mustSeal(f, keys, record{Version: 1, Name: "another"}))
	f.Add(mustSeal(f, sealtest.NewKeys(f), record{Version: 1, Name: m.Text()}))
	f.Add([]byte("a..b.c.d"))
	f.Add([]byte(`{"keys":[]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _ = seal.ParseKeys(content)
		s.objects[m.Key()] = memoryObject{content: content}
		r, err := v.record(t.Context(), m)
		if err == nil && r.Name != m.Text() || err == nil && string(content) != string(good) {
			t.Errorf("opened %+v", r)
		}
	})
}
