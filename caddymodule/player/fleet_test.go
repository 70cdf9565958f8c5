package player

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// service answers upgrade calls, and keeps them.
type service struct {
	*httptest.Server
	mu    sync.Mutex
	calls []*smapi.Call
}

func serve(t *testing.T, handler http.HandlerFunc) *service {
	t.Helper()
	s := new(service)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, _, err := smapi.Read(r, []smapi.Method{smapi.GetDeviceAuthToken})
		if call == nil {
			t.Errorf("no upgrade call: %v", err)
			return
		}
		s.mu.Lock()
		s.calls = append(s.calls, call)
		s.mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is seen
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func says(t *testing.T, status int, name string) http.HandlerFunc {
	body := answerFile(t, name)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func fleet(s *service, accounts int) *Fleet {
	return &Fleet{
		Client:   &Client{URL: s.URL, Timeout: Timeout, Transport: NewTransport(4, false)},
		Accounts: Synthetic(smapi.Login, accounts), Households: accounts, Concurrency: 4,
	}
}

func TestEveryAccountMakesOneCall(t *testing.T) {
	s := serve(t, says(t, 200, "upgraded.xml"))
	f := fleet(s, 50)
	f.Households = 7
	sum := f.Run(context.Background())
	if sum.Calls != 50 || sum.Outcomes[Upgraded].Calls != 50 || sum.Households != 7 || sum.Failed() || sum.SignedOut() {
		t.Errorf("%+v", sum)
	}
	seen := map[string]bool{}
	for _, call := range s.calls {
		if seen[call.Credentials.Username] {
			t.Errorf("%s twice", call.Credentials.Username)
		}
		seen[call.Credentials.Username] = true
	}
}

func TestALostAnswerIsAskedForAgainByTheSameCall(t *testing.T) {
	s := serve(t, says(t, 200, "upgraded.xml"))
	f := fleet(s, 20)
	f.Lost = 0.25
	sum := f.Run(context.Background())
	if want := (Again{Lost: 5, Answered: 5, Upgraded: 5}); *sum.Again != want || sum.Calls != 20 {
		t.Errorf("asked again: %+v, %d calls", sum.Again, sum.Calls)
	}
	calls := map[string]int{}
	for _, call := range s.calls {
		calls[fmt.Sprint(call.HouseholdID, call.Credentials)]++
	}
	if len(s.calls) != 25 || len(calls) != 20 {
		t.Errorf("%d calls, %d different ones", len(s.calls), len(calls))
	}
}

func TestALostAnswerEndsItsConnection(t *testing.T) {
	ended := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "<")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	})
	f := fleet(s, 1)
	assignHomes(f.Accounts, 1, 1)
	f.Client.Lose(context.Background(), f.Accounts[0], 0)
	<-ended
}

func TestCallsAreSpacedByTheRate(t *testing.T) {
	f := fleet(serve(t, says(t, 200, "upgraded.xml")), 5)
	f.Rate = 100
	if sum := f.Run(context.Background()); sum.Seconds < 0.04 || sum.Calls != 5 {
		t.Errorf("%d calls in %f s", sum.Calls, sum.Seconds)
	}
}

func TestNoMoreCallsAreUnderWayThanAllowed(t *testing.T) {
	var mu sync.Mutex
	now, most, full := 0, 0, make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		if now++; now > most {
			if most = now; most == 4 {
				close(full)
			}
		}
		mu.Unlock()
		<-full
		says(t, 200, "upgraded.xml")(w, nil)
		mu.Lock()
		now--
		mu.Unlock()
	})
	fleet(s, 30).Run(context.Background())
	if most != 4 {
		t.Errorf("%d calls at once", most)
	}
}

func TestAFleetEndsWhenItIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var once sync.Once
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		once.Do(cancel)
		<-r.Context().Done()
	})
	f := fleet(s, 10)
	f.Concurrency = 1
	sum := f.Run(ctx)
	if !sum.Ended || sum.GivenUp != 1 || sum.Calls != 0 || !sum.Failed() {
		t.Errorf("%+v", sum)
	}
}

