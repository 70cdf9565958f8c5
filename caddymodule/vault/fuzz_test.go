package vault

import (
	"context"
	"errors"
	"testing"
)

// No key finds a record but the handle that was made for it, and none has the vault panic.
func FuzzRefresh(f *testing.F) {
	keys, s, oauth := newKeys(f), newStorage(), newServer()
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
	keys, s := newKeys(f), newStorage()
	v := open(f, keys, s)
	m := keys.namers[0].record(home, ofAccount, account)
	good := mustSeal(f, keys, record{Version: 1, Name: m.text(), AccessToken: "a"})
	f.Add(good)
	f.Add(mustSeal(f, keys, record{Version: 1, Name: "another"}))
	f.Add(mustSeal(f, newKeys(f), record{Version: 1, Name: m.text()}))
	f.Add([]byte("a..b.c.d"))
	f.Add([]byte(`{"keys":[]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _ = ParseKeys(content)
		s.objects[m.key()] = memoryObject{content: content}
		r, err := v.record(t.Context(), m)
		if err == nil && r.Name != m.text() || err == nil && string(content) != string(good) {
			t.Errorf("opened %+v", r)
		}
	})
}
