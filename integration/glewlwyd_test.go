//go:build nobadger

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// runGlewlwyd runs a Glewlwyd whose device codes are good for so long, with a database of its own. Its one account is
// testuser, who signs in there by listener.
func runGlewlwyd(t testing.TB, codeLife time.Duration) (s *server, listener func(t testing.TB, userCode string)) {
	t.Helper()
	binary, err := exec.LookPath("glewlwyd")
	if err != nil {
		t.Fatalf("%v (Debian has it in glewlwyd and sqlite3)", err)
	}
	installed := filepath.Dir(filepath.Dir(binary)) // it need not be in /usr: the package can be unpacked anywhere
	database := filepath.Join(t.TempDir(), "glewlwyd.db")
	tables, err := os.Open(filepath.Join(installed, "share/dbconfig-common/data/glewlwyd/install/sqlite3"))
	if err != nil {
		t.Fatal(err)
	}
	defer tables.Close()
	create := exec.Command("sqlite3", database)
	create.Stdin = tables
	if said, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%v %s (Debian has it in sqlite3)", err, said)
	}
	listens := loopback.FreeAddress()
	var run func()
	s = serve(t, "/api/oidc/token", func(address string) http.Handler {
		config := filepath.Join(t.TempDir(), "glewlwyd.conf")
		if err := os.WriteFile(config, glewlwydConfig(t, address, listens, installed, database), 0o600); err != nil {
			t.Fatal(err)
		}
		var running *exec.Cmd
		run = func() {
			if running != nil {
				_ = running.Process.Kill()
				_ = running.Wait()
			}
			running = exec.Command(binary, "--config-file="+config)
			start(t, running)
			listening(t, listens)
		}
		run()
		to := &url.URL{Scheme: "http", Host: listens}
		return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	})
	listen := s.restart
	s.restart = func() { // another one, that has the database alone
		run()
		listen()
	}
	admin := glewlwydBrowser(t, s.url, "admin", "password") // which the database begins with
	admin.send(http.MethodPost, "/mod/plugin/", map[string]any{
		"module": "oidc", "name": "oidc", "display_name": "OpenID Connect", "parameters": map[string]any{
			"iss": s.url + "/api/oidc", "jwt-type": "sha", "jwt-key-size": "256", "key": strings.Repeat("k", 32),
			"access-token-duration": 3600, "refresh-token-duration": 86400, "code-duration": 600, "refresh-token-rolling": true,
			"allowed-scope": []string{"openid"}, "allow-non-oidc": true, "auth-type-refresh-enabled": true, "auth-type-device-enabled": true,
			"device-authorization-expiration": codeLife.Seconds(), "device-authorization-interval": 1,
		},
	})
	admin.send(http.MethodPost, "/client/", map[string]any{
		"client_id": clientID, "client_secret": clientSecret, "name": "Sonos", "confidential": true, "enabled": true,
		"authorization_type": []string{"device_authorization", "refresh_token"}, "token_endpoint_auth_method": []string{"client_secret_basic"},
		"scope": []string{"openid"},
	})
	admin.send(http.MethodPost, "/user/", map[string]any{
		"username": "testuser", "password": "12345678", "enabled": true, "scope": []string{"openid"}, // it wants 8 characters
	})
	s.works = worksAt(s.url + "/api/oidc/userinfo")
	return s, func(t testing.TB, userCode string) {
		t.Helper()
		user := glewlwydBrowser(t, s.url, "testuser", "12345678")
		user.send(http.MethodPut, "/auth/grant/"+url.PathEscape(clientID), map[string]any{"scope": "openid"})
		if led := user.send(http.MethodGet, "/oidc/device?g_continue&code="+url.QueryEscape(userCode), nil); !strings.Contains(led, "prompt=deviceComplete") {
			t.Fatalf("the listener is led to %s", led)
		}
	}
}

func glewlwydConfig(t testing.TB, address, listens, installed, database string) []byte {
	t.Helper()
	host, port, err := net.SplitHostPort(listens)
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(installed, "lib/glewlwyd")
	return fmt.Appendf(nil, `port=%s
bind_address=%q
external_url=%q
login_url="login.html"
api_prefix="api"
log_mode="console"
log_level="ERROR"
cookie_domain=%[2]q
cookie_secure=0
session_key="session"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="%[4]s/user"
user_middleware_module_path="%[4]s/user_middleware"
client_module_path="%[4]s/client"
user_auth_scheme_module_path="%[4]s/scheme"
plugin_module_path="%[4]s/plugin"
hash_algorithm="SHA512"
database = { type = "sqlite3"; path = %[5]q; };
`, port, host, address, modules, database)
}

// glewlwydSession is a browser in which somebody has signed in.
type glewlwydSession struct {
	*http.Client
	t      testing.TB
	issuer string
}

func glewlwydBrowser(t testing.TB, address, username, password string) glewlwydSession {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	stays := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // what it leads to is for a browser
	s := glewlwydSession{&http.Client{Jar: jar, CheckRedirect: stays}, t, address}
	s.send(http.MethodPost, "/auth/", map[string]any{"username": username, "password": password})
	return s
}

// send asks for what has to succeed, and returns where it leads, if anywhere.
func (s glewlwydSession) send(method, path string, content any) (led string) {
	s.t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequest(method, s.issuer+"/api"+path, bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := s.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		s.t.Fatalf("%s %s answers %s", method, path, response.Status)
	}
	return response.Header.Get("Location")
}
