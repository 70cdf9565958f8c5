package exchange

import (
	"context"
	"fmt"
	"hash/maphash"
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

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token/tokentest"
)

// config is an Exchanger and its token endpoint.
type config struct {
	token.Config
	MaxInFlight              int
	Replay, RememberRejected time.Duration
	Fair                     time.Duration
	Fuse                     float64
	Budget                   pacing.Budget
	State                    *State
}

type exchanging struct{ *Exchanger }

func (e exchanging) Exchange(ctx context.Context, deadline time.Time, q Request) Result {
	q.Deadline = deadline
	return *e.Exchanger.Exchange(ctx, &q)
}

func endpoint(u *url.URL, change ...func(*config)) exchanging {
	c := config{
		Config: token.Config{
			URL: u, Client: token.Client{ID: "the id", Auth: token.Basic, Secret: func() string { return "s&cret%" }},
			Fields:    []string{"access_token", "refresh_token"},
			Transport: &http.Transport{}, Context: context.Background(),
		},
		MaxInFlight: 4, Fuse: 100, State: NewState(pacing.Watch{}, nil, time.Now),
	}
	for _, f := range change {
		f(&c)
	}
	return exchanging{&Exchanger{
		Name: u.String(), Endpoint: token.New(c.Config), State: c.State, Places: c.MaxInFlight,
		Replay: c.Replay, RememberRejected: c.RememberRejected,
		Fuse: c.Fuse, Fair: c.Fair, Budgets: pacing.NewBudgets(time.Now), Budget: c.Budget,
	}}
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

// What opens the breaker, and for how long: see package pacing.
const (
	breakerCalls = 20
	breakerOpen  = 2 * time.Second
)

var ella = login("ella & söhne", " p+w=%20 ")

func login(username, password string) Request {
	return Request{
		Grant:    token.Grant{Type: "password", Params: []token.Param{{Name: "username", Value: username}, {Name: "password", Value: password}}},
		Identity: []string{"home", username, password}, Account: username,
	}
}

type stub = tokentest.Stub

const issued = `{"access_token":"new","refresh_token":"key"}`

func at(transport http.RoundTripper, change ...func(*config)) exchanging {
	change = append([]func(*config){func(c *config) {
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
				if r := e.Exchange(context.Background(), soon(), login("ella", "a")); r.Class != token.Issued {
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
			func(c *config) { c.Replay, c.RememberRejected = 0, 0 })
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
	if r := e.Exchange(context.Background(), soon(), ella); r.Class != token.Issued {
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
		}), func(c *config) { c.MaxInFlight = 1 })
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
		}), func(c *config) { c.MaxInFlight = 1 })
		go e.Exchange(context.Background(), soon(), login("first", "x"))
		synctest.Wait()

		ctx, leave := context.WithCancel(context.Background())
		gone := make(chan Result)
		go func() { gone <- e.Exchange(ctx, soon(), login("gone", "x")) }()
		synctest.Wait()
		leave()
		if r := <-gone; r.Class != NotSent {
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
		}), func(c *config) { c.MaxInFlight = 1 })
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
		if r := <-follower; r.Class != token.Issued {
			t.Errorf("%+v", r)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if fmt.Sprint(order) != "[first shared last]" {
			t.Errorf("served in the order %v", order)
		}
	})
}

func TestAWaveIsServedAtThePaceOfTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const accounts, places, each = 5000, 16, 20 * time.Millisecond
		e := at(stub(func(url.Values) (int, http.Header, string) {
			time.Sleep(each)
			return 200, nil, issued
		}), func(c *config) { c.MaxInFlight = places })
		start := time.Now()
		var all sync.WaitGroup
		for i := range accounts {
			all.Go(func() {
				if r := e.Exchange(context.Background(), start.Add(20*time.Second), login(strconv.Itoa(i), "x")); r.Class != token.Issued {
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
		}), func(c *config) { c.MaxInFlight = places })
		start := time.Now()
		var served, early, lateOnes atomic.Int32
		var all sync.WaitGroup
		for i := range accounts {
			all.Go(func() {
				r := e.Exchange(context.Background(), start.Add(timeout), login(strconv.Itoa(i), "x"))
				switch {
				case r.Class == token.Issued:
					served.Add(1)
				case r.Class == NotSent && time.Since(start) < timeout*2/3:
					early.Add(1)
				case r.Class == NotSent:
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
		"seconds": func() (int, http.Header) { return 503, http.Header{"Retry-After": {"5"}} },
		"a date": func() (int, http.Header) {
			return 503, http.Header{"Retry-After": {time.Now().Add(5 * time.Second).UTC().Format(http.TimeFormat)}}
		},
		"seconds of the epoch": func() (int, http.Header) {
			return 503, http.Header{"X-Rate-Limit-Reset": {strconv.FormatInt(time.Now().Add(5*time.Second).Unix(), 10)}}
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
			if r := e.Exchange(context.Background(), soon(), ella); r.Class != token.Unavailable {
				t.Errorf("%s: %+v", name, r)
			}
			asked := time.Now()
			if r := e.Exchange(context.Background(), asked.Add(3*time.Second), ella); r.Class != token.Unavailable || time.Since(asked) != 0 || posts != 1 {
				t.Errorf("%s: of one with less time: %+v after %v", name, r, time.Since(asked))
			}
			if r := e.Exchange(context.Background(), soon(), ella); r.Class != token.Issued || time.Since(asked) < 4*time.Second || time.Since(asked) > 6*time.Second {
				t.Errorf("%s: of one with more: %+v after %v", name, r, time.Since(asked))
			}
		})
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
			if r := e.Exchange(context.Background(), soon(), login(strconv.Itoa(i), "x")); r.Class != token.Issued {
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
		}), func(c *config) { c.MaxInFlight = 32 })
		start := time.Now()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() {
				if r := e.Exchange(context.Background(), start.Add(15*time.Second), login(strconv.Itoa(i), "x")); r.Class != token.Unavailable {
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
		if r := e.Exchange(context.Background(), soon(), locked); r.Class != token.Unavailable || r.Status != 500 {
			t.Fatalf("%+v", r)
		}
	}
	if r := e.Exchange(context.Background(), soon(), login("ella", "x")); r.Class != token.Issued {
		t.Errorf("%+v", r)
	}
}

func TestWhatOnErrorCallsUnavailableIsNoOutage(t *testing.T) {
	posts := 0
	e := at(stub(func(url.Values) (int, http.Header, string) { posts++; return 400, nil, `{"error":"invalid_grant"}` }))
	for i := range 100 {
		g := login(strconv.Itoa(i), "x")
		g.OnError = map[string]token.Class{"invalid_grant": token.Unavailable}
		if r := e.Exchange(context.Background(), soon(), g); r.Class != token.Unavailable {
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
				return 503, http.Header{"Retry-After": {after}}, `{}`
			}), func(c *config) {
				c.State = NewState(pacing.Watch{Hold: func(time.Time) { told.Add(1) }}, nil, time.Now)
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
		state := NewState(pacing.Watch{}, nil, time.Now)
		with := func(keep time.Duration) exchanging {
			return at(stub(func(url.Values) (int, http.Header, string) { posts++; return 200, nil, body }),
				func(c *config) { c.State, c.Replay, c.RememberRejected = state, keep, keep })
		}
		with(time.Minute).Exchange(context.Background(), soon(), ella)
		with(0).Exchange(context.Background(), soon(), ella)
		if posts != 2 {
			t.Errorf("%s: %d POSTs", body, posts)
		}
	}
}

var refresh = NewRule(Rule{
	GrantType: token.Refresh, Params: []Param{{Name: token.Refresh, Value: Template{{Placeholder: "smapi.key"}}}},
}, smapi.LoginToken)

func refreshOf(old string) Request {
	return refresh.Request(&smapi.Call{Credentials: smapi.Credentials{Kind: smapi.LoginToken, Key: old}}, nil)
}

func TestARefreshTokenIsUsedOnceAMinuteWhateverReplayIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		posts := map[string]int{}
		var mu sync.Mutex
		e := at(stub(func(form url.Values) (int, http.Header, string) {
			mu.Lock()
			defer mu.Unlock()
			posts[form.Get("refresh_token")]++
			return 200, nil, issued
		}), func(c *config) { c.Replay = 0 })
		use := func(home string) {
			g := refreshOf("old")
			g.Params = append(g.Params, token.Param{Name: "home", Value: home})
			if r := e.Exchange(context.Background(), soon(), g); r.Class != token.Issued || r.Fields.Get("refresh_token") != "key" {
				t.Errorf("%+v", r)
			}
		}
		var all sync.WaitGroup
		for _, home := range []string{"one", "one", "another", "", "one"} {
			all.Go(func() { use(home) })
		}
		all.Wait()
		time.Sleep(59 * time.Second)
		use("one")
		if posts["old"] != 1 {
			t.Errorf("%d POSTs of one token", posts["old"])
		}
		e.Exchange(context.Background(), soon(), refreshOf("new"))
		if posts["new"] != 1 {
			t.Errorf("%d POSTs of the next token", posts["new"])
		}
		time.Sleep(2 * time.Second)
		use("one")
		if posts["old"] != 2 {
			t.Errorf("%d POSTs after a minute", posts["old"])
		}
	})
}

