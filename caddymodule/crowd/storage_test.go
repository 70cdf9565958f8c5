package crowd_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

func TestInstancesOnOneStorageAreOne(t *testing.T) {
	t.Parallel()
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	c := caddytest.StartCluster(t, 3, caddytest.WithVault(endpoint, old, keys, "failed_logins 4 30m"))

	// Upgrade here, refresh there.
	authToken, handle := caddytest.TokensOf(c.Sites[0].Upgrade(t))
	release := endpoint.Hold()
	var wait sync.WaitGroup
	for i := range 24 {
		wait.Go(func() {
			got := c.Sites[i%3].Refresh(t, authToken, handle)
			if newToken, key := caddytest.TokensOf(got); got.Status != 200 || newToken == authToken || key != handle {
				t.Errorf("got %+v", got)
			}
		})
	}
	for endpoint.Refreshes.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for others to ask, if they would
	release()
	wait.Wait()
	if n := endpoint.Refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	if _, again := caddytest.TokensOf(c.Sites[2].Upgrade(t)); again != handle {
		t.Error("an upgrade elsewhere has another handle")
	}

	// Guesses that are spread over all stay within failed_logins, and a remembered one costs none.
	before := endpoint.Logins.Load()
	request := string(caddytest.File(t, "requests", "upgrade.xml"))
	for i := range 9 {
		for range 2 {
			c.Sites[i%3].Post(t, []byte(strings.ReplaceAll(request, "12345", fmt.Sprint("guess", i/2))))
		}
	}
	if n := endpoint.Logins.Load() - before; n > 4 {
		t.Errorf("%d logins for guesses", n)
	}

	// One is killed while it refreshes, and has the lock.
	held, _ := caddytest.TokensOf(c.Sites[0].Refresh(t, "another", handle))
	release = endpoint.Hold()
	defer release() // the killed one's request stays where it is until the end
	asked := endpoint.Refreshes.Load()
	lost := caddytest.RefreshOf(t, c.Sites[0], held, handle)
	go func() { // whose answer never comes
		if response, err := http.DefaultTransport.RoundTrip(lost); err == nil {
			response.Body.Close()
		}
	}()
	for endpoint.Refreshes.Load() == asked {
		time.Sleep(time.Millisecond)
	}
	_ = c.Nodes[0].Process.Kill()
	_ = c.Nodes[0].Wait()
	age(t, filepath.Join(c.Storage, "locks"))
	endpoint.Pass()
	begun := time.Now()
	got := c.Sites[1].Refresh(t, held, handle)
	if newToken, _ := caddytest.TokensOf(got); got.Status != 200 || newToken == held {
		t.Errorf("after %v got %+v", time.Since(begun), got)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Logf("the other had its answer after %v", took)
	}
}

// age has the locks of a storage look as they do when nobody has kept them fresh for a while.
func age(t *testing.T, dir string) {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(dir, "*.lock"))
	if err != nil || len(locks) == 0 {
		t.Fatal("nobody has a lock", err)
	}
	for _, path := range locks {
		caddytest.Write(t, path, `{"created":"2001-02-03T04:05:06Z"}`)
	}
}

// Two controllers of a home are upgraded, each at an instance of its own, and the second login ends the session of the
// first one.
func TestAServerWithOneSessionForAnAccountSignsOutNoController(t *testing.T) {
	t.Parallel()
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	endpoint.OneSession = true
	c := caddytest.StartCluster(t, 2, caddytest.WithVault(endpoint, old, keys))
	var held [2]string
	var handles [2]string
	for i, s := range c.Sites {
		held[i], handles[i] = caddytest.TokensOf(s.Upgrade(t))
	}
	if handles[0] != handles[1] || held[0] == held[1] {
		t.Fatalf("upgraded to %v, %v", held, handles)
	}
	newest, _ := caddytest.TokensOf(c.Sites[0].Refresh(t, held[0], handles[0]))
	if newest != held[1] || endpoint.Refreshes.Load() != 0 {
		t.Errorf("the first controller gets %q, and the second has %q", newest, held[1])
	}
	held[0] = newest
	for life := range 3 { // each ends when the first controller finds that its token does no more
		for i, s := range c.Sites {
			got := s.Refresh(t, held[i], handles[0])
			authToken, key := caddytest.TokensOf(got)
			if got.Status != http.StatusOK || authToken == held[i] || key != handles[0] {
				t.Fatalf("life %d, controller %d: %+v", life, i, got)
			}
			held[i] = authToken
		}
		if n := endpoint.Refreshes.Load(); n != int64(life+1) || held[0] != held[1] {
			t.Errorf("life %d: %d refreshes, tokens %v", life, n, held)
		}
	}
}

