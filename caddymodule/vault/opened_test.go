package vault

import (
	"context"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
)

// fields are what an old service's calls are made of.
var fields = map[string]string{"smapi.username": "marker-user", "smapi.password": "marker-password"}

func withFields(t Tokens) Tokens {
	t.Fields = fields
	return t
}

func TestAReferenceStandsForTheSameRecordAndIsNoHandle(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	v := open(t, keys, s)
	first := v.Upgraded(call(t), home, account, withFields(oauth.login("a")))
	again := open(t, keys, s).Upgraded(call(t), home, account, withFields(oauth.login("a")))
	if first.Reference != again.Reference || !regexp.MustCompile(`^smv1\.[A-Za-z0-9_-]{43}$`).MatchString(first.Reference) {
		t.Errorf("%s at first, and %s again", first.Reference, again.Reference)
	}
	for _, token := range []string{first.Reference, first.PrivateKey} {
		o, err := open(t, keys, s).Open(call(t), token, false)
		if err != nil || o.Household != home || o.Fields["smapi.password"] != "marker-password" || o.Dead ||
			o.Reference() != first.Reference || o.Handle() != first.PrivateKey || !o.Alive(time.Now()) {
			t.Errorf("opened %+v, %v", o, err)
		}
		if !seal.Bears([]byte("<a>" + token + "</a>")) {
			t.Errorf("%s is not seen", token)
		}
	}
	for _, token := range []string{
		"smv1." + first.PrivateKey[4:], "smv1" + first.Reference[5:], first.Reference + "x", first.Reference[:47], "", first.AuthToken,
	} {
		if o, err := v.Open(call(t), token, false); !errors.Is(err, ErrMadeUp) {
			t.Errorf("%s opened %+v, %v", token, o, err)
		}
	}
	if got, err := v.Refresh(call(t), home, first.PrivateKey, first.Reference, oauth.ask); err != nil || got.Reference != first.Reference || got.Asked {
		t.Errorf("a refresh got %+v, %v", got, err)
	}
}

func TestOnlyTheReferenceOfTheKeysInForceIsKnown(t *testing.T) {
	keys, oauth := sealtest.NewKeys(t), newServer()
	inForce := keys
	v := New(Config{Keys: func() *seal.Keys { return inForce }, Storage: at(newStorage()), ForgetAfter: func() time.Duration { return 400 * day }})
	first := v.Upgraded(call(t), home, account, withFields(oauth.login("a")))
	opened, err := v.Open(call(t), first.Reference, false)
	if err != nil {
		t.Fatal(err)
	}
	if o := v.Known(first.Reference); o != opened {
		t.Errorf("known as %+v", o)
	}
	raw, err := base64.RawURLEncoding.DecodeString(first.Reference[len("smv1."):])
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		other := slices.Clone(raw)
		other[i] ^= 1
		if o := v.Known("smv1." + base64.RawURLEncoding.EncodeToString(other)); o != nil {
			t.Errorf("known with another byte at %d: %+v", i, o)
		}
	}
	for _, token := range []string{"", first.PrivateKey, first.AuthToken, first.Reference + "x", first.Reference[:47]} {
		if o := v.Known(token); o != nil {
			t.Errorf("%q is known: %+v", token, o)
		}
	}
	inForce = sealtest.NewKeys(t)
	if o := v.Known(first.Reference); o != nil {
		t.Errorf("known by a key that is no longer there: %+v", o)
	}
}

func TestARecordIsOpenedOnceAndThenFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		here, elsewhere := open(t, keys, s), open(t, keys, s)
		token := elsewhere.Upgraded(call(t), home, account, withFields(oauth.login("a"))).Reference
		var o *Opened
		looks := func(fresh bool) int {
			synctest.Wait() // the other gives its lock back after its answer
			before := s.count()
			var err error
			if o, err = here.Open(call(t), token, fresh); err != nil {
				t.Fatal(err)
			}
			return s.count() - before
		}
		if n := looks(false); n == 0 {
			t.Error("nobody looked")
		}
		if n := looks(false) + looks(false); n != 0 {
			t.Errorf("it cost %d looks", n)
		}
		_ = elsewhere.Upgraded(call(t), home, account, func() Tokens {
			tokens := oauth.login("a")
			tokens.Fields = map[string]string{"smapi.password": "another"}
			return tokens
		}())
		if n := looks(false); n != 0 || o.Fields["smapi.password"] != "marker-password" {
			t.Errorf("%d looks, %v", n, o.Fields)
		}
		if n := looks(true); n == 0 || o.Fields["smapi.password"] != "another" || o.Fields["smapi.username"] != "marker-user" {
			t.Errorf("%d looks, %v", n, o.Fields)
		}
		time.Sleep(maxOpenedAge)
		if looks(false) == 0 {
			t.Error("it is never looked at again")
		}
	})
}

func TestADeadRecordIsDeadForAllUntilThereAreNewTokens(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	here, elsewhere := open(t, keys, s), open(t, keys, s)
	token := here.Upgraded(call(t), home, account, withFields(oauth.login("a"))).Reference
	stale, err := elsewhere.Open(call(t), token, false)
	if err != nil {
		t.Fatal(err)
	}
	o, err := here.Open(call(t), token, false)
	if err != nil {
		t.Fatal(err)
	}
	if o, err = here.Bury(call(t), o); err != nil || !o.Dead {
		t.Fatal(o, err)
	}
	if o, err = elsewhere.Open(call(t), token, true); err != nil || !o.Dead {
		t.Errorf("elsewhere it is %+v, %v", o, err)
	}
	elsewhere.Upgraded(call(t), home, account, withFields(oauth.login("a")))
	if o, err = here.Open(call(t), token, false); err != nil || o.Dead {
		t.Errorf("here it is still %+v, %v", o, err)
	}
	if o, err = elsewhere.Bury(call(t), stale); err != nil || o.Dead {
		t.Errorf("one that was opened before was buried: %+v, %v", o, err)
	}
}

func BenchmarkOpen(b *testing.B) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(b)
	v := open(b, keys, s)
	token := v.Upgraded(context.Background(), home, account, withFields(oauth.login("a"))).Reference
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Open(context.Background(), token, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKnown(b *testing.B) {
	v, oauth := open(b, sealtest.NewKeys(b), newStorage()), newServer()
	token := v.Upgraded(context.Background(), home, account, withFields(oauth.login("a"))).Reference
	if _, err := v.Open(context.Background(), token, false); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if v.Known(token) == nil {
			b.Fatal("it is not known")
		}
	}
}
