//go:build unix

package caddymodule_test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

var fleetHomes = flag.Int("homes", 40, "how many homes the fleet of the old service's test has")

// manySessions is an old service with sessions, of any number of accounts.
type manySessions struct {
	*caddytest.Server
	mu       sync.Mutex
	accounts map[string]string // by session
	begun    map[string]int    // by account and instance
	leaked   atomic.Bool
}

var (
	nameIn    = regexp.MustCompile(`<username>(\w+)</username>`)
	sessionIn = regexp.MustCompile(`<sessionId>([\w-]+)</sessionId>`)
)

func serveSessions(t *testing.T) *manySessions {
	o := &manySessions{accounts: map[string]string{}, begun: map[string]int{}}
	o.Server = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		read, _ := io.ReadAll(r.Body)
		body := string(read)
		if strings.Contains(body, "smv1") || r.Header.Get("Authorization") != "" {
			o.leaked.Store(true)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if name := nameIn.FindStringSubmatch(body); name != nil && strings.Contains(body, "<getSessionId") {
			key := name[1] + " at " + r.Header.Get("X-Forwarded-Host")
			o.begun[key]++
			session := fmt.Sprint("session-", len(o.accounts)+1)
			o.accounts[session] = name[1]
			fmt.Fprintf(w, `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><getSessionIdResponse xmlns="http://www.sonos.com/Services/1.1">`+
				`<getSessionIdResult>%s</getSessionIdResult></getSessionIdResponse></e:Body></e:Envelope>`, session)
			return
		}
		session := sessionIn.FindStringSubmatch(body)
		if session == nil || o.accounts[session[1]] == "" {
			caddytest.Says(500, caddytest.Fault("Client.SessionIdInvalid"))(w, r)
			return
		}
		_, _ = io.WriteString(w, "the music of "+o.accounts[session[1]])
	})
	return o
}

// forget ends all sessions. It returns how many were begun by each account at each instance.
func (o *manySessions) forget() (begun map[string]int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	begun, o.begun = o.begun, map[string]int{}
	for session := range o.accounts {
		o.accounts[session] = "" // so that no name is given twice
	}
	return begun
}

// instance is a Caddy in a process of its own, which can be given another configuration.
type instance struct {
	*caddytest.Site
	process    *exec.Cmd
	config     string
	directives string
	round      int
}

func (i *instance) write(t *testing.T, storage string) {
	t.Helper()
	text := fmt.Sprintf("{\nadmin off\npersist_config off\nstorage file_system %s\nlog {\nlevel ERROR\n}\n}\n%s {\nbind 127.0.0.1\nrespond /round %d\n%s\n}",
		storage, i.URL, i.round, i.directives)
	if err := os.WriteFile(i.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload has it load its configuration anew, while it serves.
func (i *instance) reload(t *testing.T, storage string) {
	t.Helper()
	i.round++
	i.write(t, storage)
	if err := i.process.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); i.roundOf() != fmt.Sprint(i.round); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not load its configuration anew")
		}
	}
}

func startInstances(t *testing.T, n int, storage, directives, environment string) (all []*instance) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		address := loopback.FreeAddress()
		i := &instance{Site: &caddytest.Site{URL: "http://" + address}, config: filepath.Join(t.TempDir(), "Caddyfile"), directives: directives}
		i.write(t, storage)
		i.process = exec.Command(self, "run", "--config", i.config, "--adapter", "caddyfile")
		i.process.Env = append(os.Environ(), caddytest.AsCaddy+"=1", environment)
		if err := i.process.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = i.process.Process.Kill()
			_ = i.process.Wait()
		})
		caddytest.Reachable(t, address)
		all = append(all, i)
	}
	return all
}