func TestTheMetadataOfAnIssuerIsGoodForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &metadata{says: func() (int, string) {
			return 200, `{"issuer":"https://auth.example.com","token_endpoint":"https://login.example.com/one"}`
		}}
		e := at(m, func(c *config) {
			c.Issuer, c.URL = c.URL.String(), nil
			c.Replay = 0
		})
		exchange := func(want token.Class) {
			t.Helper()
			if r := e.Exchange(context.Background(), soon(), ella); r.Class != want {
				t.Errorf("%+v, want %s", r, want)
			}
		}
		var all sync.WaitGroup
		for _, account := range []string{"a", "b", "c", "d"} {
			all.Go(func() { e.Exchange(context.Background(), soon(), login(account, "p")) })
		}
		all.Wait()
		time.Sleep(59 * time.Minute)
		exchange(token.Issued)
		if m.gets != 1 {
			t.Errorf("asked %d times within an hour", m.gets)
		}
		m.says = func() (int, string) { return 503, "" }
		time.Sleep(2 * time.Minute)
		exchange(token.Issued) // the last good one stays in force
		synctest.Wait()
		exchange(token.Issued)
		synctest.Wait()
		if m.gets != 2 {
			t.Errorf("asked %d times for what was not there", m.gets-1)
		}
		m.says = func() (int, string) {
			return 200, `{"issuer":"https://auth.example.com","token_endpoint":"https://login.example.com/two"}`
		}
		time.Sleep(2 * time.Minute)
		exchange(token.Issued) // in the background the next one is found
		synctest.Wait()
		exchange(token.Issued)
		if last := m.posts[len(m.posts)-1]; last != "https://login.example.com/two" {
			t.Errorf("posted to %s", last)
		}
	})
}

// metadata is a transport to an authorization server that tells its token endpoint.
type metadata struct {
	mu    sync.Mutex
	gets  int
	posts []string
	says  func() (int, string)
}

func (m *metadata) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	status, body := 200, issued
	if r.Method == http.MethodGet {
		m.gets++
		status, body = m.says()
	} else {
		_, _ = io.Copy(io.Discard, r.Body)
		m.posts = append(m.posts, r.URL.String())
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), ProtoMajor: 1}, nil
}

