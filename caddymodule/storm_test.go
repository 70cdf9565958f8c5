package caddymodule_test

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

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// counting is a token endpoint that tells how it was used.
type counting struct {
	*server
	posts, inFlight, most atomic.Int32
}

func count(t testing.TB, handler http.HandlerFunc) *counting {
	c := new(counting)
	c.server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		c.posts.Add(1)
		now := c.inFlight.Add(1)
		defer c.inFlight.Add(-1)
		for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
		}
		handler(w, r)
	})
	return c
}

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
			issuesTokens(w, r)
		case <-r.Context().Done():
		}
	}
}

// takes answers after a while, so many at a time.
func takes(each time.Duration, places int) http.HandlerFunc {
	free := make(chan struct{}, places)
	return func(w http.ResponseWriter, r *http.Request) {
		free <- struct{}{}
		time.Sleep(each) // what hashing a password takes
		<-free
		issuesTokens(w, r)
	}
}

// account is the upgrade call of one account.
func account(t testing.TB, name string) []byte {
	return bytes.Replace(file(t, "requests", "upgrade.xml"), []byte("testuser"), []byte(name), 1)
}

// player has connections of its own, as players have.
func player(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 10000, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func ask(t testing.TB, c *http.Client, s *site, body []byte) (answer, error) {
	return fetch(c, s.request(t, body))
}

func fetch(c *http.Client, r *http.Request) (answer, error) {
	response, err := c.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// told is what became of a call, as its player sees it.
func told(t testing.TB, a answer) string {
	switch {
	case strings.Contains(a.body, "Server.ServiceUnavailable"):
		return "unavailable"
	case a.status == http.StatusOK && strings.Contains(a.body, "<authToken>new-token<"):
		return "upgraded"
	case a.status == http.StatusOK && strings.Contains(a.body, "<authToken></authToken>"):
		return "blank"
	}
	t.Errorf("the answer is %+v", a)
	return "?"
}

// wave sends the calls of so many accounts at once, and returns what became of them in the order of the answers.
func wave(t testing.TB, s *site, accounts int) (became []string) {
	t.Helper()
	c := player(t)
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range accounts {
		all.Go(func() {
			a, err := ask(t, c, s, account(t, "player"+strconv.Itoa(i)))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			became = append(became, told(t, a))
		})
	}
	all.Wait()
	return became
}

func TestAWaveIsServedAtThePaceOfTheTokenEndpoint(t *testing.T) {
	const accounts, places = 960, 16
	endpoint := count(t, together(places))
	s := caddyRun(t, directive(endpoint.server, oldService(t), "max_in_flight 16"))
	upgraded := 0
	for _, became := range wave(t, s, accounts) {
		if became == "upgraded" {
			upgraded++
		}
	}
	if upgraded != accounts || endpoint.posts.Load() != accounts || endpoint.most.Load() != places {
		t.Errorf("%d upgraded by %d POSTs, %d of them in flight", upgraded, endpoint.posts.Load(), endpoint.most.Load())
	}
}

// The endpoint is so slow that every machine is faster: it could serve half of the wave in time.
func TestOfAWaveThatIsTooLargeWhatCanBeServedIs(t *testing.T) {
	const accounts, places, each = 800, 16, 200 * time.Millisecond
	const timeout = accounts / 2 / places * each
	endpoint := count(t, takes(each, places))
	s := caddyRun(t, directive(endpoint.server, oldService(t), "max_in_flight 16", "timeout "+timeout.String()))
	orders := map[string][]int{}
	for i, became := range wave(t, s, accounts) {
		orders[became] = append(orders[became], i)
	}
	served, turned := orders["upgraded"], orders["unavailable"]
	t.Logf("%d served by %d POSTs, %d turned away", len(served), endpoint.posts.Load(), len(turned))
	if len(served)+len(turned) != accounts {
		t.Errorf("became %v", orders)
	}
	if len(served) < accounts/10 || len(turned) < accounts/10 { // of which a busy machine brings some late
		t.Fatalf("%d were served and %d turned away", len(served), len(turned))
	}
	if wasted := int(endpoint.posts.Load()) - len(served); wasted > accounts/20 {
		t.Errorf("%d logins were for nothing", wasted)
	}
	if turned[len(turned)/2] > served[len(served)/2] {
		t.Error("who was turned away was told late")
	}
}

func TestRepeatsAreOneLogin(t *testing.T) {
	proceed := make(chan struct{})
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		<-proceed
		issuesTokens(w, r)
	})
	s := caddyRun(t, directive(endpoint.server, oldService(t)))
	c := player(t)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if a, err := ask(t, c, s, account(t, "ella")); err != nil || told(t, a) != "upgraded" {
				t.Error(a, err)
			}
		})
		if i == 0 {
			for endpoint.posts.Load() == 0 {
				time.Sleep(time.Millisecond) // until the first is on its way
			}
		}
	}
	close(proceed)
	all.Wait()
	if n := endpoint.posts.Load(); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

