package crowd_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

var (
	chaosTime = flag.Duration("chaos", 4*time.Second, "how long the chaos lasts")
	chaosSeed = flag.Uint64("seed", 0, "seed of the chaos, 0 for a new one")
)

func TestChaosSignsNobodyOut(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -seed %d -chaos %v", seed, *chaosTime)
	random := rand.New(rand.NewPCG(seed, 0)) // of this goroutine alone

	const accounts, callsPerSecond = 1000, 300
	names := slices.Sorted(maps.Keys(caddytest.Faults))
	var failure atomic.Pointer[http.HandlerFunc]
	var slow atomic.Bool
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		if slow.Load() {
			time.Sleep(500 * time.Millisecond)
		}
		switch f := failure.Load(); {
		case f != nil:
			(*f)(w, r)
		case strings.HasPrefix(form.Get("username"), "wrong") || form.Get("password") != "12345":
			caddytest.Says(400, `{"error":"invalid_grant"}`)(w, r)
		default:
			caddytest.IssuesTokens(w, r)
		}
	})
	address, old := loopback.FreeAddress(), caddytest.OldService(t)
	config := func(n int) string {
		return fmt.Sprintf("{\nadmin off\npersist_config off\ngrace_period 20s\nlog {\noutput discard\n}\n}\nhttp://%s {\nbind 127.0.0.1\nheader X-Config %d\n%s\n}",
			address, n, caddytest.Directive(endpoint, old, "timeout 3s", "failed_logins 4 1m"))
	}
	s := caddytest.Run(t, "respond ok")
	s.URL = "http://" + address
	caddytest.Load(t, config(0))
	client := &http.Client{Transport: &http.Transport{DialContext: caddytest.Dialer("127.2.0.1").DialContext, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	goroutines, heap := runtime.NumGoroutine(), heapMiB()
	leave := strangers(t, s, accounts)

	var upgraded [accounts]atomic.Bool
	var done, reset, calls, turns atomic.Int32 // turns is odd during a reload
	call := func(body []byte) (a caddytest.Answer, answered bool) {
		calls.Add(1)
		turn := turns.Load()
		a, err := caddytest.Ask(t, client, s, body)
		if err == nil {
			return a, true
		}
		// Never taken rather than dropped: a reload closes the old listening socket, and what waits there to
		// be accepted, or was accepted just now, is closed with it. It is so for every Caddy.
		if reset.Add(1); turn%2 == 0 && turn == turns.Load() {
			t.Errorf("a call was not answered, and there was no reload: %v", err)
		}
		return a, false
	}
	var players sync.WaitGroup
	var ended atomic.Pointer[time.Time] // the last fault
	play := func(i int) {
		name := chaosAccount(i)
		over := ended.Load()
		recovered := over != nil && time.Since(*over) > recovery
		a, answered := call(caddytest.Account(t, name))
		if !answered {
			return
		}
		became := caddytest.Told(t, a)
		wrong := strings.HasPrefix(name, "wrong")
		if became == "blank" && !wrong || became == "upgraded" && wrong {
			t.Errorf("%s was %s", name, became)
		}
		if recovered && became != "upgraded" && strings.HasPrefix(name, "good") {
			t.Errorf("%s was %s more than %v after the last fault", name, became, recovery)
		}
		if became == "upgraded" && !upgraded[i].Swap(true) {
			done.Add(1)
		}
	}

	metadata := caddytest.File(t, "requests", "forward-get-metadata.xml")
	forward := func() { // while the old service is restarted, too
		a, answered := call(metadata)
		if answered && a.Status != http.StatusTeapot && a.Status != http.StatusBadGateway {
			t.Errorf("a forwarded call is answered with %+v", a)
		}
	}

	begin := time.Now()
	faulty, reload, next := time.NewTicker(time.Second), time.NewTicker(2*time.Second), time.NewTicker(time.Second/callsPerSecond)
	defer faulty.Stop()
	defer reload.Stop()
	defer next.Stop()
	reloads, last := 0, 0
	turn := func() int { // the next account that has not been upgraded, most of the time
		for range accounts {
			last = (last + 1) % accounts
			if !upgraded[last].Load() || random.IntN(20) == 0 {
				break
			}
		}
		return last
	}
	left := func(kind string) (n int) {
		for i := range accounts {
			if strings.HasPrefix(chaosAccount(i), kind) && !upgraded[i].Load() {
				n++
			}
		}
		return n
	}
	var reloading sync.WaitGroup
	for time.Since(begin) < *chaosTime {
		select {
		case <-faulty.C:
			f := caddytest.Faults[names[random.IntN(len(names))]]
			failure.Store(&f)
			if random.IntN(3) == 0 {
				endpoint.CloseClientConnections() // as a restart does
			}
			if random.IntN(3) == 0 {
				old.CloseClientConnections()
			}
			if slow.Store(random.IntN(4) == 0); slow.Load() {
				failure.Store(nil)
			}
		case <-reload.C:
			reloading.Wait()
			reloads++
			reloading.Go(func() {
				turns.Add(1)
				defer turns.Add(1)
				caddytest.Reload(t, config(reloads), address)
			})
		case <-next.C:
			i := turn()
			players.Go(func() { play(i) })
			if i%10 == 0 {
				players.Go(forward)
			}
		}
	}
	failure.Store(nil)
	slow.Store(false)
	now := time.Now()
	ended.Store(&now)
	t.Logf("%d calls and %d reloads; %d of %d accounts upgraded while it lasted, %d connections reset",
		calls.Load(), reloads, done.Load(), accounts, reset.Load())
	if reset.Load() > calls.Load()/10 {
		t.Errorf("%d connections were reset", reset.Load())
	}
	// The strangers stay. Who is guessed at from everywhere waits until that is over.
	places := make(chan struct{}, 100)
	until := func(kind string) {
		t.Helper()
		for left(kind) > 0 {
			if time.Since(now) > 3*time.Minute {
				t.Fatalf("%d of the %s accounts are not upgraded %v after the last fault", left(kind), kind, time.Since(now))
			}
			i := turn()
			places <- struct{}{}
			players.Go(func() { play(i); <-places })
			time.Sleep(time.Millisecond)
		}
		t.Logf("all %s accounts upgraded %v after the last fault", kind, time.Since(now))
	}
	until("good")
	leave()
	if *chaosTime >= time.Minute { // as long as failed_logins
		until("target")
	}
	players.Wait()
	reloading.Wait()
	endpoint.CloseClientConnections() // those that are kept for the next request
	old.CloseClientConnections()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines+50; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
	endpoint.Asked() // what the stand-ins keep of all calls
	old.Asked()
	if after := heapMiB(); after > heap+30 {
		t.Errorf("%.0f MiB of memory, %.0f before", after, heap)
	}
}

// recovery is how long after the last fault nobody is refused any more.
const recovery = 10 * time.Second

// chaosAccount is an account: one whose password is wrong, one who is guessed at from everywhere, or a good one.
func chaosAccount(i int) string {
	switch {
	case i%20 == 0:
		return "wrong" + strconv.Itoa(i)
	case i%100 == 1:
		return "target" + strconv.Itoa(i)
	}
	return "good" + strconv.Itoa(i)
}

// strangers are in the chaos too, until they are told to leave: one guesses and one is slow.
func strangers(t *testing.T, s *caddytest.Site, accounts int) (leave func()) {
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	guess := func(c *http.Client, name, password string) {
		r := s.Request(t, caddytest.Tries(t, name, password, "home"))
		if a, err := caddytest.Fetch(c, r.WithContext(ctx)); err == nil && caddytest.Told(t, a) == "upgraded" {
			t.Errorf("%s is upgraded by a wrong password", name)
		}
	}
	for worker := range 2 {
		var networks []*http.Client // the first is where most of it comes from
		for _, ip := range []string{"127.1.0.1", "127.3.1.1", "127.3.2.1", "127.3.3.1", "127.3.4.1", "127.3.5.1"} {
			networks = append(networks, caddytest.From(t, ip))
		}
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				i := (worker + 2*n) % accounts
				password := fmt.Sprintf("guess-%d-%d", worker, n)
				guess(networks[0], "made-up-"+password, password)
				guess(networks[0], chaosAccount(i), password)
				for _, network := range networks[1:] {
					guess(network, chaosAccount((100*n+1)%accounts), password)
				}
				pause(ctx, 40*time.Millisecond)
			}
			for _, network := range networks {
				network.CloseIdleConnections()
			}
		})
		for range 10 {
			all.Go(func() {
				for ctx.Err() == nil {
					slowly(ctx, s, caddytest.Tries(t, chaosAccount(2), "guess", "home"))
					pause(ctx, 10*time.Millisecond)
				}
			})
		}
	}
	return sync.OnceFunc(func() {
		stop()
		all.Wait()
	})
}

// slowly sends a call whose last byte comes when nobody waits for it any more.
func slowly(ctx context.Context, s *caddytest.Site, body []byte) {
	host := strings.TrimPrefix(s.URL, "http://")
	conn, err := caddytest.Dialer("127.4.0.1").DialContext(ctx, "tcp", host)
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /smapi HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", host, len(body), body[:len(body)-1])
	pause(ctx, 3200*time.Millisecond)
	_, _ = conn.Write(body[len(body)-1:])
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = conn.Read(make([]byte, 1000))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// heapMiB is the memory in use.
func heapMiB() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}