// What else happens to a service in its life: every call is answered as the old service would have, and it sees no more
// getSessionId than there are accounts at each instance.
func TestAFleetBrowsesOnWhateverHappens(t *testing.T) {
	t.Parallel()
	const workers, life = 16, time.Hour
	homes := *fleetHomes
	environment, step := stepClocks(t)
	endpoint, old, storage := caddytest.Rotate(t, life.Seconds()), serveSessions(t), t.TempDir()
	instances := startInstances(t, 3, storage, withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id"), environment)
	tokens, player := make([][2]string, homes), caddytest.Player(t)
	each := func(n int, do func(i int)) {
		t.Helper()
		var all sync.WaitGroup
		var next atomic.Int64
		for range workers {
			all.Go(func() {
				for i := int(next.Add(1)) - 1; i < n && !t.Failed(); i = int(next.Add(1)) - 1 {
					do(i)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	var calls atomic.Int64
	var reloading atomic.Bool
	begin := time.Now()
	browse := func() {
		t.Helper()
		each(homes*len(instances), func(i int) {
			home, at := i%homes, instances[(i+i/homes)%len(instances)]
			got := alone(t, player, at.Browsing(t, "getLastUpdate", "<loginToken><token>"+tokens[home][0]+"</token><key>"+tokens[home][1]+"</key></loginToken>", ""), &reloading)
			calls.Add(1)
			if want := fmt.Sprint("the music of user", home); got.Status != 200 || got.Body != want {
				t.Errorf("home %d got %+v", home, got)
			}
		})
	}
	begun := func(when string, want int) {
		t.Helper()
		counts := old.forget()
		if len(counts) != want {
			t.Errorf("%s: %d sessions, want %d", when, len(counts), want)
		}
		for who, n := range counts {
			if n != 1 {
				t.Errorf("%s: %s began %d sessions", when, who, n)
			}
		}
	}

	each(homes, func(i int) {
		body := caddytest.Tries(t, fmt.Sprint("user", i), "12345", fmt.Sprint("Sonos_", i))
		a, k := caddytest.TokensOf(alone(t, player, instances[i%len(instances)].Request(t, body), &reloading))
		if tokens[i] = [2]string{a, k}; !strings.HasPrefix(a, "smv1.") {
			t.Errorf("home %d was not upgraded", i)
		}
	})
	browse()
	browse()
	begun("at first", homes*len(instances)) // and forgets them all at once

	reloading.Store(true)
	var reloads sync.WaitGroup
	for _, i := range instances {
		reloads.Go(func() {
			for range 3 {
				i.reload(t, storage)
			}
		})
	}
	browse()
	reloads.Wait()
	browse()
	reloading.Store(false)
	player.CloseIdleConnections()
	begun("after it forgot, and reloads", homes*len(instances))
	browse()

	refreshes := endpoint.Refreshes.Load()
	endpoint.Gone.Store(true)
	for range 4 {
		step(life / 4)
		browse()
	}
	endpoint.Gone.Store(false)
	if endpoint.Refreshes.Load() != refreshes {
		t.Error("the authorization server was there")
	}
	for deadline := time.Now().Add(10 * time.Minute); endpoint.Refreshes.Load() < int64(homes); {
		step(time.Minute) // until who could not be refreshed is tried again
		browse()
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d homes were refreshed", endpoint.Refreshes.Load(), homes)
		}
	}
	browse()
	if n := endpoint.Refreshes.Load(); n != int64(homes) {
		t.Errorf("%d refreshes of %d homes", n, homes)
	}
	begun("after an hour without the authorization server", homes*len(instances))
	if old.leaked.Load() {
		t.Error("the old service was told of a token")
	}
	t.Logf("%d calls in %v", calls.Load(), time.Since(begin))
}

// alone makes a call, over a connection of its own while there are reloads. While Caddy loads a configuration it closes sockets
// whose connections nobody has accepted yet, whatever handlers it has, and a player tries again.
func alone(t *testing.T, player *http.Client, r *http.Request, reloading *atomic.Bool) caddytest.Answer {
	r.Close = reloading.Load()
	got, err := caddytest.Fetch(player, r)
	for tries := 0; err != nil && reloading.Load() && tries < 100; tries++ {
		if r.Body, err = r.GetBody(); err == nil {
			got, err = caddytest.Fetch(player, r)
		}
	}
	if err != nil {
		t.Error(err)
	}
	return got
}

// roundOf is which configuration serves, blank where the connection is lost to a reload.
func (i *instance) roundOf() string {
	r, err := http.NewRequest(http.MethodGet, i.URL+"/round", nil)
	if err != nil {
		return ""
	}
	r.Close = true
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}