func TestALostAnswerIsGivenAgain(t *testing.T) {
	arrived, proceed := make(chan struct{}), make(chan struct{})
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-proceed
		issuesTokens(w, r)
	})
	s := caddyRun(t, directive(endpoint.server, oldService(t)))
	ctx, cut := context.WithCancel(context.Background())
	lost := make(chan error)
	go func() {
		_, err := http.DefaultTransport.RoundTrip(s.request(t, account(t, "ella")).WithContext(ctx))
		lost <- err
	}()
	<-arrived
	cut()
	if err := <-lost; err == nil {
		t.Fatal("the answer was not lost")
	}
	close(proceed)
	checkAnswer(t, s.post(t, account(t, "ella")), "upgraded.xml")
	checkAnswer(t, s.post(t, account(t, "ella")), "upgraded.xml")
	if n := endpoint.posts.Load(); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

func TestAWrongPasswordAgainAndAgainIsOneFailedLogin(t *testing.T) {
	oauth := oauthServer(t, map[string]string{"testuser": "right"})
	s := caddyRun(t, directive(oauth, oldService(t)))
	for range 20 {
		checkAnswer(t, s.upgrade(t), "reauthorize.xml")
	}
	if n := len(oauth.asked()); n != 1 {
		t.Errorf("%d POSTs", n)
	}
	right := bytes.Replace(file(t, "requests", "upgrade.xml"), []byte("12345"), []byte("right"), 1)
	if authToken, _ := pair(t, s.post(t, right).body); authToken == "" {
		t.Error("the right password is refused after the wrong one")
	}
}

