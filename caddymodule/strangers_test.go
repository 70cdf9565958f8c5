package caddymodule_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A stranger sends what he likes and harms nobody: each test has an attack, and listeners before, during and after it,
// from other loopback networks.

// from is a client in a loopback network of its own.
func from(t testing.TB, ip string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: dialer(ip).DialContext, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func dialer(ip string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
}

// tries is the upgrade call of an account with a password in a home.
func tries(t testing.TB, name, password, home string) []byte {
	t.Helper()
	sample := string(file(t, "requests", "upgrade.xml"))
	return []byte(strings.NewReplacer("testuser", name, "12345", password, "Sonos_abc123", home).Replace(sample))
}

// refreshes is the refreshAuthToken of a home that has this key.
func (s *site) refreshes(t testing.TB, key string) *http.Request {
	t.Helper()
	r := s.request(t, []byte(strings.Replace(string(file(t, "requests", "refresh-auth-token.xml")), "old-key", key, 1)))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
	return r
}

// passwords is a token endpoint where every account's password is "right", and the failed logins at it.
func passwords(failed *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("grant_type") == "refresh_token" || r.PostFormValue("password") == "right" {
			issuesTokens(w, r)
			return
		}
		failed.Add(1)
		says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
	}
}

// listeners come to a site, each from a network of its own. Each is an account of its own.
type listeners struct {
	*site
	come atomic.Int32
}

// upgrade has one more come, and be upgraded and refreshed.
func (l *listeners) upgrade(t testing.TB) {
	t.Helper()
	i := l.come.Add(1)
	c := from(t, fmt.Sprintf("127.2.%d.1", i%250))
	defer c.CloseIdleConnections()
	name := fmt.Sprint("listener", i)
	if a, err := ask(t, c, l.site, tries(t, name, "right", "home")); err != nil || told(t, a) != "upgraded" {
		t.Errorf("%s is not upgraded: %+v, %v", name, a, err)
	}
	l.refresh(t, c, name)
}

func (l *listeners) refresh(t testing.TB, c *http.Client, key string) {
	t.Helper()
	if a, err := fetch(c, l.refreshes(t, key)); err != nil || !strings.Contains(a.body, "<authToken>new-token<") {
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
