package token

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func login(username, password string) Grant {
	return Grant{
		Type: "password", Params: []Param{{"username", username}, {"password", password}},
		Identity: []string{"home", username, password}, Account: username,
	}
}

// stub is a transport without a network, for tests that step the clock.
type stub func(form url.Values) (status int, header http.Header, body string)

func (s stub) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, err
	}
	status, header, body := s(form)
	if r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), ProtoMajor: 1}, nil
}

const issued = `{"access_token":"new","refresh_token":"key"}`

func at(transport http.RoundTripper, change ...func(*Config)) *Endpoint {
	change = append([]func(*Config){func(c *Config) {
		c.Transport, c.Replay, c.RememberRejected = transport, time.Minute, 30*time.Second
	}}, change...)
	return endpoint(&url.URL{Scheme: "https", Host: "auth.example.com"}, change...)
}

func TestTheSameCallAtOnceIsOneLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int32
		e := at(stub(func(url.Values) (int, http.Header, string) {
			posts.Add(1)
			time.Sleep(time.Second)
			return 200, nil, issued
		}))
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if r := e.Exchange(context.Background(), soon(), login("ella", "a")); r.Class != Issued {
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		if posts.Load() != 1 {
			t.Errorf("%d POSTs", posts.Load())
		}
	})
}

func TestTheSameCallIsAnsweredAgainForAWhile(t *testing.T) {
	for _, test := range []struct {
		name, body string
		keep       time.Duration
	}{{"tokens", issued, time.Minute}, {"rejection", `{"error":"invalid_grant"}`, 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			var posts int
			e := at(stub(func(url.Values) (int, http.Header, string) { posts++; return 200, nil, test.body }))
			call := login("ella", "a")
			first := e.Exchange(context.Background(), soon(), call)
			time.Sleep(test.keep - time.Second)
			if again := e.Exchange(context.Background(), soon(), call); again.Class != first.Class || !again.Replayed || posts != 1 {
				t.Errorf("%s: %+v after %d POSTs", test.name, again, posts)
			}
			other := call
			other.Identity = []string{"another home", "ella", "a"}
			e.Exchange(context.Background(), soon(), other)
			e.Exchange(context.Background(), soon(), login("ella", "b"))
			e.Exchange(context.Background(), soon(), login("ellaa", ""))
			if posts != 4 {
				t.Errorf("%s: other calls made %d POSTs", test.name, posts-1)
			}
			time.Sleep(2 * time.Second)
			if e.Exchange(context.Background(), soon(), call); posts != 5 {
				t.Errorf("%s: remembered for too long", test.name)
			}
		})
	}
}

func TestNothingIsRememberedWhereItIsOff(t *testing.T) {
	for _, body := range []string{issued, `{"error":"invalid_grant"}`} {
		posts := 0
		e := at(stub(func(url.Values) (int, http.Header, string) { posts++; return 200, nil, body }),
			func(c *Config) { c.Replay, c.RememberRejected = 0, 0 })
		e.Exchange(context.Background(), soon(), ella)
		if e.Exchange(context.Background(), soon(), ella); posts != 2 {
			t.Errorf("%d POSTs", posts)
		}
	}
}

func TestAnOutageIsNotRemembered(t *testing.T) {
	posts := 0
	e := at(stub(func(url.Values) (int, http.Header, string) {
		if posts++; posts == 1 {
			return 500, nil, ""
		}
		return 200, nil, issued
	}))
	e.Exchange(context.Background(), soon(), ella)
	if r := e.Exchange(context.Background(), soon(), ella); r.Class != Issued {
		t.Errorf("%+v", r)
	}
}

func TestWhoWaitsIsServedInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		e := at(stub(func(form url.Values) (int, http.Header, string) {
			order = append(order, form.Get("username"))
			time.Sleep(time.Second)
			return 200, nil, issued
		}), func(c *Config) { c.MaxInFlight = 1 })
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() { e.Exchange(context.Background(), soon(), login(strconv.Itoa(i), "x")) })
			synctest.Wait()
		}
		all.Wait()
		if fmt.Sprint(order) != "[0 1 2 3 4]" {
			t.Errorf("served in the order %v", order)
		}
	})
}

func TestWhoHasGoneLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int32
		e := at(stub(func(url.Values) (int, http.Header, string) {
			posts.Add(1)
			time.Sleep(time.Second)
			return 200, nil, issued
		}), func(c *Config) { c.MaxInFlight = 1 })
		go e.Exchange(context.Background(), soon(), login("first", "x"))
		synctest.Wait()

		ctx, leave := context.WithCancel(context.Background())
		gone := make(chan Result)
		go func() { gone <- e.Exchange(ctx, soon(), login("gone", "x")) }()
		synctest.Wait()
		leave()
		if r := <-gone; r.Class != Overloaded {
			t.Errorf("%+v", r)
		}
		time.Sleep(5 * time.Second)
		if posts.Load() != 1 {
			t.Errorf("%d POSTs", posts.Load())
		}
	})
}

func TestALeaderWhoLeavesKeepsThePlaceForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		e := at(stub(func(form url.Values) (int, http.Header, string) {
			order = append(order, form.Get("username"))
			time.Sleep(time.Second)
			return 200, nil, issued
		}), func(c *Config) { c.MaxInFlight = 1 })
		ctx, leave := context.WithCancel(context.Background())
		follower := make(chan Result, 1)
		for _, call := range []func(){
			func() { e.Exchange(context.Background(), soon(), login("first", "x")) },
			func() { e.Exchange(ctx, soon(), login("shared", "x")) },
			func() { e.Exchange(context.Background(), soon(), login("last", "x")) },
			func() { follower <- e.Exchange(context.Background(), soon(), login("shared", "x")) },
		} {
			go call()
			synctest.Wait()
		}
		leave()
		if r := <-follower; r.Class != Issued {
			t.Errorf("%+v", r)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if fmt.Sprint(order) != "[first shared last]" {
			t.Errorf("served in the order %v", order)
		}
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	g := newGate(nil)
	later := time.Now().Add(time.Hour)
	if a, _ := g.enter(later, 1); a != in {
		t.Fatal("no first place")
	}
	for range queuePerPlace {
		if a, _ := g.enter(later, 1); a != queued {
			t.Fatal("turned away", a)
		}
	}
	if a, _ := g.enter(later, 1); a != late {
		t.Error("a queue without an end")
	}
}

func TestAWaveIsServedAtThePaceOfTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const accounts, places, each = 5000, 16, 20 * time.Millisecond
		e := at(stub(func(url.Values) (int, http.Header, string) {
			time.Sleep(each)
			return 200, nil, issued
		}), func(c *Config) { c.MaxInFlight = places })
		start := time.Now()
		var all sync.WaitGroup
		for i := range accounts {
			all.Go(func() {
				if r := e.Exchange(context.Background(), start.Add(20*time.Second), login(strconv.Itoa(i), "x")); r.Class != Issued {
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		if took, ideal := time.Since(start), (accounts+places-1)/places*each; took != ideal {
			t.Errorf("it took %v, ideally %v", took, ideal)
		}
	})
}

// The endpoint can serve half of a wave in time: that half is served, and the others are told early.
func TestWhoCannotMakeItIsToldEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			accounts, places = 5000, 16
			each             = 20 * time.Millisecond
			timeout          = 3125 * time.Millisecond // half of 5000 / 16 * 20 ms
		)
		var inFlight, most atomic.Int32
		e := at(stub(func(url.Values) (int, http.Header, string) {
			most.Store(max(most.Load(), inFlight.Add(1)))
			defer inFlight.Add(-1)
			time.Sleep(each)
			return 200, nil, issued
		}), func(c *Config) { c.MaxInFlight = places })
		start := time.Now()
		var served, early, lateOnes atomic.Int32
		var all sync.WaitGroup
		for i := range accounts {
			all.Go(func() {
				r := e.Exchange(context.Background(), start.Add(timeout), login(strconv.Itoa(i), "x"))
				switch {
				case r.Class == Issued:
					served.Add(1)
				case r.Class == Overloaded && time.Since(start) < timeout/2:
					early.Add(1)
				case r.Class == Overloaded:
					lateOnes.Add(1)
				default:
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		t.Logf("%d served, %d told early, %d late", served.Load(), early.Load(), lateOnes.Load())
		if served.Load() < accounts/2*95/100 {
			t.Errorf("only %d were served", served.Load())
		}
		if lateOnes.Load() > accounts/2/10 {
			t.Errorf("%d were told late", lateOnes.Load())
		}
		if most.Load() > places {
			t.Errorf("%d were in flight", most.Load())
		}
	})
}

func TestAServerThatAsksForPatienceGetsIt(t *testing.T) {
	for name, ask := range map[string]func() (int, http.Header){
		"seconds": func() (int, http.Header) { return 429, http.Header{"Retry-After": {"5"}} },
		"a date": func() (int, http.Header) {
			return 503, http.Header{"Retry-After": {time.Now().Add(5 * time.Second).UTC().Format(http.TimeFormat)}}
		},
		"seconds of the epoch": func() (int, http.Header) {
			return 429, http.Header{"X-Rate-Limit-Reset": {strconv.FormatInt(time.Now().Add(5*time.Second).Unix(), 10)}}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			posts := 0
			e := at(stub(func(url.Values) (int, http.Header, string) {
				if posts++; posts == 1 {
					status, header := ask()
					return status, header, ""
				}
				return 200, nil, issued
			}))
			if r := e.Exchange(context.Background(), soon(), ella); r.Class != Unavailable {
				t.Errorf("%s: %+v", name, r)
			}
			asked := time.Now()
			if r := e.Exchange(context.Background(), asked.Add(3*time.Second), ella); r.Class != Unavailable || time.Since(asked) != 0 || posts != 1 {
				t.Errorf("%s: of one with less time: %+v after %v", name, r, time.Since(asked))
			}
			if r := e.Exchange(context.Background(), soon(), ella); r.Class != Issued || time.Since(asked) < 4*time.Second || time.Since(asked) > 6*time.Second {
				t.Errorf("%s: of one with more: %+v after %v", name, r, time.Since(asked))
			}
		})
	}
}

func TestHoldingBackIsBounded(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for after, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, "86400": maxHold, "-1": -1, "soon": -1, "": -1, "99999999999999999999": -1,
		"Thu, 01 Jan 2026 00:00:09 GMT": 9 * time.Second, "Fri, 01 Jan 2027 00:00:00 GMT": maxHold,
	} {
		got := holdUntil(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {after}}}, now)
		if want < 0 && !got.IsZero() || want >= 0 && !got.Equal(now.Add(want)) {
			t.Errorf("%q: until %v", after, got)
		}
	}
	if got := holdUntil(&http.Response{StatusCode: 500, Header: http.Header{"Retry-After": {"5"}}}, now); !got.IsZero() {
		t.Errorf("a 500 holds back until %v", got)
	}
}

func TestAFailingEndpointIsLeftAloneForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		posts, failing := 0, true
		e := at(stub(func(url.Values) (int, http.Header, string) {
			posts++
			if failing {
				return 500, nil, ""
			}
			return 200, nil, issued
		}))
		for i := range 100 {
			e.Exchange(context.Background(), soon(), login(strconv.Itoa(i), "x"))
		}
		if posts != breakerCalls {
			t.Errorf("%d POSTs before it was left alone", posts)
		}
		failing = false
		time.Sleep(breakerOpen + time.Millisecond)
		for i := range 10 {
			if r := e.Exchange(context.Background(), soon(), login(strconv.Itoa(i), "x")); r.Class != Issued {
				t.Errorf("after it has recovered: %+v", r)
			}
		}
	})
}

