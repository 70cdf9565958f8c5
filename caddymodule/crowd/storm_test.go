package crowd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// together answers so many when all of them are there, and fewer never.
func together(places int) http.HandlerFunc {
	var mu sync.Mutex
	here, all := 0, make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		complete := all
		if here++; here == places {
			close(all)
			here, all = 0, make(chan struct{})
		}
		mu.Unlock()
		select {
		case <-complete:
			caddytest.IssuesTokens(w, r)
		case <-r.Context().Done():
		}
	}
}

func TestAWaveIsServedAtThePaceOfTheTokenEndpoint(t *testing.T) {
	const accounts, places = 320, 16
	endpoint := caddytest.Count(t, together(places))
	s := caddytest.Run(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t), "max_in_flight 16"))
	upgraded := 0
	for _, became := range caddytest.Wave(t, s, accounts) {
		if became == "upgraded" {
			upgraded++
		}
	}
	if upgraded != accounts || endpoint.Posts.Load() != accounts || endpoint.Most.Load() != places {
		t.Errorf("%d upgraded by %d POSTs, %d of them in flight", upgraded, endpoint.Posts.Load(), endpoint.Most.Load())
	}
}

// The endpoint is so slow that every machine is faster: it could serve half of the wave in time.
func TestOfAWaveThatIsTooLargeWhatCanBeServedIs(t *testing.T) {
	t.Parallel()
	const accounts, places, each = 800, 16, 200 * time.Millisecond
	const timeout = accounts / 2 / places * each
	endpoint := caddytest.Count(t, caddytest.Takes(each, places))
	s := caddytest.Apart(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t), "max_in_flight 16", "timeout "+timeout.String()))
	orders := map[string][]int{}
	for i, became := range caddytest.Wave(t, s, accounts) {
		orders[became] = append(orders[became], i)
	}
	served, turned := orders["upgraded"], orders["unavailable"]
	t.Logf("%d served by %d POSTs, %d turned away", len(served), endpoint.Posts.Load(), len(turned))
	if len(served)+len(turned) != accounts {
		t.Errorf("became %v", orders)
	}
	if len(served) < accounts/10 || len(turned) < accounts/10 { // of which a busy machine brings some late
		t.Fatalf("%d were served and %d turned away", len(served), len(turned))
	}
	if wasted := int(endpoint.Posts.Load()) - len(served); wasted > accounts/20 {
		t.Errorf("%d logins were for nothing", wasted)
	}
	if turned[len(turned)/2] > served[len(served)*3/4] {
		t.Error("who was turned away was told late")
	}
}

func TestRepeatsAreOneLogin(t *testing.T) {
	proceed := make(chan struct{})
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		<-proceed
		caddytest.IssuesTokens(w, r)
	})
	s := caddytest.Run(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t)))
	c := caddytest.Player(t)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if a, err := caddytest.Ask(t, c, s, caddytest.Account(t, "ella")); err != nil || caddytest.Told(t, a) != "upgraded" {
				t.Error(a, err)
			}
		})
		if i == 0 {
			for endpoint.Posts.Load() == 0 {
				time.Sleep(time.Millisecond) // until the first is on its way
			}
		}
	}
	close(proceed)
	all.Wait()
	if n := endpoint.Posts.Load(); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

func TestALostAnswerIsGivenAgain(t *testing.T) {
	arrived, proceed := make(chan struct{}), make(chan struct{})
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-proceed
		caddytest.IssuesTokens(w, r)
	})
	s := caddytest.Run(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t)))
	ctx, cut := context.WithCancel(context.Background())
	lost := make(chan error)
	go func() {
		_, err := http.DefaultTransport.RoundTrip(s.Request(t, caddytest.Account(t, "ella")).WithContext(ctx))
		lost <- err
	}()
	<-arrived
	cut()
	if err := <-lost; err == nil {
		t.Fatal("the answer was not lost")
	}
	close(proceed)
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "ella")), "upgraded.xml")
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "ella")), "upgraded.xml")
	if n := endpoint.Posts.Load(); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

