package caddymodule_test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// rotating is a token endpoint as fosite and oidc-provider are: whoever comes with a refresh token a second time ends
// the whole family.
type rotating struct {
	*server
	life  float64 // of access tokens, in seconds
	extra string  // members of its answers

	// oneSession has a login end all sessions before it, as Dex does.
	oneSession bool

	mu        sync.Mutex
	issued    int
	family    map[string]int // of each refresh token
	used      map[string]bool
	revoked   map[int]bool
	logins    atomic.Int64
	refreshes atomic.Int64
	hang      chan struct{} // what refreshes wait for, if it is not nil
}

func rotate(t testing.TB, life float64) *rotating {
	r := &rotating{life: life, family: map[string]int{}, used: map[string]bool{}, revoked: map[int]bool{}}
	r.server = serve(t, func(w http.ResponseWriter, q *http.Request) {
		form, err := formOf(q)
		if err != nil {
			panic(err)
		}
		if form.Get("grant_type") == "refresh_token" {
			r.refreshes.Add(1)
			r.mu.Lock()
			hang := r.hang
			r.mu.Unlock()
			if hang != nil {
				<-hang
			}
			r.refresh(w, q, form.Get("refresh_token"))
			return
		}
		r.logins.Add(1)
		if form.Get("password") != "12345" && form.Get("password") != "marker-password" {
			says(400, `{"error":"invalid_grant"}`)(w, q)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.oneSession {
			for _, family := range r.family {
				r.revoked[family] = true
			}
		}
		r.issue(w, q, r.issued+1)
	})
	return r
}

func formOf(r *http.Request) (url.Values, error) {
	err := r.ParseForm()
	return r.PostForm, err
}

func (r *rotating) refresh(w http.ResponseWriter, q *http.Request, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	family, known := r.family[token]
	if r.used[token] {
		r.revoked[family] = true
	}
	if !known || r.revoked[family] {
		says(400, `{"error":"invalid_grant"}`)(w, q)
		return
	}
	r.used[token] = true
	r.issue(w, q, family)
}

func (r *rotating) issue(w http.ResponseWriter, q *http.Request, family int) {
	r.issued++
	refresh := fmt.Sprintf("marker-refresh-%d", r.issued)
	r.family[refresh] = family
	says(200, fmt.Sprintf(`{%s"access_token":"marker-access-%d","refresh_token":%q,"token_type":"Bearer","expires_in":%v}`,
		r.extra, r.issued, refresh, r.life))(w, q)
}

// hold has refreshes wait until release.
func (r *rotating) hold() (release func()) {
	hang := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hang = hang
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hang = nil
		close(hang)
	}
}

// vaultFile makes a key file.
func vaultFile(t testing.TB) string {
	t.Helper()
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vault.json")
	write(t, path, string(text))
	return path
}

// withVault is a site whose handler has a vault.
func withVault(endpoint *rotating, old *server, keys string, more ...string) string {
	return directive(endpoint.server, old, append([]string{"refresh_auth_tokens", "vault " + keys, "replay off"}, more...)...)
}

// refresh sends a refreshAuthToken with a pair.
func (s *site) refresh(t testing.TB, authToken, privateKey string) answer {
	t.Helper()
	return s.do(t, refreshOf(t, s, authToken, privateKey))
}

// tokensOf are the pair in an answer, blank where there is none.
func tokensOf(a answer) (authToken, privateKey string) {
	decoder := xml.NewDecoder(strings.NewReader(a.body))
	for {
		part, err := decoder.Token()
		if err != nil {
			return authToken, privateKey
		}
		if start, ok := part.(xml.StartElement); ok {
			switch start.Name.Local {
			case "authToken":
				_ = decoder.DecodeElement(&authToken, &start)
			case "privateKey":
				_ = decoder.DecodeElement(&privateKey, &start)
			}
		}
	}
}

// cluster is Caddys in processes of their own on one storage.
type cluster struct {
	sites   []*site
	nodes   []*exec.Cmd
	storage string
}

func startCluster(t *testing.T, size int, directives string) *cluster {
	t.Helper()
	c := &cluster{storage: t.TempDir()}
	for range size {
		address := loopback.FreeAddress()
		c.nodes = append(c.nodes, node(t, fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}", address, directives),
			"storage file_system "+c.storage))
		c.sites = append(c.sites, &site{url: "http://" + address})
	}
	for _, s := range c.sites {
		reachable(t, strings.TrimPrefix(s.url, "http://"))
	}
	return c
}

