package caddymodule_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func TestAHomeWithTwoControllersStaysSignedInAtARotatingServer(t *testing.T) {
	step := stepClock(t)
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := t.TempDir()
	run := func() *caddytest.Site { return caddytest.RunOn(t, storage, caddytest.WithVault(endpoint, old, keys)) }
	s := run()
	authToken, handle := caddytest.TokensOf(s.Upgrade(t))
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
		before := endpoint.Refreshes.Load()
		for controller := range held {
			got := s.Refresh(t, held[controller], handle)
			newToken, key := caddytest.TokensOf(got)
			if got.Status != http.StatusOK || key != handle || newToken == held[controller] {
				t.Fatalf("life %d, controller %d: %+v", life, controller, got)
			}
			held[controller] = newToken
		}
		if n := endpoint.Refreshes.Load() - before; n != 1 {
			t.Errorf("life %d: %d refreshes", life, n)
		}
	}
}

func TestKeysFromBeforeAreTakenInAndOthersAreLeftToTheOldService(t *testing.T) {
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := t.TempDir()
	before := caddytest.RunOn(t, storage, caddytest.Directive(endpoint.Server, old, "refresh_auth_tokens"))
	authToken, key := caddytest.TokensOf(before.Upgrade(t))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s := caddytest.RunOn(t, storage, caddytest.WithVault(endpoint, old, keys))
	for range 3 { // the household goes on holding it
		got := s.Refresh(t, authToken, key)
		if newToken, handle := caddytest.TokensOf(got); got.Status != 200 || newToken == authToken || !strings.HasPrefix(handle, "smv1") {
			t.Fatalf("got %+v", got)
		}
	}
	if n := endpoint.Refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	old.Asked()
	for _, unknown := range []string{"the-old-service-s-own", "smv1" + strings.Repeat("A", 43)} {
		got := s.Refresh(t, "a", unknown)
		asked := old.Asked()
		if got.Status != http.StatusTeapot || len(asked) != 1 || !strings.Contains(asked[0].Text, "<ns:key>"+unknown+"</ns:key>") {
			t.Errorf("%s: %+v, the old service was asked %d times", unknown, got, len(asked))
		}
	}
	if n := endpoint.Refreshes.Load(); n != 2 {
		t.Errorf("%d refreshes: one of the key that is not known, and none of a made-up handle", n)
	}
}

func TestAStorageThatFailsSignsOutNobody(t *testing.T) {
	t.Parallel()
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := filepath.Join(t.TempDir(), "storage")
	s := caddytest.ApartOn(t, storage, caddytest.WithVault(endpoint, old, keys))
	authToken, handle := caddytest.TokensOf(s.Upgrade(t))
	logins := endpoint.Logins.Load()

	// The volume is gone, and nothing can be written.
	away := storage + "-away"
	if err := os.Rename(storage, away); err != nil {
		t.Fatal(err)
	}
	caddytest.Break(t, storage)
	caddytest.CheckAnswer(t, s.Refresh(t, authToken, handle), "service-unavailable.xml")
	caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml")
	// It is there again, but empty: another one was mounted.
	if err := os.Remove(storage); err != nil {
		t.Fatal(err)
	}
	caddytest.CheckAnswer(t, s.Refresh(t, authToken, handle), "service-unavailable.xml")
	if n := endpoint.Refreshes.Load(); n != 0 || endpoint.Logins.Load() != logins {
		t.Errorf("%d refreshes, %d logins", n, endpoint.Logins.Load()-logins)
	}
	caddytest.Replace(t, storage, away)
	if got := s.Refresh(t, authToken, handle); got.Status != 200 {
		t.Errorf("afterwards: %+v", got)
	}

	// The key file is not the one that sealed.
	good, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := seal.GenerateKeys(nil)
	seal := strings.Index(string(other), "}") // its first key, with the names of ours
	caddytest.Write(t, keys, string(other[:seal+1])+string(good[strings.Index(string(good), "}")+1:]))
	caddytest.Eventually(t, "it comes to that", func() bool { return strings.Contains(s.Log(t), "a secret was read again") })
	caddytest.CheckAnswer(t, s.Refresh(t, "another", handle), "service-unavailable.xml")
	if !strings.Contains(s.Log(t), `"outcome":"misconfigured"`) {
		t.Error("nothing says that the key file is not the one that sealed")
	}
	caddytest.Write(t, keys, "damaged") // and the last good one stays
	caddytest.Eventually(t, "it comes to that", func() bool { return strings.Contains(s.Log(t), "cannot read the file of a secret") })
	caddytest.Write(t, keys, string(good))
	caddytest.Eventually(t, "it comes to that", func() bool { return s.Refresh(t, "another", handle).Status == 200 })
}