// What is known of a token endpoint outlives the configuration.
func TestAReloadForgetsNothing(t *testing.T) {
	hang := make(chan struct{})
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); bytes.Contains(body, []byte("hanging")) {
			<-hang
		}
		issuesTokens(w, r)
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
}`, address, n, directive(endpoint.server, oldService(t), "max_in_flight 1"))
	}
	s := caddyRun(t, "respond ok")
	s.url = "http://" + address
	load(t, config(0))
	c := player(t)
	checkAnswer(t, s.post(t, account(t, "ella")), "upgraded.xml")

	type result struct {
		a   answer
		err error
	}
	first := make(chan result, 1)
	go func() { a, err := ask(t, c, s, account(t, "hanging")); first <- result{a, err} }()
	for endpoint.posts.Load() < 2 {
		time.Sleep(time.Millisecond) // until it is on its way
	}
	loaded := make(chan struct{})
	go func() { load(t, config(1)); close(loaded) }()
	for { // until the new configuration answers
		if response, err := http.Get(s.url); err == nil {
			response.Body.Close()
			if response.Header.Get("X-Config") == "1" {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
	checkAnswer(t, s.post(t, account(t, "ella")), "upgraded.xml") // remembered
	second := make(chan result, 1)
	go func() { a, err := ask(t, c, s, account(t, "second")); second <- result{a, err} }()
	select {
	case r := <-second:
		t.Errorf("the one place was given away twice: %+v", r)
	case <-time.After(100 * time.Millisecond): // long enough to be wrong
	}
	close(hang)
	for _, r := range []result{<-first, <-second} {
		if r.err != nil || told(t, r.a) != "upgraded" {
			t.Errorf("%+v", r)
		}
	}
	<-loaded
	if n, most := endpoint.posts.Load(), endpoint.most.Load(); n != 3 || most != 1 {
		t.Errorf("%d POSTs, %d of them at once", n, most)
	}
}

func TestEveryKindOfOutagePasses(t *testing.T) {
	for _, name := range []string{"500", "garbage", "hang", "reset", "cut"} {
		fail := faults[name]
		t.Run(name, func(t *testing.T) {
			var failing atomic.Bool
			endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
				if failing.Load() {
					fail(w, r)
					return
				}
				issuesTokens(w, r)
			})
			s := caddyRun(t, directive(endpoint.server, oldService(t), "timeout 3s"))
			failing.Store(true)
			for _, became := range wave(t, s, 3) {
				if became != "unavailable" {
					t.Errorf("became %s", became)
				}
			}
			if n := endpoint.posts.Load(); n != 3 {
				t.Errorf("%d POSTs for 3 calls", n)
			}
			failing.Store(false)
			for i := range 3 { // at once, because so few are no outage of all
				checkAnswer(t, s.post(t, account(t, strconv.Itoa(i))), "upgraded.xml")
			}
		})
	}
}

func TestAnOutageOfAllIsOverSoonAfterItEnds(t *testing.T) {
	var failing atomic.Bool
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		if failing.Load() {
			says(503, "")(w, r)
			return
		}
		issuesTokens(w, r)
	})
	s := caddyRun(t, directive(endpoint.server, oldService(t)))
	failing.Store(true)
	began := time.Now()
	for i := range 200 {
		checkAnswer(t, s.post(t, account(t, "a"+strconv.Itoa(i))), "service-unavailable.xml")
	}
	if n, most := int(endpoint.posts.Load()), 30+3*int(time.Since(began)/(2*time.Second)); n > most { // it is tried from time to time
		t.Errorf("%d POSTs to an endpoint that fails, at most %d", n, most)
	}
	failing.Store(false)
	ended := time.Now()
	for i := 0; told(t, s.post(t, account(t, "b"+strconv.Itoa(i)))) != "upgraded"; i++ {
		if time.Since(ended) > time.Minute {
			t.Fatal("not over")
		}
	}
}

func TestATokenEndpointThatRefusesConnectionsIsTriedAgainByTheNextCall(t *testing.T) {
	address := loopback.FreeAddress()
	s := caddyRun(t, fmt.Sprintf("smapi_upgrade http://%s/token {\nclient_id id\nclient_auth none\n}", address))
	checkAnswer(t, s.post(t, account(t, "ella")), "service-unavailable.xml")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var posts atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posts.Add(1)
		issuesTokens(w, r)
	})}
	defer server.Close()
	go func() { _ = server.Serve(listener) }()
	checkAnswer(t, s.post(t, account(t, "ella")), "upgraded.xml")
	if posts.Load() != 1 {
		t.Errorf("%d POSTs", posts.Load())
	}
}

func TestRetryAfterHoldsEveryoneBack(t *testing.T) {
	var asked atomic.Int64
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.CompareAndSwap(0, time.Now().UnixNano()) {
			w.Header().Set("Retry-After", "1")
			says(http.StatusServiceUnavailable, `{"error":"temporarily_unavailable"}`)(w, r)
			return
		}
		issuesTokens(w, r)
	})
	s := caddyRun(t, directive(endpoint.server, oldService(t)))
	checkAnswer(t, s.post(t, account(t, "first")), "service-unavailable.xml")
	checkAnswer(t, s.post(t, account(t, "second")), "upgraded.xml")
	if waited := time.Since(time.Unix(0, asked.Load())); waited < 900*time.Millisecond {
		t.Errorf("asked again after %v", waited)
	}
	if n := endpoint.posts.Load(); n != 2 {
		t.Errorf("%d POSTs", n)
	}
}

func TestWhoHasLessTimeThanRetryAfterIsToldAtOnce(t *testing.T) {
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "100")
		says(http.StatusServiceUnavailable, "")(w, r)
	})
	s := caddyRun(t, directive(endpoint.server, oldService(t)))
	start := time.Now()
	for i := range 10 {
		checkAnswer(t, s.post(t, account(t, strconv.Itoa(i))), "service-unavailable.xml")
	}
	if n := endpoint.posts.Load(); n != 1 || time.Since(start) > 15*time.Second { // for which a single one would have waited
		t.Errorf("%d POSTs in %v", n, time.Since(start))
	}
}

func TestOneAccountsErrorHurtsNobodyElse(t *testing.T) {
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); bytes.Contains(body, []byte("locked")) {
			says(http.StatusInternalServerError, `{"error":"server_error"}`)(w, r)
			return
		}
		issuesTokens(w, r)
	})
	s := caddyRun(t, directive(endpoint.server, oldService(t)))
	for i := range 100 {
		checkAnswer(t, s.post(t, account(t, "locked")), "service-unavailable.xml")
		if i%10 == 0 {
			checkAnswer(t, s.post(t, account(t, "good"+strconv.Itoa(i))), "upgraded.xml")
		}
	}
}