func TestAHomeWithTwoControllersStaysSignedInAtARotatingServer(t *testing.T) {
	step := stepClock(t)
	endpoint, old, keys := rotate(t, 3600), oldService(t), vaultFile(t)
	storage := t.TempDir()
	run := func() *site { return caddyRunOn(t, storage, withVault(endpoint, old, keys)) }
	s := run()
	authToken, handle := tokensOf(s.upgrade(t))
	if !strings.HasPrefix(handle, "smv1") {
		t.Fatalf("the privateKey is %q", handle)
	}
	held := [2]string{authToken, authToken}
	for life := range 6 {
		step(time.Hour) // a life of the access token
		if life == 3 {
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			s = run()
			held[1] = authToken // a controller that was restarted, too
		}
		before := endpoint.refreshes.Load()
		for controller := range held {
			got := s.refresh(t, held[controller], handle)
			newToken, key := tokensOf(got)
			if got.status != http.StatusOK || key != handle || newToken == held[controller] {
				t.Fatalf("life %d, controller %d: %+v", life, controller, got)
			}
			held[controller] = newToken
		}
		if n := endpoint.refreshes.Load() - before; n != 1 {
			t.Errorf("life %d: %d refreshes", life, n)
		}
	}
}

func TestInstancesOnOneStorageAreOne(t *testing.T) {
	endpoint, old, keys := rotate(t, 3600), oldService(t), vaultFile(t)
	c := startCluster(t, 3, withVault(endpoint, old, keys, "failed_logins 4 30m"))

	// Upgrade here, refresh there.
	authToken, handle := tokensOf(c.sites[0].upgrade(t))
	release := endpoint.hold()
	var wait sync.WaitGroup
	for i := range 24 {
		wait.Go(func() {
			got := c.sites[i%3].refresh(t, authToken, handle)
			if newToken, key := tokensOf(got); got.status != 200 || newToken == authToken || key != handle {
				t.Errorf("got %+v", got)
			}
		})
	}
	for endpoint.refreshes.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for others to ask, if they would
	release()
	wait.Wait()
	if n := endpoint.refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	if _, again := tokensOf(c.sites[2].upgrade(t)); again != handle {
		t.Error("an upgrade elsewhere has another handle")
	}

	// Guesses that are spread over all stay within failed_logins, and a remembered one costs none.
	before := endpoint.logins.Load()
	request := string(file(t, "requests", "upgrade.xml"))
	for i := range 9 {
		for range 2 {
			c.sites[i%3].post(t, []byte(strings.ReplaceAll(request, "12345", fmt.Sprint("guess", i/2))))
		}
	}
	if n := endpoint.logins.Load() - before; n > 4 {
		t.Errorf("%d logins for guesses", n)
	}

	// One is killed while it refreshes, and has the lock.
	held, _ := tokensOf(c.sites[0].refresh(t, "another", handle))
	release = endpoint.hold()
	defer release() // the killed one's request stays where it is until the end
	asked := endpoint.refreshes.Load()
	lost := refreshOf(t, c.sites[0], held, handle)
	go func() { // whose answer never comes
		if response, err := http.DefaultTransport.RoundTrip(lost); err == nil {
			response.Body.Close()
		}
	}()
	for endpoint.refreshes.Load() == asked {
		time.Sleep(time.Millisecond)
	}
	_ = c.nodes[0].Process.Kill()
	endpoint.mu.Lock()
	endpoint.hang = nil
	endpoint.mu.Unlock()
	begun := time.Now()
	got := c.sites[1].refresh(t, held, handle)
	if newToken, _ := tokensOf(got); got.status != 200 || newToken == held {
		t.Errorf("after %v got %+v", time.Since(begun), got)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Logf("the other had its answer after %v", took)
	}
}

