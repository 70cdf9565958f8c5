package crowd_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// A stranger sends what he likes and harms nobody: each test has an attack, and listeners before, during and after it,
// from other loopback networks.

// listeners come to a site, each from a network of its own. Each is an account of its own.
type listeners struct {
	*caddytest.Site
	come atomic.Int32
}

// upgrade has one more come, and be upgraded and refreshed.
func (l *listeners) upgrade(t testing.TB) {
	t.Helper()
	i := l.come.Add(1)
	c := caddytest.From(t, fmt.Sprintf("127.2.%d.1", i%250))
	defer c.CloseIdleConnections()
	name := fmt.Sprint("listener", i)
	if a, err := caddytest.Ask(t, c, l.Site, caddytest.Tries(t, name, "right", "home")); err != nil || caddytest.Told(t, a) != "upgraded" {
		t.Errorf("%s is not upgraded: %+v, %v", name, a, err)
	}
	l.refresh(t, c, name)
}

func (l *listeners) refresh(t testing.TB, c *http.Client, key string) {
	t.Helper()
	if a, err := caddytest.Fetch(c, l.Refreshes(t, key)); err != nil || !strings.Contains(a.Body, "<authToken>new-token<") {
		t.Errorf("%s is not refreshed: %+v, %v", key, a, err)
	}
}

// upgradeUntil has them come one after the other until then, and at least one.
func (l *listeners) upgradeUntil(t testing.TB, done <-chan struct{}) {
	t.Helper()
	for {
		l.upgrade(t)
		select {
		case <-done:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}