func TestNothingOfAHomeIsInTheStorage(t *testing.T) {
	const life = time.Hour
	step := stepClock(t)
	endpoint, old, keys := caddytest.Rotate(t, life.Seconds()), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := t.TempDir()
	s := caddytest.RunOn(t, storage, caddytest.WithVault(endpoint, old, keys))
	upgrade := marked(t, "upgrade.xml")
	authToken, handle := caddytest.TokensOf(s.Post(t, upgrade))
	wrong := s.Post(t, []byte(strings.ReplaceAll(string(upgrade), "marker-password", "marker-wrong")))
	step(life)
	refreshed := s.Refresh(t, authToken, handle)
	endpoint.Issued("marker-from-before")
	taken := s.Refresh(t, "x", "marker-from-before")
	for what, got := range map[string]caddytest.Answer{"wrong": wrong, "refreshed": refreshed, "taken in": taken} {
		if got.Status != 200 {
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
	checkNoMarker(t, "the log", s.Log(t))
}

// Whoever loses a part of a volume has many handles whose records are not there. The fuse doubts that all these homes are
// to sign in again.
func TestManyLostRecordsAreDoubted(t *testing.T) {
	step := stepClock(t)
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := t.TempDir()
	s := caddytest.RunOn(t, storage, caddytest.WithVault(endpoint, old, keys))
	request := string(caddytest.File(t, "requests", "upgrade.xml"))
	var handles []string
	for i := range 40 {
		_, handle := caddytest.TokensOf(s.Post(t, []byte(strings.ReplaceAll(request, "testuser", fmt.Sprint("user", i)))))
		handles = append(handles, handle)
	}
	records, err := filepath.Glob(filepath.Join(storage, "smapi_upgrade", "*", "records"))
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if err := os.RemoveAll(records[0]); err != nil {
		t.Fatal(err)
	}
	caddytest.CheckAnswer(t, s.Refresh(t, "a", handles[0]), "service-unavailable.xml") // the vault is not a day old
	step(25 * time.Hour)
	told := map[int]int{}
	for i, handle := range handles {
		if strings.Contains(s.Refresh(t, "a", handle).Body, "AuthTokenExpired") {
			told[i]++
		}
	}
	if len(told) == 0 || len(told) >= 20 || endpoint.Refreshes.Load() != 0 {
		t.Errorf("%d of %d were told to sign in, the endpoint was asked %d times", len(told), len(handles), endpoint.Refreshes.Load())
	}
	if !strings.Contains(s.Log(t), "fuse blown") {
		t.Error("the fuse is whole")
	}
}

// A server may tell their names apart, whatever is counted as one account elsewhere.
func TestTwoAccountsOfAHomeKeepTheirOwnTokens(t *testing.T) {
	endpoint := caddytest.Rotate(t, 3600)
	s := caddytest.Run(t, caddytest.WithVault(endpoint, caddytest.OldService(t), caddytest.VaultFile(t)))
	handles := map[string]string{}
	for _, name := range []string{"ella", "Ella", "éllà"} {
		a := s.Post(t, caddytest.Tries(t, name, "12345", "home"))
		authToken, handle := caddytest.Pair(t, a.Body)
		if other := handles[handle]; other != "" || authToken == "" {
			t.Errorf("%s has the record of %q: %s", name, other, a.Body)
		}
		handles[handle] = name
	}
}