// With a vault an instance knows what others have just been refused. Each of these homes comes to one of them first, and
// then to the other: each has clients, and so fuses, of their own.
func TestARefusalAtAnotherInstanceIsWeighedToo(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.Says(400, `{"error":"invalid_grant"}`)), caddytest.OldService(t)
	first, second := loopback.FreeAddress(), loopback.FreeAddress()
	keys := caddytest.VaultFile(t)
	site := func(address, id string) string {
		return fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}\n", address,
			strings.Replace(caddytest.Directive(endpoint, old, "refresh_auth_tokens", "vault "+keys), "the-id", id, 1))
	}
	s := caddytest.Run(t, strings.TrimSuffix("respond ok\n}\n"+site(first, "first")+site(second, "second"), "}\n"))
	const accounts = 60
	doubted := 0
	for _, address := range []string{first, second} {
		s.URL = "http://" + address
		became := map[string]int{}
		for i := range accounts {
			became[caddytest.Told(t, s.Post(t, caddytest.Tries(t, fmt.Sprint("account", i), "right", "home")))]++
		}
		if became["blank"] > 19 || became["blank"]+became["unavailable"] != accounts {
			t.Errorf("%v", became)
		}
		if address == first {
			doubted = became["unavailable"]
		}
	}
	if n := len(endpoint.Asked()); n != accounts+doubted {
		t.Errorf("%d were asked for, and %d are in doubt at the first", n, doubted)
	}
}

// Who is in doubt at one instance is not refused at another for it: that one asks again.
func TestADoubtIsNoRefusalAtAnotherInstance(t *testing.T) {
	var broken atomic.Bool
	endpoint, old := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			caddytest.Says(400, `{"error":"invalid_grant"}`)(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	}), caddytest.OldService(t)
	c := caddytest.StartCluster(t, 2, caddytest.Directive(endpoint, old, "refresh_auth_tokens", "vault "+caddytest.VaultFile(t)))
	broken.Store(true)
	const accounts = 30
	told := func(site, i int) string {
		return caddytest.Told(t, c.Sites[site].Post(t, caddytest.Tries(t, fmt.Sprint("account", i), "right", "home")))
	}
	for i := range accounts {
		told(0, i)
	}
	broken.Store(false)
	if was := told(0, accounts-1); was != "unavailable" {
		t.Errorf("a doubt is remembered as %s", was)
	}
	if is := told(1, accounts-1); is != "upgraded" {
		t.Errorf("the other instance says %s", is)
	}
}

// Instances see of each other what has failed, and not what is under way.
func TestGuessesAtOnceAreBoundedAtEachInstanceAndThenAtAll(t *testing.T) {
	t.Parallel()
	var failed, arrived atomic.Int32
	judge, going := caddytest.Passwords(&failed), make(chan struct{})
	proceed := sync.OnceFunc(func() { close(going) })
	defer proceed()
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		<-going
		judge(w, r)
	})
	c := caddytest.StartCluster(t, 2, caddytest.Directive(endpoint, caddytest.OldService(t), "refresh_auth_tokens", "vault "+caddytest.VaultFile(t), "failed_logins 4 30m"))
	var answered atomic.Int32
	var all sync.WaitGroup
	guesses := func(n int, name string) {
		for i := range n {
			all.Go(func() {
				if _, err := caddytest.Ask(t, http.DefaultClient, c.Sites[i%2], caddytest.Tries(t, "ella", fmt.Sprint(name, i), "home")); err != nil {
					t.Error(err)
				}
				answered.Add(1)
			})
		}
	}
	guesses(40, "at once ")
	// Of the 4 one is kept for other networks.
	caddytest.Eventually(t, "each instance lets three through", func() bool { return arrived.Load() == 6 && answered.Load() == 34 })
	proceed()
	all.Wait()
	guesses(40, "later ")
	all.Wait()
	if n := failed.Load(); n != 6 {
		t.Errorf("%d failed logins", n)
	}
}