func TestWhyThereIsNoAnswer(t *testing.T) {
	upgraded := says(t, 200, "upgraded.xml")
	secure := httptest.NewTLSServer(upgraded)
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = nil
	plain := serve(t, upgraded)
	closes := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.Close()
	})
	cut := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		upgraded(w, nil)
	})
	hangs := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	nobody, err := net.Dial("tcp", plain.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	account := Synthetic(smapi.Login, 1)
	assignHomes(account, 1, 1)
	for url, want := range map[string]string{
		secure.URL:                              "a certificate that is not trusted",
		closes.URL:                              "the connection was closed",
		cut.URL:                                 "the connection was closed",
		hangs.URL:                               "timeout",
		"http://" + nobody.LocalAddr().String(): "connection refused", // nobody can listen where a connection is
		strings.Replace(plain.URL, "http:", "https:", 1): "no TLS",
	} {
		c := &Client{URL: url, Timeout: 20 * time.Second, Transport: NewTransport(1, false)}
		if url == hangs.URL {
			c.Timeout = 50 * time.Millisecond
		}
		got := c.Upgrade(context.Background(), account[0], 0)
		if got != (Answer{Outcome: NoAnswer, Reason: want}) {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	c := &Client{URL: secure.URL, Timeout: Timeout, Transport: NewTransport(1, true)}
	if got := c.Upgrade(context.Background(), account[0], 0); got.Outcome != Upgraded {
		t.Errorf("with any certificate: %+v", got)
	}
}

func TestCredentialsAreNotHandedOn(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	got := fleet(s, 1).Run(context.Background()).Outcomes[NotSMAPI]
	if got.Reasons["status 307 Temporary Redirect"] != 1 {
		t.Errorf("%+v", got)
	}
}

// summed is a summary with every outcome there is.
func summed() *Summary {
	f := &Fleet{Accounts: Synthetic(smapi.Login, 100_000), Households: 25_000, Lost: 0.1}
	assignHomes(f.Accounts[:1], 1, 1)
	add := func(n int, a Answer) {
		for i := range n {
			f.tally.add(a, time.Duration(i%1000)*time.Millisecond, false)
			f.done.Add(1)
		}
	}
	add(999, Answer{Outcome: SignInAgain})
	add(1, Answer{Outcome: NotLinked, Reference: "ABCDEFGH"})
	add(1, Answer{Outcome: SessionExpired, Reference: "IJKLMNOP"})
	add(1, Answer{Outcome: TryAgain, Reference: "QRSTUVWX"})
	add(1, Answer{Outcome: AnotherFault, Reason: "a faultcode that Sonos does not document", Reference: "YZ234567"})
	add(1, Answer{Outcome: NotAccepted, Reason: "an element that the schema does not have in getDeviceAuthTokenResult"})
	for status := 510; status < 520; status++ {
		add(1, Answer{Outcome: NotSMAPI, Reason: fmt.Sprint("status ", status)})
	}
	add(1, Answer{Outcome: NoAnswer, Reason: "timeout"})
	add(90_000, Answer{Outcome: Upgraded})
	f.tally.lost.Store(10_000)
	return f.tally.sum(f, 12345*time.Second)
}

func TestASummaryFits80Columns(t *testing.T) {
	var b bytes.Buffer
	if err := summed().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 || strings.TrimRight(line, " ") != line {
			t.Errorf("%q", line)
		}
	}
	for _, want := range []string{"98.9%", "<0.1%", "and 5 more reasons", "ABCDEFGH, IJKLMNOP, QRSTUVWX\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

func TestASummaryHasEveryOutcomeInJSON(t *testing.T) {
	text, err := json.Marshal(summed())
	if err != nil {
		t.Fatal(err)
	}
	var s Summary
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if s.Outcomes[o.Outcome] == nil {
			t.Errorf("no %s", o.Outcome)
		}
	}
	if s.Outcomes[Upgraded].Calls != 90_000 || s.Again.Lost != 10_000 || !s.Ended {
		t.Errorf("%s", text)
	}
}

func TestWhatIsLittleIsNotRoundedToNothing(t *testing.T) {
	for share, want := range map[float64]string{0: "0.0%", 1e-9: "<0.1%", 0.001: "0.1%", 0.5: "50.0%", 0.9999: ">99.9%", 1: "100.0%"} {
		if got := percent(share); got != want {
			t.Errorf("%v is %s, want %s", share, got, want)
		}
	}
	for s, want := range map[float64]string{0.0000005: "0.5 µs", 0.0123: "12 ms", 0.0012: "1.2 ms", 9.99: "10.0 s", 61: "61 s"} {
		if got := seconds(s); got != want {
			t.Errorf("%v is %s, want %s", s, got, want)
		}
	}
}

func TestPercentilesAreByNearestRank(t *testing.T) {
	var took []time.Duration
	for i := 100; i > 0; i-- {
		took = append(took, time.Duration(i)*time.Second)
	}
	if got := *percentiles(took); got != (Latency{50, 90, 99, 100}) {
		t.Errorf("%+v", got)
	}
	if got := *percentiles(took[:1]); got != (Latency{1, 1, 1, 1}) {
		t.Errorf("%+v", got)
	}
	if percentiles(nil) != nil {
		t.Error("percentiles of nothing")
	}
}