func TestWhoWaitsForAHangingEndpointIsToldWhenItIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := at(stub(func(url.Values) (int, http.Header, string) {
			time.Sleep(5 * time.Second)
			return 500, nil, ""
		}), func(c *Config) { c.MaxInFlight = 32 })
		start := time.Now()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() {
				if r := e.Exchange(context.Background(), start.Add(15*time.Second), login(strconv.Itoa(i), "x")); r.Class != Unavailable {
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("told after %v", took)
		}
	})
}

func TestOneAccountsFailureIsNoOutage(t *testing.T) {
	e := at(stub(func(form url.Values) (int, http.Header, string) {
		if form.Get("username") == "locked" {
			return 500, nil, `{"error":"server_error"}`
		}
		return 200, nil, issued
	}))
	for i := range 500 {
		locked := login("locked", strconv.Itoa(i))
		locked.Identity = append(locked.Identity, "home "+strconv.Itoa(i)) // in many homes, by many passwords
		if r := e.Exchange(context.Background(), soon(), locked); r.Class != Unavailable || r.Status != 500 {
			t.Fatalf("%+v", r)
		}
	}
	if r := e.Exchange(context.Background(), soon(), login("ella", "x")); r.Class != Issued {
		t.Errorf("%+v", r)
	}
}

func TestWhatOnErrorCallsUnavailableIsNoOutage(t *testing.T) {
	posts := 0
	e := at(stub(func(url.Values) (int, http.Header, string) { posts++; return 400, nil, `{"error":"invalid_grant"}` }))
	for i := range 100 {
		g := login(strconv.Itoa(i), "x")
		g.OnError = map[string]Class{"invalid_grant": Unavailable}
		if r := e.Exchange(context.Background(), soon(), g); r.Class != Unavailable {
			t.Fatalf("%+v", r)
		}
	}
	if posts != 100 {
		t.Errorf("%d POSTs", posts)
	}
}

func TestRejectionsAreNoOutage(t *testing.T) {
	posts := 0
	e := at(stub(func(url.Values) (int, http.Header, string) { posts++; return 400, nil, `{"error":"invalid_grant"}` }))
	for i := range 100 {
		e.Exchange(context.Background(), soon(), login(strconv.Itoa(i), "x"))
	}
	if posts != 100 {
		t.Errorf("%d POSTs", posts)
	}
}

func TestAHoldIsToldOfOnceAndOnlyIfThereIsOne(t *testing.T) {
	for after, want := range map[string]int{"5": 1, "0": 0, "Thu, 01 Jan 1970 00:00:00 GMT": 0} {
		synctest.Test(t, func(t *testing.T) {
			var told atomic.Int32
			e := at(stub(func(url.Values) (int, http.Header, string) {
				time.Sleep(time.Second)
				return 429, http.Header{"Retry-After": {after}}, `{}`
			}), func(c *Config) {
				c.State = NewState(Watch{Hold: func(time.Time) { told.Add(1) }})
			})
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					e.Exchange(context.Background(), soon(), login(strconv.Itoa(i), "x"))
				})
			}
			all.Wait()
			synctest.Wait()
			if got := int(told.Load()); got != want {
				t.Errorf("Retry-After %s: told %d times", after, got)
			}
		})
	}
}

func TestWhatIsOffIsForgottenWhateverItWas(t *testing.T) {
	for _, body := range []string{issued, `{"error":"invalid_grant"}`} {
		posts := 0
		state := NewState(Watch{})
		with := func(keep time.Duration) *Endpoint {
			return at(stub(func(url.Values) (int, http.Header, string) { posts++; return 200, nil, body }),
				func(c *Config) { c.State, c.Replay, c.RememberRejected = state, keep, keep })
		}
		with(time.Minute).Exchange(context.Background(), soon(), ella)
		with(0).Exchange(context.Background(), soon(), ella)
		if posts != 2 {
			t.Errorf("%s: %d POSTs", body, posts)
		}
	}
}