func TestOnlySoManyAreInFlight(t *testing.T) {
	proceed := make(chan struct{})
	var posts atomic.Int32
	e := at(stub(func(url.Values) (int, http.Header, string) {
		posts.Add(1)
		<-proceed
		return 200, nil, issued
	}), func(c *config) { c.MaxInFlight, c.Replay = 1, 0 })
	first := make(chan Result)
	go func() { first <- e.Exchange(context.Background(), soon(), ella) }()
	for posts.Load() == 0 {
		time.Sleep(time.Millisecond) // until the first has the only place
	}

	django := login("django", "nuages")
	if r := e.Exchange(context.Background(), time.Now().Add(20*time.Millisecond), django); r.Class != NotSent {
		t.Errorf("without a place in time: %+v", r)
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	if r := e.Exchange(gone, soon(), django); r.Class != NotSent {
		t.Errorf("of a caller that has gone: %+v", r)
	}
	close(proceed)
	if r := <-first; r.Class != token.Issued {
		t.Errorf("with a place: %+v", r)
	}
	if r := e.Exchange(context.Background(), soon(), django); r.Class != token.Issued {
		t.Errorf("the place is not given back: %+v", r)
	}
	if posts.Load() != 2 {
		t.Errorf("%d POSTs", posts.Load())
	}
}

func TestACallerWhoLeavesDoesNotCutItsLogin(t *testing.T) {
	caller, leave := context.WithCancel(context.Background())
	var posts atomic.Int32
	e := at(stub(func(url.Values) (int, http.Header, string) {
		posts.Add(1)
		leave()
		return 200, nil, issued
	}))
	e.Exchange(caller, soon(), ella)
	if r := e.Exchange(context.Background(), soon(), ella); r.Class != token.Issued || r.Fields.Get("access_token") != "new" || posts.Load() != 1 {
		t.Errorf("of the next: %+v after %d POSTs", r, posts.Load())
	}
}

func TestAnEndpointForClientCertificatesIsPreferredWithThem(t *testing.T) {
	for auth, want := range map[token.ClientAuth]string{
		token.TLS:  "https://mtls.example.com/token",
		token.None: "https://login.example.com/token",
	} {
		m := &metadata{says: func() (int, string) {
			return 200, `{"issuer":"https://auth.example.com","token_endpoint":"https://login.example.com/token",
				"mtls_endpoint_aliases":{"token_endpoint":"https://mtls.example.com/token"}}`
		}}
		e := at(m, func(c *config) {
			c.Issuer, c.URL = c.URL.String(), nil
			c.Client = token.Client{ID: "the id", Auth: auth}
		})
		if r := e.Exchange(context.Background(), soon(), ella); r.Class != token.Issued || m.posts[0] != want {
			t.Errorf("%s: %+v, posted to %v", auth, r, m.posts)
		}
	}
}

var networkSeed = maphash.MakeSeed()

// guessing is a login by name in whichever home and network.
func guessing(name, password, home, network string) Request {
	q := login(name, password)
	q.Identity = []string{home, "variant", name, password}
	q.RejectedAnywhere = true
	q.Guessable, q.Network = true, pacing.Network(maphash.String(networkSeed, network))
	return q
}

func guarded(c *config) { c.Budget = pacing.Budget{Failures: 4, Window: 30 * time.Minute} }

// knows accepts one password, and counts what it is asked.
func knows(password string, posts *atomic.Int32) stub {
	return func(form url.Values) (int, http.Header, string) {
		posts.Add(1)
		if form.Get("password") == password {
			return 200, nil, issued
		}
		return 400, nil, `{"error":"invalid_grant"}`
	}
}

func TestGuessesAtOneAccountAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int32
		e := at(knows("right", &posts), guarded)
		become := map[token.Class]int{}
		for i := range 500 {
			r := e.Exchange(context.Background(), soon(), guessing("ella", strconv.Itoa(i), strconv.Itoa(i), "10.0.0.0/24"))
			become[r.Class]++
		}
		if posts.Load() != 3 || become[token.Rejected] != 3 || become[AccountGuarded] != 497 {
			t.Errorf("%d POSTs, %v", posts.Load(), become)
		}
		// A part is kept for another network, where the owner is.
		if r := e.Exchange(context.Background(), soon(), guessing("ella", "right", "home", "10.0.1.0/24")); r.Class != token.Issued {
			t.Errorf("the owner: %+v", r)
		}
		if r := e.Exchange(context.Background(), soon(), guessing("django", "right", "home", "10.0.0.0/24")); r.Class != token.Issued {
			t.Errorf("another account: %+v", r)
		}
		for i := range 10 { // from everywhere
			e.Exchange(context.Background(), soon(), guessing("ella", "x"+strconv.Itoa(i), "", "10.1."+strconv.Itoa(i)+".0/24"))
		}
		if posts.Load() != 6 {
			t.Errorf("%d POSTs", posts.Load()-5)
		}
		time.Sleep(41 * time.Minute)
		if r := e.Exchange(context.Background(), soon(), guessing("ella", "right", "home", "10.0.0.0/24")); r.Class != token.Issued {
			t.Errorf("after the window: %+v", r)
		}
	})
}

func TestTheSameWrongPasswordIsWrongInEveryHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int32
		e := at(knows("right", &posts), guarded)
		for i := range 20 {
			if r := e.Exchange(context.Background(), soon(), guessing("ella", "wrong", strconv.Itoa(i), "")); r.Class != token.Rejected {
				t.Errorf("%+v", r)
			}
		}
		if posts.Load() != 1 {
			t.Errorf("%d failed logins", posts.Load())
		}
	})
}

func TestGuessesAtOnceAreBoundedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int32
		slow := func(form url.Values) (int, http.Header, string) {
			time.Sleep(time.Second)
			return knows("right", &posts)(form)
		}
		e := at(stub(slow), guarded, func(c *config) { c.MaxInFlight = 64 })
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				e.Exchange(context.Background(), soon(), guessing("ella", strconv.Itoa(i), "", strconv.Itoa(i)))
			})
		}
		all.Wait()
		if posts.Load() > 4 {
			t.Errorf("%d failed logins", posts.Load())
		}
	})
}

func TestA429IsOneAccountsUntilSeveralAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		posts := map[string]int{}
		var mu sync.Mutex
		e := at(stub(func(form url.Values) (int, http.Header, string) {
			mu.Lock()
			defer mu.Unlock()
			name := form.Get("username") + form.Get("refresh_token")
			posts[name]++
			if strings.HasPrefix(name, "busy") {
				return 429, http.Header{"Retry-After": {"300"}}, ""
			}
			return 200, nil, issued
		}))
		for range 3 {
			if r := e.Exchange(context.Background(), soon(), login("busy", "x")); r.Class != token.Unavailable {
				t.Errorf("%+v", r)
			}
			if r := e.Exchange(context.Background(), soon(), login("ella"+strconv.Itoa(len(posts)), "x")); r.Class != token.Issued {
				t.Errorf("another account: %+v", r)
			}
		}
		if posts["busy"] != 1 {
			t.Errorf("it was asked %d times for an account that it holds", posts["busy"])
		}
		e.Exchange(context.Background(), soon(), login("busy2", "x"))
		e.Exchange(context.Background(), soon(), login("busy3", "x"))
		if r := e.Exchange(context.Background(), soon(), login("django", "x")); r.Class != token.Unavailable {
			t.Errorf("when several are told: %+v", r)
		}
		if r := e.Exchange(context.Background(), soon(), refreshOf("key")); r.Class != token.Issued {
			t.Errorf("a refresh waits for logins: %+v", r)
		}
		time.Sleep(301 * time.Second)
		if r := e.Exchange(context.Background(), soon(), login("django", "x")); r.Class != token.Issued {
			t.Errorf("after the hold: %+v", r)
		}
	})
}

// 400 guesses a second from one network, at an endpoint that does 50: the others are served, and so are refreshes.
func TestWhoGuessesWaitsBehindTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := at(stub(func(form url.Values) (int, http.Header, string) {
			if form.Get("grant_type") == token.Refresh {
				time.Sleep(2 * time.Millisecond)
				return 200, nil, issued
			}
			time.Sleep(80 * time.Millisecond) // with four places
			if form.Get("password") == "right" {
				return 200, nil, issued
			}
			return 400, nil, `{"error":"invalid_grant"}`
		}))
		var all sync.WaitGroup
		var good, refreshed atomic.Int32
		for i := range 400 * 30 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Second / 400)
				e.Exchange(context.Background(), time.Now().Add(15*time.Second), guessing(strconv.Itoa(i), "wrong", "", "10.0.0.0/24"))
			})
		}
		for i := range 200 {
			all.Go(func() {
				time.Sleep(5*time.Second + time.Duration(i)*100*time.Millisecond)
				name := "good" + strconv.Itoa(i)
				if r := e.Exchange(context.Background(), time.Now().Add(15*time.Second), guessing(name, "right", "", "10.0."+strconv.Itoa(i+1)+".0/24")); r.Class == token.Issued {
					good.Add(1)
				}
				if r := e.Exchange(context.Background(), time.Now().Add(15*time.Second), refreshOf(name)); r.Class == token.Issued {
					refreshed.Add(1)
				}
			})
		}
		all.Wait()
		if good.Load() < 190 || refreshed.Load() != 200 {
			t.Errorf("of 200 good ones %d were upgraded and %d refreshed", good.Load(), refreshed.Load())
		}
	})
}

// A call that has used up its own time says nothing of the endpoint.
func TestATimeoutCountsOnlyAfterAFairTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := at(stub(func(form url.Values) (int, http.Header, string) {
			time.Sleep(500 * time.Millisecond)
			return 200, nil, issued
		}), func(c *config) { c.MaxInFlight, c.Fair = 64, 7*time.Second })
		var all sync.WaitGroup
		for i := range 240 {
			all.Go(func() {
				e.Exchange(context.Background(), time.Now().Add(100*time.Millisecond), login("slow"+strconv.Itoa(i), "x"))
			})
		}
		all.Wait()
		for i := range 50 {
			if r := e.Exchange(context.Background(), soon(), login("good"+strconv.Itoa(i), "x")); r.Class != token.Issued {
				t.Fatalf("%+v", r)
			}
		}
	})
}

func halved(c *config) { c.Fuse, c.RememberRejected = 50, 30*time.Second }