// Two controllers of a home are upgraded, each at an instance of its own, and the second login ends the session of the
// first one.
func TestAServerWithOneSessionForAnAccountSignsOutNoController(t *testing.T) {
	endpoint, old, keys := rotate(t, 3600), oldService(t), vaultFile(t)
	endpoint.oneSession = true
	c := startCluster(t, 2, withVault(endpoint, old, keys))
	var held [2]string
	var handles [2]string
	for i, s := range c.sites {
		held[i], handles[i] = tokensOf(s.upgrade(t))
	}
	if handles[0] != handles[1] || held[0] == held[1] {
		t.Fatalf("upgraded to %v, %v", held, handles)
	}
	newest, _ := tokensOf(c.sites[0].refresh(t, held[0], handles[0]))
	if newest != held[1] || endpoint.refreshes.Load() != 0 {
		t.Errorf("the first controller gets %q, and the second has %q", newest, held[1])
	}
	held[0] = newest
	for life := range 3 { // each ends when the first controller finds that its token does no more
		for i, s := range c.sites {
			got := s.refresh(t, held[i], handles[0])
			authToken, key := tokensOf(got)
			if got.status != http.StatusOK || authToken == held[i] || key != handles[0] {
				t.Fatalf("life %d, controller %d: %+v", life, i, got)
			}
			held[i] = authToken
		}
		if n := endpoint.refreshes.Load(); n != int64(life+1) || held[0] != held[1] {
			t.Errorf("life %d: %d refreshes, tokens %v", life, n, held)
		}
	}
}

func refreshOf(t testing.TB, s *site, authToken, privateKey string) *http.Request {
	t.Helper()
	body := strings.NewReplacer("old-token", authToken, "old-key", privateKey).Replace(string(file(t, "requests", "refresh-auth-token.xml")))
	r := s.request(t, []byte(body))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
	return r
}

func TestKeysFromBeforeAreTakenInAndOthersAreLeftToTheOldService(t *testing.T) {
	endpoint, old, keys := rotate(t, 3600), oldService(t), vaultFile(t)
	storage := t.TempDir()
	before := caddyRunOn(t, storage, directive(endpoint.server, old, "refresh_auth_tokens"))
	authToken, key := tokensOf(before.upgrade(t))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s := caddyRunOn(t, storage, withVault(endpoint, old, keys))
	for range 3 { // the household goes on holding it
		got := s.refresh(t, authToken, key)
		if newToken, handle := tokensOf(got); got.status != 200 || newToken == authToken || !strings.HasPrefix(handle, "smv1") {
			t.Fatalf("got %+v", got)
		}
	}
	if n := endpoint.refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	old.asked()
	for _, unknown := range []string{"the-old-service-s-own", "smv1" + strings.Repeat("A", 43)} {
		got := s.refresh(t, "a", unknown)
		asked := old.asked()
		if got.status != http.StatusTeapot || len(asked) != 1 || !strings.Contains(asked[0].body, "<ns:key>"+unknown+"</ns:key>") {
			t.Errorf("%s: %+v, the old service was asked %d times", unknown, got, len(asked))
		}
	}
	if n := endpoint.refreshes.Load(); n != 2 {
		t.Errorf("%d refreshes: one of the key that is not known, and none of a made-up handle", n)
	}
}

func TestAStorageThatFailsSignsOutNobody(t *testing.T) {
	endpoint, old, keys := rotate(t, 3600), oldService(t), vaultFile(t)
	storage := filepath.Join(t.TempDir(), "storage")
	s := caddyRunOn(t, storage, withVault(endpoint, old, keys))
	authToken, handle := tokensOf(s.upgrade(t))
	logins := endpoint.logins.Load()

	// The volume is gone, and nothing can be written.
	away := storage + "-away"
	if err := os.Rename(storage, away); err != nil {
		t.Fatal(err)
	}
	write(t, storage, "")
	checkAnswer(t, s.refresh(t, authToken, handle), "service-unavailable.xml")
	checkAnswer(t, s.upgrade(t), "service-unavailable.xml")
	// It is there again, but empty: another one was mounted.
	if err := os.Remove(storage); err != nil {
		t.Fatal(err)
	}
	checkAnswer(t, s.refresh(t, authToken, handle), "service-unavailable.xml")
	if n := endpoint.refreshes.Load(); n != 0 || endpoint.logins.Load() != logins {
		t.Errorf("%d refreshes, %d logins", n, endpoint.logins.Load()-logins)
	}
	if err := os.RemoveAll(storage); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, storage); err != nil {
		t.Fatal(err)
	}
	if got := s.refresh(t, authToken, handle); got.status != 200 {
		t.Errorf("afterwards: %+v", got)
	}

	// The key file is not the one that sealed.
	good, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := seal.GenerateKeys(nil)
	seal := strings.Index(string(other), "}") // its first key, with the names of ours
	write(t, keys, string(other[:seal+1])+string(good[strings.Index(string(good), "}")+1:]))
	wait(t, func() bool { return strings.Contains(s.log(t), "a secret was read again") })
	checkAnswer(t, s.refresh(t, "another", handle), "service-unavailable.xml")
	if !strings.Contains(s.log(t), `"outcome":"misconfigured"`) {
		t.Error("nothing says that the key file is not the one that sealed")
	}
	write(t, keys, "damaged") // and the last good one stays
	wait(t, func() bool { return strings.Contains(s.log(t), "cannot read the file of a secret") })
	write(t, keys, string(good))
	wait(t, func() bool { return s.refresh(t, "another", handle).status == 200 })
}