func TestAWrongPasswordAgainAndAgainIsOneFailedLogin(t *testing.T) {
	oauth := caddytest.OAuthServer(t, map[string]string{"testuser": "right"})
	s := caddytest.Run(t, caddytest.Directive(oauth, caddytest.OldService(t)))
	for range 20 {
		caddytest.CheckAnswer(t, s.Upgrade(t), "reauthorize.xml")
	}
	if n := len(oauth.Asked()); n != 1 {
		t.Errorf("%d POSTs", n)
	}
	right := bytes.Replace(caddytest.File(t, "requests", "upgrade.xml"), []byte("12345"), []byte("right"), 1)
	if authToken, _ := caddytest.Pair(t, s.Post(t, right).Body); authToken == "" {
		t.Error("the right password is refused after the wrong one")
	}
}

// What is known of a token endpoint outlives the configuration.
func TestAReloadForgetsNothing(t *testing.T) {
	hang := make(chan struct{})
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); bytes.Contains(body, []byte("hanging")) {
			<-hang
		}
		caddytest.IssuesTokens(w, r)
	})
	address := loopback.FreeAddress()
	config := func(n int) string {
		return fmt.Sprintf(`{
	admin off
	persist_config off
	grace_period 30s
}
http://%s {
	bind 127.0.0.1
	header X-Config %d
	%s
}`, address, n, caddytest.Directive(endpoint.Server, caddytest.OldService(t), "max_in_flight 1"))
	}
	s := caddytest.Run(t, "respond ok")
	s.URL = "http://" + address
	caddytest.Load(t, config(0))
	c := caddytest.Player(t)
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "ella")), "upgraded.xml")

	type result struct {
		a   caddytest.Answer
		err error
	}
	first := make(chan result, 1)
	go func() { a, err := caddytest.Ask(t, c, s, caddytest.Account(t, "hanging")); first <- result{a, err} }()
	for endpoint.Posts.Load() < 2 {
		time.Sleep(time.Millisecond) // until it is on its way
	}
	loaded := make(chan struct{})
	go func() { caddytest.Load(t, config(1)); close(loaded) }()
	for { // until the new configuration answers
		if response, err := http.Get(s.URL); err == nil {
			response.Body.Close()
			if response.Header.Get("X-Config") == "1" {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "ella")), "upgraded.xml") // remembered
	second := make(chan result, 1)
	go func() { a, err := caddytest.Ask(t, c, s, caddytest.Account(t, "second")); second <- result{a, err} }()
	select {
	case r := <-second:
		t.Errorf("the one place was given away twice: %+v", r)
	case <-time.After(100 * time.Millisecond): // long enough to be wrong
	}
	close(hang)
	for _, r := range []result{<-first, <-second} {
		if r.err != nil || caddytest.Told(t, r.a) != "upgraded" {
			t.Errorf("%+v", r)
		}
	}
	<-loaded
	if n, most := endpoint.Posts.Load(), endpoint.Most.Load(); n != 3 || most != 1 {
		t.Errorf("%d POSTs, %d of them at once", n, most)
	}
}

func TestEveryKindOfOutagePasses(t *testing.T) {
	t.Parallel()
	type outage struct {
		endpoint *caddytest.Counting
		failing  atomic.Bool
		site     *caddytest.Site
	}
	outages := map[string]*outage{}
	text := "respond ok\n}\n"
	for _, name := range []string{"500", "garbage", "hang", "reset", "cut"} {
		o, fail, address := new(outage), caddytest.Faults[name], loopback.FreeAddress()
		o.endpoint = caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
			if o.failing.Load() {
				fail(w, r)
				return
			}
			caddytest.IssuesTokens(w, r)
		})
		o.site = &caddytest.Site{URL: "http://" + address}
		text += fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}\n", address, caddytest.Directive(o.endpoint.Server, caddytest.OldService(t), "timeout 3s"))
		outages[name] = o
	}
	caddytest.Apart(t, strings.TrimSuffix(text, "}\n"))
	for name, o := range outages {
		t.Run(name, func(t *testing.T) {
			o.failing.Store(true)
			for _, became := range caddytest.Wave(t, o.site, 3) {
				if became != "unavailable" {
					t.Errorf("became %s", became)
				}
			}
			if n := o.endpoint.Posts.Load(); n != 3 {
				t.Errorf("%d POSTs for 3 calls", n)
			}
			o.failing.Store(false)
			for i := range 3 { // at once, because so few are no outage of all
				caddytest.CheckAnswer(t, o.site.Post(t, caddytest.Account(t, strconv.Itoa(i))), "upgraded.xml")
			}
		})
	}
}

