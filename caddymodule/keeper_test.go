package caddymodule_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// noHistory is a storage in files in which whatever looks for a history hangs for good.
type noHistory struct{ certmagic.FileStorage }

var hanging = make(chan struct{}, 1000) // has one for each that does

func init() { caddy.RegisterModule(new(noHistory)) }

func (*noHistory) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.test_no_history", New: func() caddy.Module { return new(noHistory) }}
}

func (s *noHistory) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.Args(&s.Path)
	return nil
}

func (s *noHistory) CertMagicStorage() (certmagic.Storage, error) { return s, nil }

func (s *noHistory) Load(ctx context.Context, key string) ([]byte, error) {
	if strings.Contains(key, "/history/") {
		hanging <- struct{}{}
		select {}
	}
	return s.FileStorage.Load(ctx, key)
}

// Everything but the page does without a history.
func TestAHistoryThatHangsKeepsNoCallAndNoReloadWaiting(t *testing.T) {
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	address, storage := loopback.FreeAddress(), t.TempDir()
	s := &caddytest.Site{URL: "http://" + address}
	load := func(n int) {
		t.Helper()
		caddytest.Reload(t, fmt.Sprintf("{\nadmin off\npersist_config off\nstorage test_no_history %s\nlog {\noutput discard\n}\n}\n%s {\nbind 127.0.0.1\nheader X-Load %d\n%s\n}",
			storage, s.URL, n, caddytest.WithVault(endpoint, old, keys)), address)
	}
	t.Cleanup(caddymodule.SetLastLook(10 * time.Millisecond)) // which is for nothing here
	t.Cleanup(func() { _ = caddy.Stop() })
	load(0)
	<-hanging
	for n := range 3 {
		if authToken, _ := caddytest.TokensOf(s.Upgrade(t)); authToken == "" {
			t.Errorf("load %d: the player is not upgraded", n)
		}
		load(n + 1)
		http.DefaultTransport.(*http.Transport).CloseIdleConnections() // which the reload has ended
	}
}
