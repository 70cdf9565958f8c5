//go:build nobadger

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// buildDex builds Dex, which no module can import beside the other servers, from a module of its own.
var buildDex = sync.OnceValues(func() (binary string, err error) {
	binary = filepath.Join(os.Getenv("XDG_DATA_HOME"), "dex.exe")
	build := exec.Command("go", "build", "-C", "dex", "-o", binary, "github.com/dexidp/dex/cmd/dex")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return binary, nil
})

// runDex runs a Dex whose device codes are good for so long. Its one account is testuser@example.com, and its client says
// who it is in the form: at its device endpoint Dex reads no header.
func runDex(t testing.TB, codeLife time.Duration) *server {
	t.Helper()
	binary, err := buildDex()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("12345"), 10) // which is its least
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, "/token", func(address string) http.Handler {
		listens := loopback.FreeAddress()
		config, err := json.Marshal(map[string]any{ // YAML has all of JSON
			"issuer":  address,
			"storage": map[string]any{"type": "memory"},
			"web":     map[string]any{"http": listens},
			"logger":  map[string]any{"level": "error"},
			"oauth2":  map[string]any{"skipApprovalScreen": true},
			"expiry":  map[string]any{"deviceRequests": codeLife.String()},
			"staticClients": []any{map[string]any{
				"id": clientID, "secret": clientSecret, "name": "Sonos", "redirectURIs": []any{"/device/callback"},
			}},
			"enablePasswordDB": true,
			"staticPasswords": []any{map[string]any{
				"email": "testuser@example.com", "username": "testuser", "userID": "1", "hash": string(hash),
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "dex.yaml")
		if err := os.WriteFile(path, config, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "serve", path)
		start(t, cmd)
		listening(t, listens)
		to := &url.URL{Scheme: "http", Host: listens}
		return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	})
	s.works = worksAt(s.url + "/userinfo")
	return s
}

// dexListener types a code in on Dex's own pages, and signs in there.
func dexListener(t testing.TB, issuer, userCode string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	submit := func(page string, form url.Values) (led string) {
		response, err := browser.PostForm(page, form)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s answers %s", page, response.Status)
		}
		return response.Request.URL.String()
	}
	login := submit(issuer+"/device/auth/verify_code", url.Values{"user_code": {userCode}})
	if led := submit(login, url.Values{"login": {"testuser@example.com"}, "password": {"12345"}}); !strings.Contains(led, "/device/callback") {
		t.Fatalf("the listener is led to %s", led)
	}
}