// A server that accepted everybody and then refuses everybody: at most 20 homes hear of it, and who is accepted is served.
func TestAServerThatRefusesEverybodyIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		e := at(stub(func(form url.Values) (int, http.Header, string) {
			time.Sleep(100 * time.Millisecond)
			if broken.Load() && !strings.HasPrefix(form.Get("username"), "lucky") {
				return 400, nil, `{"error":"invalid_grant"}`
			}
			return 200, nil, issued
		}), halved, func(c *config) { c.MaxInFlight = 64 })
		for i := range 600 {
			e.Exchange(context.Background(), soon(), login("before"+strconv.Itoa(i), "x"))
			time.Sleep(900 * time.Millisecond)
		}
		broken.Store(true)
		var all sync.WaitGroup
		var rejected, doubted atomic.Int32
		for i := range 500 {
			all.Go(func() {
				switch r := e.Exchange(context.Background(), soon(), login("home"+strconv.Itoa(i), "x")); r.Class {
				case token.Rejected:
					rejected.Add(1)
				case InDoubt:
					doubted.Add(1)
				default:
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		if rejected.Load() > 20 || doubted.Load()+rejected.Load() != 500 {
			t.Errorf("%d rejected, %d doubted", rejected.Load(), doubted.Load())
		}
		for i := range 5 {
			if r := e.Exchange(context.Background(), soon(), login("lucky"+strconv.Itoa(i), "x")); r.Class != token.Issued {
				t.Errorf("who is accepted gets %+v", r)
			}
		}
		if r := e.Exchange(context.Background(), soon(), login("home0", "x")); r.Class != InDoubt {
			t.Errorf("a rejection that is remembered is told while the fuse is blown: %+v", r)
		}
		broken.Store(false)
		time.Sleep(time.Minute)
		for i := range 500 {
			if r := e.Exchange(context.Background(), soon(), login("home"+strconv.Itoa(i), "x")); r.Class != token.Issued {
				t.Fatalf("after it: %+v", r)
			}
		}
	})
}

func TestABlownFuseOfLoginsDoubtsNoRefresh(t *testing.T) {
	e := at(stub(func(form url.Values) (int, http.Header, string) { return 400, nil, `{"error":"invalid_grant"}` }), halved)
	for i := range 30 {
		e.Exchange(context.Background(), soon(), login("made up "+strconv.Itoa(i), "x"))
	}
	if r := e.Exchange(context.Background(), soon(), login("ella", "x")); r.Class != InDoubt {
		t.Errorf("%+v", r)
	}
	if r := e.Exchange(context.Background(), soon(), refreshOf("dead")); r.Class != token.Rejected {
		t.Errorf("%+v", r)
	}
}

func TestAnAccountIsTheSameHoweverItsNameIsSpelled(t *testing.T) {
	account := func(name string) string {
		return Account(&smapi.Call{Credentials: smapi.Credentials{Kind: smapi.Login, Username: name}})
	}
	for name, spellings := range map[string][]string{
		"ella": {"ELLA", "eLLa", " ella", "ella\t", "\u00a0ella\u3000", "ｅｌｌａ", "𝓮𝓵𝓵𝓪", "e\u0301lla", "éllà", "\ufeffella", "el\u200bla", "el\u00adla", "ⒺLLA",
			"el\u3164la", "el\U000e0001la", "el\ufe0fla", "el\u20ddla", "ella\u007f", "el\u009fla", "\u2028ella"},
		"ella smith": {"ella  smith", "Ella\tSmith", "ella\u3000 smith ", "ella\u00a0smith"},
		"søren":      {"soren", "SØREN", "SOREN"},
		"Æsop":       {"aesop", "æsop", "ǽsop"},
		"łukasz":     {"lukasz", "ŁUKASZ"},
		"groß":       {"GROSS", "gross", "GROẞ", "ｇroß"},
		"ἀρχή":       {"ΑΡΧΗ", "αρχη", "ἈΡΧΉ"},
		"kİng":       {"king", "KING", "King", "kıng"},
	} {
		for _, spelling := range spellings {
			if account(spelling) != account(name) {
				t.Errorf("%q is %q, and %q is %q", spelling, account(spelling), name, account(name))
			}
		}
	}
	for _, other := range []string{"ella2", "el la", "ella+2", "ella.", "e", ""} {
		if account(other) == account("ella") {
			t.Errorf("%q is ella", other)
		}
	}
}
