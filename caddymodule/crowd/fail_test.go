package crowd_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// failsFor is a token endpoint that fails whenever the account's name or key has this in it, as some do for names that
// their database cannot store and for keys that are no token of theirs.
func failsFor(what string, outage *atomic.Bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if outage.Load() || strings.Contains(r.PostFormValue("username")+r.PostFormValue("refresh_token"), what) {
			caddytest.Says(http.StatusInternalServerError, `{"error":"server_error"}`)(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	}
}

// flood has a stranger make upgrade calls and refreshes by accounts of such a name, until stop. Each is another account
// if distinct.
func flood(t *testing.T, s *caddytest.Site, ip, what string, distinct bool) (sent *atomic.Int32, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	sent = new(atomic.Int32)
	c := caddytest.From(t, ip)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				name := what
				if n := sent.Add(1); distinct {
					name += fmt.Sprint(n)
				}
				_, _ = caddytest.Fetch(c, s.Request(t, caddytest.Tries(t, name, "wrong", "home")).WithContext(ctx))
				_, _ = caddytest.Fetch(c, s.Refreshes(t, name).WithContext(ctx))
				time.Sleep(time.Millisecond)
			}
		})
	}
	return sent, sync.OnceFunc(func() { cancel(); all.Wait() })
}

func TestStrangersAtWhoseAccountsTheEndpointFailsOpenNoBreaker(t *testing.T) {
	var outage atomic.Bool
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, failsFor("unstorable", &outage)), caddytest.OldService(t), "refresh_auth_tokens"))
	l := &listeners{Site: s}
	l.upgrade(t)
	sent, stop := flood(t, s, "127.1.0.1", "unstorable", true)
	defer stop()
	for sent.Load() < 500 {
		l.upgrade(t)
	}
	stop()
	l.upgrade(t)
	if strings.Contains(s.Log(t), breakerChanged) {
		t.Error("the breaker has changed")
	}
}

// A short outage has opened the breaker, and a stranger goes on making the endpoint fail by one account.
func TestStrangersKeepNoBreakerOpen(t *testing.T) {
	t.Parallel()
	var outage atomic.Bool
	s := caddytest.Apart(t, caddytest.Directive(caddytest.Serve(t, failsFor("unstorable", &outage)), caddytest.OldService(t), "refresh_auth_tokens"))
	l := &listeners{Site: s}
	l.upgrade(t)
	outage.Store(true)
	sent, stop := flood(t, s, "127.1.0.1", "unstorable", false)
	defer stop()
	caddytest.Eventually(t, "it comes to that", func() bool { return sent.Load() > 20 })
	_, stopOthers := flood(t, s, "127.3.0.1", "other", true)
	caddytest.WaitForLog(t, s, `"breaker":"open"`)
	stopOthers()
	outage.Store(false)
	for _, ask := range []func(i int) *http.Request{
		func(i int) *http.Request {
			return s.Request(t, caddytest.Tries(t, fmt.Sprint("later", i), "right", "home"))
		},
		func(i int) *http.Request { return s.Refreshes(t, fmt.Sprint("later", i)) },
	} {
		served := 0
		for i, begun := 0, time.Now(); served < 20 && time.Since(begun) < time.Minute; i++ {
			c := caddytest.From(t, fmt.Sprintf("127.2.%d.1", i%250))
			if a, err := caddytest.Fetch(c, ask(i)); err == nil && strings.Contains(a.Body, "<authToken>new-token<") {
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
