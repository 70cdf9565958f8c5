package caddymodule_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// A key that is no handle may be a refresh token from before there was a vault, so that it has to be tried. Whatever comes
// of those that are made up, handles are refreshed and listeners are upgraded meanwhile.
func TestStrangersWithMadeUpKeysAreInNoHandlesWay(t *testing.T) {
	const strangers, places = 200, 2
	const life = time.Hour
	step := stepClock(t)
	endpoint := caddytest.Rotate(t, life.Seconds())
	var madeUp atomic.Pointer[http.HandlerFunc]
	becomes := func(h http.HandlerFunc) { madeUp.Store(&h) }
	front := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.PostFormValue("refresh_token"), "made-up") {
			(*madeUp.Load())(w, r)
			return
		}
		endpoint.Config.Handler.ServeHTTP(w, r)
	})
	storage := t.TempDir()
	s := caddytest.OperateOn(t, storage, caddytest.Directive(front, caddytest.OldService(t), "refresh_auth_tokens", "vault "+caddytest.VaultFile(t), "replay off",
		"max_in_flight 8", "timeout 20s")) // a quarter of which refreshes have, and made-up keys another
	owner, stranger := caddytest.From(t, "127.2.0.1"), caddytest.From(t, "127.1.0.1")
	held, handle := caddytest.TokensOf(s.Upgrade(t))
	homesAreServed := func(while string) {
		t.Helper()
		for i := range 5 {
			step(life) // so that it takes a lock, an exchange and a write
			a, err := caddytest.Fetch(owner, caddytest.RefreshOf(t, s.Site, held, handle))
			newToken, key := caddytest.TokensOf(a)
			if err != nil || newToken == held || key != handle {
				t.Fatalf("%s, refresh %d: %+v, %v", while, i, a, err)
			}
			held = newToken
			a, err = caddytest.Ask(t, owner, s.Site, caddytest.Tries(t, fmt.Sprint(while, i), "12345", "home"))
			if _, key := caddytest.TokensOf(a); err != nil || !strings.HasPrefix(key, "smv1") {
				t.Fatalf("%s, upgrade %d: %+v, %v", while, i, a, err)
			}
		}
	}
	var sent atomic.Int32
	flood := func(keys int) (told map[string]int) {
		t.Helper()
		told = map[string]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for range keys {
			all.Go(func() {
				a, err := caddytest.Fetch(stranger, caddytest.RefreshOf(t, s.Site, "x", fmt.Sprint("made-up-", sent.Add(1))))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case a.Status == http.StatusTeapot:
					told["forwarded"]++
				case strings.Contains(a.Body, "Server.ServiceUnavailable"):
					told["unavailable"]++
				default:
					t.Errorf("a made-up key gets %+v", a)
				}
			})
		}
		all.Wait()
		return told
	}

	// The endpoint does not answer for them.
	going := make(chan struct{})
	proceed := sync.OnceFunc(func() { close(going) })
	defer proceed()
	var arrived atomic.Int32
	becomes(func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		<-going
		caddytest.Says(http.StatusInternalServerError, "")(w, r)
	})
	done := make(chan map[string]int)
	go func() { done <- flood(strangers) }()
	caddytest.Eventually(t, "their places are taken", func() bool { return arrived.Load() == places })
	homesAreServed("slow")
	caddytest.Eventually(t, "those that wait have no locks at the storage", func() bool { // and the last home's is given back
		locks, err := os.ReadDir(filepath.Join(storage, "locks"))
		return err == nil && len(locks) == places
	})

	// It fails with them.
	proceed()
	t.Logf("while it failed with them: %v", <-done)
	homesAreServed("failing")

	// It refuses them: they are the old service's.
	becomes(caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`))
	const atOnce = 10 // so that none waits longer than the handler lets it
	caddytest.Eventually(t, "they are tried again", func() bool { return flood(atOnce)["forwarded"] == atOnce })
	for range strangers / atOnce {
		if told := flood(atOnce); told["forwarded"] != atOnce {
			t.Errorf("refused keys were %v", told)
		}
	}
	homesAreServed("refused")
	if log := s.Log(t); strings.Contains(log, "circuit breaker") || strings.Contains(log, "fuse blown") || strings.Contains(log, "holding back") {
		t.Error("made-up keys moved what handles share")
	}
	values := s.Scrape(t)
	if n := values[accounts("refresh", "failed")] + values[accounts("refresh", "rejected")]; n != 0 || values[accounts("refresh", "accepted")] != 1 {
		t.Errorf("%v accounts failed or were rejected, as alerts see it: there are made-up keys alone", n)
	}

	// One that comes again within remember_rejected costs nothing but a look.
	flood(1)
	front.Asked()
	again := caddytest.RefreshOf(t, s.Site, "x", fmt.Sprint("made-up-", sent.Load()))
	if a, err := caddytest.Fetch(stranger, again); err != nil || a.Status != http.StatusTeapot || len(front.Asked()) != 0 {
		t.Errorf("the same again: %+v, %v", a, err)
	}
}

// Sites of one endpoint may have other times in failed_logins.
func TestASiteWithAnotherTimeFreesNoAccount(t *testing.T) {
	step := stepClock(t)
	var failed atomic.Int32
	endpoint, old := caddytest.Serve(t, caddytest.Passwords(&failed)), caddytest.OldService(t)
	one, other := loopback.FreeAddress(), loopback.FreeAddress()
	block := func(address, logins string) string {
		return fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}\n", address, caddytest.Directive(endpoint, old, "failed_logins "+logins))
	}
	caddytest.Run(t, strings.TrimSuffix("respond ok\n}\n"+block(one, "4 30m")+block(other, "4 1m"), "}\n"))
	guess := func(address, name string) {
		t.Helper()
		(&caddytest.Site{URL: "http://" + address}).Post(t, caddytest.Tries(t, name, fmt.Sprint("guess", failed.Load()), "home"))
	}
	step(325 * time.Second)
	for range 10 {
		guess(one, "ella")
		guess(other, "another")
	}
	before := failed.Load()
	for range 10 {
		guess(other, fmt.Sprint("made-up", failed.Load()))
		guess(one, "ella")
	}
	if n := failed.Load() - before; n != 10 {
		t.Errorf("%d of 10 calls reached the endpoint, and some for a guarded account", n)
	}
}
