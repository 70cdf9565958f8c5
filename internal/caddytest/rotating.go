package caddytest

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// Rotating is a token endpoint as fosite and oidc-provider are: whoever comes with a refresh token a second time ends
// the whole family.
type Rotating struct {
	*Server
	Life  float64 // of access tokens, in seconds
	Extra string  // members of its answers

	// oneSession has a login end all sessions before it, as Dex does.
	OneSession bool

	mu        sync.Mutex
	issued    int
	family    map[string]int // of each refresh token
	used      map[string]bool
	revoked   map[int]bool
	Logins    atomic.Int64
	Refreshes atomic.Int64
	hang      chan struct{} // what refreshes wait for, if it is not nil
	Gone      atomic.Bool   // it answers nobody
}

// Rotate runs a token endpoint whose access tokens live so many seconds.
func Rotate(t testing.TB, life float64) *Rotating {
	r := &Rotating{Life: life, family: map[string]int{}, used: map[string]bool{}, revoked: map[int]bool{}}
	r.Server = Serve(t, func(w http.ResponseWriter, q *http.Request) {
		if r.Gone.Load() {
			panic(http.ErrAbortHandler)
		}
		form, err := FormOf(q)
		if err != nil {
			panic(err)
		}
		if form.Get("grant_type") == "refresh_token" {
			r.Refreshes.Add(1)
			r.mu.Lock()
			hang := r.hang
			r.mu.Unlock()
			if hang != nil {
				<-hang
			}
			r.refresh(w, q, form.Get("refresh_token"))
			return
		}
		r.Logins.Add(1)
		if form.Get("password") != "12345" && form.Get("password") != "marker-password" {
			Says(400, `{"error":"invalid_grant"}`)(w, q)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.OneSession {
			for _, family := range r.family {
				r.revoked[family] = true
			}
		}
		r.issue(w, q, r.issued+1)
	})
	return r
}

// FormOf is the form of a request.
func FormOf(r *http.Request) (url.Values, error) {
	err := r.ParseForm()
	return r.PostForm, err
}

func (r *Rotating) refresh(w http.ResponseWriter, q *http.Request, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	family, known := r.family[token]
	if r.used[token] {
		r.revoked[family] = true
	}
	if !known || r.revoked[family] {
		Says(400, `{"error":"invalid_grant"}`)(w, q)
		return
	}
	r.used[token] = true
	r.issue(w, q, family)
}

func (r *Rotating) issue(w http.ResponseWriter, q *http.Request, family int) {
	r.issued++
	refresh := fmt.Sprintf("marker-refresh-%d", r.issued)
	r.family[refresh] = family
	Says(200, fmt.Sprintf(`{%s"access_token":"marker-access-%d","refresh_token":%q,"token_type":"Bearer","expires_in":%v}`,
		r.Extra, r.issued, refresh, r.Life))(w, q)
}

// Hold has refreshes wait until release.
func (r *Rotating) Hold() (release func()) {
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

// VaultFile makes a key file.
func VaultFile(t testing.TB) string {
	t.Helper()
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vault.json")
	Write(t, path, string(text))
	return path
}

// WithVault is a site whose handler has a vault.
func WithVault(endpoint *Rotating, old *Server, keys string, more ...string) string {
	return Directive(endpoint.Server, old, append([]string{"refresh_auth_tokens", "vault " + keys, "replay off"}, more...)...)
}

// Pass has the refreshes that come from now on go on, and leaves those that are held where they are.
func (r *Rotating) Pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hang = nil
}

// Revoke ends all families that there are.
func (r *Rotating) Revoke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for family := range r.issued + 1 {
		r.revoked[family] = true
	}
}

// Issued has a refresh token be one from before the test.
func (r *Rotating) Issued(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.family[token] = len(r.family) + 99
}
