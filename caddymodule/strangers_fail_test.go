package caddymodule_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// failsFor is a token endpoint that fails whenever the account's name or key has this in it, as some do for names that
// their database cannot store and for keys that are no token of theirs.
func failsFor(what string, outage *atomic.Bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if outage.Load() || strings.Contains(r.PostFormValue("username")+r.PostFormValue("refresh_token"), what) {
			says(http.StatusInternalServerError, `{"error":"server_error"}`)(w, r)
			return
		}
		issuesTokens(w, r)
	}
}

// flood has a stranger make upgrade calls and refreshes by accounts of such a name, until stop. Each is another account
// if distinct.
func flood(t *testing.T, s *site, ip, what string, distinct bool) (sent *atomic.Int32, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	sent = new(atomic.Int32)
	c := from(t, ip)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				name := what
				if n := sent.Add(1); distinct {
					name += fmt.Sprint(n)
				}
				_, _ = fetch(c, s.request(t, tries(t, name, "wrong", "home")).WithContext(ctx))
				_, _ = fetch(c, s.refreshes(t, name).WithContext(ctx))
				time.Sleep(time.Millisecond)
			}
		})
	}
	return sent, sync.OnceFunc(func() { cancel(); all.Wait() })
}

func TestStrangersAtWhoseAccountsTheEndpointFailsOpenNoBreaker(t *testing.T) {
	var outage atomic.Bool
	s := caddyRun(t, directive(serve(t, failsFor("unstorable", &outage)), oldService(t), "refresh_auth_tokens"))
	l := &listeners{site: s}
	l.upgrade(t)
	sent, stop := flood(t, s, "127.1.0.1", "unstorable", true)
	defer stop()
	for sent.Load() < 500 {
		l.upgrade(t)
	}
	stop()
	l.upgrade(t)
	if strings.Contains(s.log(t), breakerChanged) {
		t.Error("the breaker has changed")
	}
}

// A short outage has opened the breaker, and a stranger goes on making the endpoint fail by one account.
func TestStrangersKeepNoBreakerOpen(t *testing.T) {
	var outage atomic.Bool
	s := caddyRun(t, directive(serve(t, failsFor("unstorable", &outage)), oldService(t), "refresh_auth_tokens"))
	l := &listeners{site: s}
	l.upgrade(t)
	outage.Store(true)
	sent, stop := flood(t, s, "127.1.0.1", "unstorable", false)
	defer stop()
	wait(t, func() bool { return sent.Load() > 20 })
	_, stopOthers := flood(t, s, "127.3.0.1", "other", true)
	waitForLog(t, s, `"breaker":"open"`)
	stopOthers()
	outage.Store(false)
	for _, ask := range []func(i int) *http.Request{
		func(i int) *http.Request { return s.request(t, tries(t, fmt.Sprint("later", i), "right", "home")) },
		func(i int) *http.Request { return s.refreshes(t, fmt.Sprint("later", i)) },
	} {
		served := 0
		for i, begun := 0, time.Now(); served < 20 && time.Since(begun) < time.Minute; i++ {
			c := from(t, fmt.Sprintf("127.2.%d.1", i%250))
			if a, err := fetch(c, ask(i)); err == nil && strings.Contains(a.body, "<authToken>new-token<") {
				served++
			} else {
				served = 0
			}
			c.CloseIdleConnections()
			time.Sleep(10 * time.Millisecond)
		}
		if served < 20 {
			t.Error("while a stranger goes on the breaker stays open")
		}
	}
}
