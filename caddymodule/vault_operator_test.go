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

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// What an operator does with a vault, and the way back: docs/migration.md tells of each.

type home struct{ name, authToken, key string }

// upgradeHomes has so many homes upgraded, each with an account of its own.
func upgradeHomes(t testing.TB, s *caddytest.Site, n int) (homes []home) {
	t.Helper()
	for i := range n {
		h := home{name: fmt.Sprint("user", i)}
		h.authToken, h.key = caddytest.TokensOf(s.Post(t, caddytest.Tries(t, h.name, "12345", "Sonos_"+h.name)))
		if h.authToken == "" || h.key == "" {
			t.Fatalf("%s is not upgraded", h.name)
		}
		homes = append(homes, h)
	}
	return homes
}

// refreshHomes refreshes them, and returns how many are served, are told to sign in again and are to come later.
func refreshHomes(t testing.TB, s *caddytest.Site, homes []home) (served, signIn, later int) {
	t.Helper()
	for i := range homes {
		h := &homes[i]
		got := s.Refresh(t, h.authToken, h.key)
		switch authToken, key := caddytest.TokensOf(got); {
		case got.Status == http.StatusOK && authToken != "" && authToken != h.authToken:
			h.authToken, h.key = authToken, key
			served++
		case strings.Contains(got.Body, "Client.AuthTokenExpired"):
			signIn++
		case strings.Contains(got.Body, "Server.ServiceUnavailable"):
			later++
		default:
			t.Errorf("%s gets %+v", h.name, got)
		}
	}
	return served, signIn, later
}

func checkRefreshed(t testing.TB, s *caddytest.Site, homes []home) {
	t.Helper()
	if served, signIn, later := refreshHomes(t, s, homes); served != len(homes) {
		t.Errorf("of %d homes %d are served, %d sign in again, %d come later", len(homes), served, signIn, later)
	}
}

func TestAVaultIsTurnedOnOffAndOnAgain(t *testing.T) {
	const homes = 40
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := t.TempDir()
	run := func(options ...string) *caddytest.Site {
		t.Helper()
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		return caddytest.RunOn(t, storage, caddytest.Directive(endpoint.Server, old, append(options, "refresh_auth_tokens", "replay off")...))
	}
	before := upgradeHomes(t, run(), homes/2)

	// On: those that were upgraded before are taken in, and the household goes on holding the key from before.
	s := run("vault " + keys)
	household := append([]home(nil), before...)
	checkRefreshed(t, s, before)
	checkRefreshed(t, s, household)
	if n := endpoint.Refreshes.Load(); n != homes/2 {
		t.Errorf("%d refreshes of %d homes", n, homes/2)
	}
	later := upgradeHomes(t, s, homes/2)
	all := append(before, later...)
	for _, h := range all {
		if !strings.HasPrefix(h.key, "smv1") {
			t.Fatalf("%s has %s", h.name, h.key)
		}
	}

	// Off: the authorization server knows no handles. Who refreshes meanwhile signs in again, until the fuse doubts it.
	s = run()
	served, signIn, wait := refreshHomes(t, s, all)
	t.Logf("without the vault, of %d homes %d sign in again and %d come later", len(all), signIn, wait)
	if served != 0 || signIn >= homes/2 {
		t.Errorf("%d are served, %d are told to sign in again", served, signIn)
	}
	// While homes are chosen, they are the old service's.
	s = run("households 0%")
	checkForwarded(t, s.Refresh(t, all[0].authToken, all[0].key))

	// On again: whoever has not signed in meanwhile has lost nothing.
	checkRefreshed(t, run("vault "+keys), all)
}

func TestAStorageOfYesterdaySignsInOnlyWhoHasRefreshedSince(t *testing.T) {
	const homes = 40
	step := stepClock(t)
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := filepath.Join(t.TempDir(), "storage")
	s := caddytest.RunOn(t, storage, caddytest.WithVault(endpoint, old, keys))
	all := upgradeHomes(t, s, homes)
	yesterday := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(yesterday, os.DirFS(storage)); err != nil {
		t.Fatal(err)
	}
	since, others := all[:homes/2], all[homes/2:]
	checkRefreshed(t, s, since)
	caddytest.Replace(t, storage, yesterday)

	step(25 * time.Hour)
	served, signIn, later := refreshHomes(t, s, since)
	t.Logf("of %d homes that have refreshed since %d are served, %d sign in again and %d come later", len(since), served, signIn, later)
	if served != 0 || signIn == 0 {
		t.Errorf("%d are served, %d sign in again", served, signIn)
	}
	checkRefreshed(t, s, others)
	for i, h := range upgradeHomes(t, s, homes/2) { // signed in again
		if h.key != since[i].key {
			t.Errorf("%s has another handle", h.name)
		}
		since[i] = h
	}
	checkRefreshed(t, s, since)
}
