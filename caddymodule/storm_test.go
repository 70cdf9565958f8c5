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
	response, err := c.Do(s.request(t, body))
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

// wave sends the calls of so many accounts at once.
func wave(t testing.TB, s *site, accounts int) (became map[string]int, took []time.Duration) {
	t.Helper()
	c, start := player(t), time.Now()
	var mu sync.Mutex
	became = map[string]int{}
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
			became[told(t, a)]++
			took = append(took, time.Since(start))
		})
	}
	all.Wait()
	return became, took
}

func TestAWaveIsServedAtThePaceOfTheTokenEndpoint(t *testing.T) {
	const accounts, places, each = waveAccounts, 16, waveEach
	endpoint := count(t, takes(each, places))
	s := caddyRun(t, directive(endpoint.server, oldService(t), "max_in_flight 16"))
	start := time.Now()
	became, _ := wave(t, s, accounts)
	took, ideal := time.Since(start), accounts/places*each
	t.Logf("%v in %v, ideally %v", became, took, ideal)
	if became["upgraded"] != accounts || endpoint.posts.Load() != accounts || endpoint.most.Load() > places {
		t.Errorf("%v by %d POSTs, %d of them in flight", became, endpoint.posts.Load(), endpoint.most.Load())
	}
	if took.Seconds() > ideal.Seconds()*waveSlack {
		t.Errorf("it took %v, ideally %v", took, ideal)
	}
}

func TestOfAWaveThatIsTooLargeWhatCanBeServedIs(t *testing.T) {
	const accounts, places, each = waveAccounts, 16, waveEach
	const timeout = accounts / 2 / places * each
	var busy atomic.Int64
	free := make(chan struct{}, places)
	endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
		free <- struct{}{}
		start := time.Now()
		time.Sleep(each)
		issuesTokens(w, r)
		busy.Add(int64(time.Since(start)))
		<-free
	})
	// A few more than the endpoint does at a time, so that it never waits for the way there and back.
	s := caddyRun(t, directive(endpoint.server, oldService(t), "max_in_flight 24", "timeout "+timeout.String()))
	became, took := wave(t, s, accounts)
	early := 0
	for _, d := range took {
		if d < timeout*3/4 {
			early++
		}
	}
	used := float64(busy.Load()) / float64(places*timeout)
	t.Logf("%v by %d POSTs, %.1f%% of the capacity used, %d answers early", became, endpoint.posts.Load(), 100*used, early)
	if became["blank"] != 0 || became["upgraded"]+became["unavailable"] != accounts {
		t.Errorf("became %v", became)
	}
	if used < waveCapacity {
		t.Error("the capacity of the endpoint is not used")
	}
	if wasted := int(endpoint.posts.Load()) - became["upgraded"]; wasted > accounts/50 {
		t.Errorf("%d logins were for nothing", wasted)
	}
	if turned := became["unavailable"]; float64(early) < waveEarly*float64(turned) {
		t.Errorf("%d were turned away, but only %d answers were early", turned, early)
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
	address := freeAddress(t)
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
			s := caddyRun(t, directive(endpoint.server, oldService(t), "timeout 500ms"))
			failing.Store(true)
			for i := range 3 {
				checkAnswer(t, s.post(t, account(t, strconv.Itoa(i))), "service-unavailable.xml")
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
	for i := range 200 {
		checkAnswer(t, s.post(t, account(t, "a"+strconv.Itoa(i))), "service-unavailable.xml")
	}
	if n := endpoint.posts.Load(); n > 30 {
		t.Errorf("%d POSTs to an endpoint that fails", n)
	}
	failing.Store(false)
	ended := time.Now()
	for i := 0; told(t, s.post(t, account(t, "b"+strconv.Itoa(i)))) != "upgraded"; i++ {
		if time.Since(ended) > 5*time.Second {
			t.Fatal("not over")
		}
	}
	t.Logf("over after %v", time.Since(ended))
}

func TestATokenEndpointThatRefusesConnectionsIsTriedAgainByTheNextCall(t *testing.T) {
	address := freeAddress(t)
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
			says(http.StatusTooManyRequests, `{"error":"too_many_requests"}`)(w, r)
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
	if n := endpoint.posts.Load(); n != 1 || time.Since(start) > 5*time.Second {
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