func TestAnOutageOfAllIsOverSoonAfterItEnds(t *testing.T) {
	t.Parallel()
	var failing atomic.Bool
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		if failing.Load() {
			caddytest.Says(503, "")(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	})
	s := caddytest.Apart(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t)))
	failing.Store(true)
	began := time.Now()
	for i := range 200 {
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "a"+strconv.Itoa(i))), "service-unavailable.xml")
	}
	if n, most := int(endpoint.Posts.Load()), 30+3*int(time.Since(began)/(2*time.Second)); n > most { // it is tried from time to time
		t.Errorf("%d POSTs to an endpoint that fails, at most %d", n, most)
	}
	failing.Store(false)
	ended := time.Now()
	for i := 0; caddytest.Told(t, s.Post(t, caddytest.Account(t, "b"+strconv.Itoa(i)))) != "upgraded"; i++ {
		if time.Since(ended) > time.Minute {
			t.Fatal("not over")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestATokenEndpointThatRefusesConnectionsIsTriedAgainByTheNextCall(t *testing.T) {
	address := loopback.FreeAddress()
	s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade http://%s/token {\nclient_id id\nclient_auth none\n}", address))
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "ella")), "service-unavailable.xml")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var posts atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posts.Add(1)
		caddytest.IssuesTokens(w, r)
	})}
	defer server.Close()
	go func() { _ = server.Serve(listener) }()
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "ella")), "upgraded.xml")
	if posts.Load() != 1 {
		t.Errorf("%d POSTs", posts.Load())
	}
}

func TestRetryAfterHoldsEveryoneBack(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.CompareAndSwap(0, time.Now().UnixNano()) {
			w.Header().Set("Retry-After", "1")
			caddytest.Says(http.StatusServiceUnavailable, `{"error":"temporarily_unavailable"}`)(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	})
	s := caddytest.Apart(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t)))
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "first")), "service-unavailable.xml")
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "second")), "upgraded.xml")
	if waited := time.Since(time.Unix(0, asked.Load())); waited < 900*time.Millisecond {
		t.Errorf("asked again after %v", waited)
	}
	if n := endpoint.Posts.Load(); n != 2 {
		t.Errorf("%d POSTs", n)
	}
}

func TestWhoHasLessTimeThanRetryAfterIsToldAtOnce(t *testing.T) {
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "100")
		caddytest.Says(http.StatusServiceUnavailable, "")(w, r)
	})
	s := caddytest.Run(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t)))
	start := time.Now()
	for i := range 10 {
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, strconv.Itoa(i))), "service-unavailable.xml")
	}
	if n := endpoint.Posts.Load(); n != 1 || time.Since(start) > 15*time.Second { // for which a single one would have waited
		t.Errorf("%d POSTs in %v", n, time.Since(start))
	}
}

func TestOneAccountsErrorHurtsNobodyElse(t *testing.T) {
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); bytes.Contains(body, []byte("locked")) {
			caddytest.Says(http.StatusInternalServerError, `{"error":"server_error"}`)(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	})
	s := caddytest.Run(t, caddytest.Directive(endpoint.Server, caddytest.OldService(t)))
	for i := range 100 {
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "locked")), "service-unavailable.xml")
		if i%10 == 0 {
			caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "good"+strconv.Itoa(i))), "upgraded.xml")
		}
	}
}
