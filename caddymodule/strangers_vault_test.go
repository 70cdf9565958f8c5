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
)

// A key that is no handle may be a refresh token from before there was a vault, so that it has to be tried. Whatever comes
// of those that are made up, handles are refreshed and listeners are upgraded meanwhile.
func TestStrangersWithMadeUpKeysAreInNoHandlesWay(t *testing.T) {
	const strangers, places = 300, 2
	const life = time.Hour
	step := stepClock(t)
	endpoint := rotate(t, life.Seconds())
	var madeUp atomic.Pointer[http.HandlerFunc]
	becomes := func(h http.HandlerFunc) { madeUp.Store(&h) }
	front := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.PostFormValue("refresh_token"), "made-up") {
			(*madeUp.Load())(w, r)
			return
		}
		endpoint.Config.Handler.ServeHTTP(w, r)
	})
	s := operate(t, directive(front, oldService(t), "refresh_auth_tokens", "vault "+vaultFile(t), "replay off",
		"max_in_flight 8", "timeout 20s")) // a quarter of which refreshes have, and made-up keys another
	owner, stranger := from(t, "127.2.0.1"), from(t, "127.1.0.1")
	held, handle := tokensOf(s.upgrade(t))
	homesAreServed := func(while string) {
		t.Helper()
		for i := range 5 {
			step(life) // so that it takes a lock, an exchange and a write
			a, err := fetch(owner, refreshOf(t, s.site, held, handle))
			newToken, key := tokensOf(a)
			if err != nil || newToken == held || key != handle {
				t.Fatalf("%s, refresh %d: %+v, %v", while, i, a, err)
			}
			held = newToken
			a, err = ask(t, owner, s.site, tries(t, fmt.Sprint(while, i), "12345", "home"))
			if _, key := tokensOf(a); err != nil || !strings.HasPrefix(key, "smv1") {
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
				a, err := fetch(stranger, refreshOf(t, s.site, "x", fmt.Sprint("made-up-", sent.Add(1))))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case a.status == http.StatusTeapot:
					told["forwarded"]++
				case strings.Contains(a.body, "Server.ServiceUnavailable"):
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
		says(http.StatusInternalServerError, "")(w, r)
	})
	done := make(chan map[string]int)
	go func() { done <- flood(strangers) }()
	eventually(t, "their places are taken", func() bool { return arrived.Load() == places })
	homesAreServed("slow")
	eventually(t, "those that wait have no locks at the storage", func() bool { // and the last home's is given back
		locks, err := os.ReadDir(filepath.Join(s.storage, "locks"))
		return err == nil && len(locks) == places
	})

	// It fails with them.
	proceed()
	t.Logf("while it failed with them: %v", <-done)
	homesAreServed("failing")

	// It refuses them: they are the old service's.
	becomes(says(http.StatusBadRequest, `{"error":"invalid_grant"}`))
	const atOnce = 10 // so that none waits longer than the handler lets it
	eventually(t, "they are tried again", func() bool { return flood(atOnce)["forwarded"] == atOnce })
	for range strangers / atOnce {
		if told := flood(atOnce); told["forwarded"] != atOnce {
			t.Errorf("refused keys were %v", told)
		}
	}
	homesAreServed("refused")
	if log := s.log(t); strings.Contains(log, "circuit breaker") || strings.Contains(log, "fuse blown") || strings.Contains(log, "holding back") {
		t.Error("made-up keys moved what handles share")
	}
	values := s.scrape(t)
	if n := values[accounts("refresh", "failed")] + values[accounts("refresh", "rejected")]; n != 0 || values[accounts("refresh", "accepted")] != 1 {
		t.Errorf("%v accounts failed or were rejected, as alerts see it: there are made-up keys alone", n)
	}

	// One that comes again within remember_rejected costs nothing but a look.
	flood(1)
	front.asked()
	again := refreshOf(t, s.site, "x", fmt.Sprint("made-up-", sent.Load()))
	if a, err := fetch(stranger, again); err != nil || a.status != http.StatusTeapot || len(front.asked()) != 0 {
		t.Errorf("the same again: %+v, %v", a, err)
	}
}

// Instances see of each other what has failed, and not what is under way.
func TestGuessesAtOnceAreBoundedAtEachInstanceAndThenAtAll(t *testing.T) {
	var failed, arrived atomic.Int32
	judge, going := passwords(&failed), make(chan struct{})
	proceed := sync.OnceFunc(func() { close(going) })
	defer proceed()
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		<-going
		judge(w, r)
	})
	c := startCluster(t, 2, directive(endpoint, oldService(t), "refresh_auth_tokens", "vault "+vaultFile(t), "failed_logins 4 30m"))
	var answered atomic.Int32
	var all sync.WaitGroup
	guesses := func(n int, name string) {
		for i := range n {
			all.Go(func() {
				if _, err := ask(t, http.DefaultClient, c.sites[i%2], tries(t, "ella", fmt.Sprint(name, i), "home")); err != nil {
					t.Error(err)
				}
				answered.Add(1)
			})
		}
	}
	guesses(40, "at once ")
	// Of the 4 one is kept for other networks.
	eventually(t, "each instance lets three through", func() bool { return arrived.Load() == 6 && answered.Load() == 34 })
	proceed()
	all.Wait()
	guesses(40, "later ")
	all.Wait()
	if n := failed.Load(); n != 6 {
		t.Errorf("%d failed logins", n)
	}
}