// wait waits until something holds.
func wait(t testing.TB, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to that")
		}
	}
}

func TestNothingOfAHomeIsInTheStorage(t *testing.T) {
	const life = time.Hour
	step := stepClock(t)
	endpoint, old, keys := rotate(t, life.Seconds()), oldService(t), vaultFile(t)
	storage := t.TempDir()
	s := caddyRunOn(t, storage, withVault(endpoint, old, keys))
	upgrade := marked(t, "upgrade.xml")
	authToken, handle := tokensOf(s.post(t, upgrade))
	wrong := s.post(t, []byte(strings.ReplaceAll(string(upgrade), "marker-password", "marker-wrong")))
	step(life)
	refreshed := s.refresh(t, authToken, handle)
	endpoint.mu.Lock()
	endpoint.family["marker-from-before"] = 99
	endpoint.mu.Unlock()
	taken := s.refresh(t, "x", "marker-from-before")
	for what, got := range map[string]answer{"wrong": wrong, "refreshed": refreshed, "taken in": taken} {
		if got.status != 200 {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	kinds := checkStorage(t, storage, append(keysOf(t, keys), handle))
	if kinds["records"] != 2 || kinds["tokens"] != 1 || kinds["failed"] != 1 {
		t.Errorf("there are %v", kinds)
	}
	checkNoMarker(t, "the log", s.log(t))
}

// Whoever loses a part of a volume has many handles whose records are not there. The fuse doubts that all these homes are
// to sign in again.
func TestManyLostRecordsAreDoubted(t *testing.T) {
	step := stepClock(t)
	endpoint, old, keys := rotate(t, 3600), oldService(t), vaultFile(t)
	storage := t.TempDir()
	s := caddyRunOn(t, storage, withVault(endpoint, old, keys))
	request := string(file(t, "requests", "upgrade.xml"))
	var handles []string
	for i := range 40 {
		_, handle := tokensOf(s.post(t, []byte(strings.ReplaceAll(request, "testuser", fmt.Sprint("user", i)))))
		handles = append(handles, handle)
	}
	records, err := filepath.Glob(filepath.Join(storage, "smapi_upgrade", "*", "records"))
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if err := os.RemoveAll(records[0]); err != nil {
		t.Fatal(err)
	}
	checkAnswer(t, s.refresh(t, "a", handles[0]), "service-unavailable.xml") // the vault is not a day old
	step(25 * time.Hour)
	told := map[int]int{}
	for i, handle := range handles {
		if strings.Contains(s.refresh(t, "a", handle).body, "AuthTokenExpired") {
			told[i]++
		}
	}
	if len(told) == 0 || len(told) >= 20 || endpoint.refreshes.Load() != 0 {
		t.Errorf("%d of %d were told to sign in, the endpoint was asked %d times", len(told), len(handles), endpoint.refreshes.Load())
	}
	if !strings.Contains(s.log(t), "fuse blown") {
		t.Error("the fuse is whole")
	}
}

// A server may tell their names apart, whatever is counted as one account elsewhere.
func TestTwoAccountsOfAHomeKeepTheirOwnTokens(t *testing.T) {
	endpoint := rotate(t, 3600)
	s := caddyRun(t, withVault(endpoint, oldService(t), vaultFile(t)))
	handles := map[string]string{}
	for _, name := range []string{"ella", "Ella", "éllà"} {
		a := s.post(t, tries(t, name, "12345", "home"))
		authToken, handle := pair(t, a.body)
		if other := handles[handle]; other != "" || authToken == "" {
			t.Errorf("%s has the record of %q: %s", name, other, a.body)
		}
		handles[handle] = name
	}
}
