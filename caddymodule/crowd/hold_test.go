package crowd_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// inAMinute are the ways to ask for a minute's patience, or for more than is granted.
var inAMinute = []struct {
	header string
	value  func() string
	want   float64 // seconds
}{
	{"Retry-After", func() string { return "60" }, 60},
	{"Retry-After", func() string { return "60.5" }, 60.5},
	{"Retry-After", func() string { return "60, 60" }, 60},
	{"Retry-After", func() string { return "99999999999" }, 300},
	{"Retry-After", func() string { return soon(http.TimeFormat) }, 60},
	{"Retry-After", func() string { return soon(time.RFC1123) }, 60},
	{"X-Rate-Limit-Reset", func() string { return fmt.Sprint(time.Now().Add(time.Minute).Unix()) }, 60},
	{"X-RateLimit-Reset", func() string { return "60" }, 60},
	{"RateLimit-Reset", func() string { return "60" }, 60},
}

func soon(layout string) string { return time.Now().Add(time.Minute).UTC().Format(layout) }

// limits refuses whoever is called limited with a status, and says when to come again.
func limits(status *atomic.Int32, header string, value func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.PostFormValue("username"), "limited") && !strings.HasPrefix(r.PostFormValue("refresh_token"), "limited") {
			caddytest.IssuesTokens(w, r)
			return
		}
		w.Header().Set(header, value())
		caddytest.Says(int(status.Load()), "<html>")(w, r)
	}
}

func TestStrangersWhoAreRateLimitedHoldNobodyElse(t *testing.T) {
	for _, way := range inAMinute {
		t.Run(way.header+" "+way.value(), func(t *testing.T) {
			var status atomic.Int32
			status.Store(http.StatusTooManyRequests)
			endpoint := caddytest.Count(t, limits(&status, way.header, way.value))
			o := caddytest.Operate(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t), "refresh_auth_tokens"))
			stranger, l := caddytest.From(t, "127.1.0.1"), &listeners{Site: o.Site}
			limited := func(name string) {
				t.Helper()
				a, err := caddytest.Ask(t, stranger, o.Site, caddytest.Tries(t, name, "right", "home"))
				if err != nil {
					t.Fatal(err)
				}
				caddytest.CheckAnswer(t, a, "service-unavailable.xml")
			}
			l.upgrade(t)
			for range 10 { // the account is held
				limited("limited1")
			}
			if n := endpoint.Posts.Load(); n != 3 {
				t.Errorf("%d of 10 calls of one account were sent", n-2)
			}
			limited("limited2")
			l.upgrade(t)
			if held := caddytest.OnlyEndpoint(t, o).HoldSeconds; held > 0 {
				t.Errorf("two accounts hold the others for %v s", held)
			}

			limited("limited3") // by now it is meant for all
			held := caddytest.OnlyEndpoint(t, o).HoldSeconds
			if math.Abs(held-way.want) > 10 {
				t.Errorf("held for %v s, want %v s", held, way.want)
			}
			limited("good")
			l.refresh(t, caddytest.From(t, "127.2.0.1"), "refresh")
		})
	}
}

func TestAnEndpointThatIsUnavailableHoldsLoginsAndRefreshesApart(t *testing.T) {
	for _, first := range []string{"login", "refresh"} {
		t.Run(first, func(t *testing.T) {
			var status atomic.Int32
			status.Store(http.StatusServiceUnavailable)
			endpoint := caddytest.Count(t, limits(&status, "Retry-After", func() string { return "60" }))
			o := caddytest.Operate(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t), "refresh_auth_tokens"))
			c := caddytest.From(t, "127.2.0.1")
			became := func(kind, account string) string {
				t.Helper()
				r := o.Request(t, caddytest.Tries(t, account, "right", "home"))
				if kind == "refresh" {
					r = o.Refreshes(t, account)
				}
				a, err := caddytest.Fetch(c, r)
				if err != nil {
					t.Fatal(err)
				}
				return caddytest.Told(t, a)
			}
			if became(first, "limited") != "unavailable" || caddytest.OnlyEndpoint(t, o).HoldSeconds < 50 {
				t.Errorf("a 503 holds for %v s", caddytest.OnlyEndpoint(t, o).HoldSeconds)
			}
			for _, kind := range []string{"login", "refresh"} {
				want := "upgraded"
				if kind == first {
					want = "unavailable"
				}
				if got := became(kind, "good"); got != want {
					t.Errorf("after the 503 of a %s a %s is %s", first, kind, got)
				}
			}
		})
	}
}

func TestAnAccountThatIsHeldIsServedWhenItsTimeIsOver(t *testing.T) {
	var posts []time.Time // one after the other
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if posts = append(posts, time.Now()); len(posts) == 1 {
			w.Header().Set("Retry-After", "0.2")
			caddytest.Says(http.StatusTooManyRequests, "")(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	}), caddytest.OldService(t)))
	caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml")
	caddytest.Eventually(t, "the account is upgraded", func() bool { return caddytest.Told(t, s.Upgrade(t)) == "upgraded" })
	if len(posts) != 2 || posts[1].Sub(posts[0]) < 200*time.Millisecond {
		t.Errorf("POSTs at %v", posts)
	}
}

// A server throttles each account, and 503s some. What it says of a network none of whose calls is accepted, while
// others' are, is that network's.
func TestStrangersWhoseCallsAllFailHoldNobodyElse(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			var failed atomic.Int32
			judge := caddytest.Passwords(&failed)
			o := caddytest.Operate(t, caddytest.Directive(caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.PostFormValue("username"), "limited") {
					w.Header().Set("Retry-After", "300")
					caddytest.Says(status, "")(w, r)
					return
				}
				judge(w, r)
			}), caddytest.OldService(t), "refresh_auth_tokens"))
			stranger, l := caddytest.From(t, "127.1.0.1"), &listeners{Site: o.Site}
			try := func(name string) {
				t.Helper()
				if a, err := caddytest.Ask(t, stranger, o.Site, caddytest.Tries(t, name, "wrong", "home")); err != nil || caddytest.Told(t, a) == "upgraded" {
					t.Fatalf("%s: %+v, %v", name, a, err)
				}
			}
			try("made-up")
			l.upgrade(t)
			for i := range 10 {
				try(fmt.Sprint("made-up", i))
			}
			for i := range 50 {
				try(fmt.Sprint("limited", i))
			}
			l.upgrade(t)
			if held := caddytest.OnlyEndpoint(t, o).HoldSeconds; held > 0 {
				t.Errorf("the others are held for %v s", held)
			}
		})
	}
}
