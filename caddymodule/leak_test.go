package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// markers stand for everything that is secret, by where they come from.
var markers = map[string]string{
	"testuser": "marker-user", "12345": "marker-password", "old-token": "marker-old-token", "old-key": "marker-old-key",
	"old-session": "marker-session", "Sonos_abc123": "marker-household", "00-0E-58-5B-06-D6:8": "marker-device",
}

func marked(t testing.TB, request string) []byte {
	t.Helper()
	var pairs []string
	for value, marker := range markers {
		pairs = append(pairs, value, marker)
	}
	return []byte(strings.NewReplacer(pairs...).Replace(string(caddytest.File(t, "requests", request))))
}

// What token endpoints say, with secrets wherever a server may put them.
var leakyAnswers = map[string]http.HandlerFunc{
	"issued":                          caddytest.Says(200, `{"access_token":"marker-new-token","refresh_token":"marker-new-key"}`),
	"issued, in part":                 caddytest.Says(200, `{"access_token":"marker-new-token"}`),
	"issued, too long":                caddytest.Says(200, `{"access_token":"marker-new-token`+strings.Repeat("x", 2048)+`","refresh_token":"k"}`),
	"issued, no text":                 caddytest.Says(200, `{"access_token":"marker-new-token\u0000","refresh_token":"marker-new-key"}`),
	"no JSON":                         caddytest.Says(200, `marker-password`),
	"rejected":                        caddytest.Says(400, `{"error":"invalid_grant","error_description":"marker-user has not marker-password"}`),
	"an odd error":                    caddytest.Says(400, `{"error":"marker-user is locked","error_uri":"marker-password"}`),
	"the client":                      caddytest.Says(401, `{"error":"invalid_client","error_description":"marker-secret"}`),
	"failing":                         caddytest.Says(500, `marker-password`),
	"the client's secret as an error": caddytest.Says(401, `{"error":"no_marker-secret_please"}`),
	"a token as an error":             caddytest.Says(400, `{"error":"marker-new-token","access_token":"Marker-New-Token"}`),
	"the device as an error":          caddytest.Says(403, `{"error":"marker-device"}`),
	"the home as an error":            caddytest.Says(400, `{"error":"marker-household"}`),
	"patience": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "marker-user")
		caddytest.Says(429, `marker-password`)(w, r)
	},
	"a redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/?marker-password", http.StatusTemporaryRedirect)
	},
	"an odd header": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Marker-User", "marker-password")
		caddytest.Says(403, "")(w, r)
	},
	"no HTTP":           raw("marker-password\r\n\r\n"),
	"a broken status":   raw("HTTP/1.1 marker-password\r\n\r\n"),
	"a broken header":   raw("HTTP/1.1 200 OK\r\nmarker password: marker-password\r\n\r\n"),
	"a broken encoding": raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\nmarker-password"),
	"more than said":    raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}marker-new-token"),
	"cut":               raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"access_token\":\"marker-new-token\""),
}

// raw answers with these bytes.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

// Every call in every mode with every answer, with all that an operator can switch on to see more: a secret in none
// of it.
func TestNothingSecretGetsOut(t *testing.T) {
	received := collect(t)
	secret := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, secret, "marker-secret")
	calls := [][2]string{
		{"getDeviceAuthToken", "upgrade.xml"}, {"getDeviceAuthToken", "login-token.xml"}, {"getDeviceAuthToken", "session-id.xml"},
		{"getDeviceAuthToken", "anonymous.xml"}, {"getDeviceAuthToken", "forward-two-logins.xml"}, {"getDeviceAuthToken", "forward-poll-with-login.xml"},
		{"getDeviceAuthToken", "login-token-in-authorization.xml"},
		{"getSessionId", "get-session-id.xml"}, {"refreshAuthToken", "refresh-auth-token.xml"}, {"refreshAuthToken", "ambiguous-refresh-two-tokens.xml"},
	}
	seen, ofVaults := map[string]bool{}, []string(nil)
	for _, mode := range []string{"upgrade", "observe", "reauthorize", withVaultOn} {
		for name, answers := range leakyAnswers {
			mode, kept := strings.CutSuffix(mode, " with a vault")
			if mode != "upgrade" && name != "issued" {
				continue // nobody is asked
			}
			keys, vaultOn := "", ""
			if kept {
				keys = caddytest.VaultFile(t)
				vaultOn = "vault " + keys
			}
			var seed sync.Once // whose tokens are the vault's before the endpoint answers like this
			endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				answer := answers
				if kept {
					seed.Do(func() { answer = leakyAnswers["issued"] })
				}
				answer(w, r)
			})
			storage := t.TempDir()
			o := caddytest.OperateOn(t, storage, "tracing {\nspan request\n}\n"+strings.NewReplacer("the-secret", "{file."+secret+"}", "the-id", name+mode).Replace(
				strings.Replace(caddytest.Directive(endpoint, caddytest.OldService(t), "mode "+mode, `expire_session_ids
				refresh_auth_tokens
				`+vaultOn+`
				failed_logins 1 1m
				header X-Home {smapi.household_id}
				header X-Device {smapi.device_id}
				param home {smapi.household_id}
				exchange login
				exchange session_id urn:example:session {
					param session {smapi.session_id}
				}
				exchange login_token urn:example:token {
					param token {smapi.token}
					param key {smapi.key}
				}
				exchange anonymous urn:example:anonymous`), "client_id the-id", `client_id "the-id"`, 1)))
			var secrets, sent = []string(nil), []*http.Request(nil)
			if kept {
				authToken, handle := caddytest.TokensOf(o.Post(t, caddytest.Tries(t, "marker-seed", "marker-password", "marker-household")))
				if !strings.HasPrefix(handle, "smv1") {
					t.Fatalf("%s: the handle is %q", name, handle)
				}
				secrets = append(keysOf(t, keys), handle)
				ofVaults = append(ofVaults, secrets...)
				for _, held := range []string{"marker-before", authToken} { // answered by the record, and by the endpoint
					r := o.Request(t, bytes.ReplaceAll(bytes.ReplaceAll(marked(t, "refresh-auth-token.xml"),
						[]byte("marker-old-token"), []byte(held)), []byte("marker-old-key"), []byte(handle)))
					r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
					sent = append(sent, r)
				}
			}
			for _, call := range calls {
				r := o.Request(t, marked(t, call[1]))
				r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+call[0]+`"`)
				sent = append(sent, r)
			}
			for i := range refusedAccounts[name] { // which blow the fuse, and are guarded when they come again
				for _, password := range []string{"marker-password", "marker-other"} {
					sent = append(sent, o.Request(t, caddytest.Tries(t, fmt.Sprint("marker-user-", i), password, "marker-household")))
				}
			}
			for _, r := range sent {
				r.Header.Set("Authorization", "Bearer marker-header-token") // which Caddy's access log redacts
				got := o.Do(t, r)
				if got.Status == http.StatusInternalServerError {
					checkNoMarker(t, name+", a fault", got.Body)
				}
				for _, values := range got.Header {
					checkNoMarker(t, name+", a header", values...)
				}
			}
			log := o.Log(t)
			if !strings.Contains(log, "handled request") || !strings.Contains(log, `"level":"debug"`) {
				t.Fatal("there is no log") // which would prove nothing
			}
			for _, line := range append(answeredLines(log), observedLines(log)...) {
				for _, o := range outcomes {
					seen[o] = seen[o] || strings.Contains(line, `"outcome":"`+o+`"`)
				}
			}
			checkNoMarker(t, name+", the log", log)
			checkHasNone(t, name+", the log", log, secrets)
			for _, path := range []string{"/metrics", "/config/", "/smapi_upgrade/status", "/smapi_upgrade/ready", "/smapi_upgrade/page.json"} {
				got := o.Admin.Get(t, path)
				if got.Status != http.StatusOK || len(got.Body) < 10 {
					t.Fatalf("%s: %+v", path, got)
				}
				checkNoMarker(t, name+", "+path, got.Body)
				checkHasNone(t, name+", "+path, got.Body, secrets)
			}
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			if kinds := checkStorage(t, storage, secrets); kept && (kinds["records"] == 0 || kinds["history"] == 0) || !kept && len(kinds) > 0 {
				t.Errorf("%s: the storage has %v", name, kinds)
			}
			if kept {
				history := historyIn(t, storage, keys)
				checkNoMarker(t, name+", the history", history)
				checkHasNone(t, name+", the history", history, secrets)
			}
		}
	}
	for _, o := range outcomes {
		if !seen[o] {
			t.Errorf("no call was %s", o)
		}
	}
	received.mu.Lock()
	defer received.mu.Unlock()
	if len(received.all) == 0 {
		t.Fatal("there are no spans")
	}
	checkNoMarker(t, "the spans", received.raw.String())
	checkHasNone(t, "the spans", received.raw.String(), ofVaults)
}

const withVaultOn = "upgrade with a vault"

// keysOf are the keys in a key file.
func keysOf(t testing.TB, path string) (keys []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []struct{ K string } }
	if err := json.Unmarshal(text, &set); err != nil || len(set.Keys) == 0 {
		t.Fatal(err)
	}
	for _, key := range set.Keys {
		keys = append(keys, key.K)
	}
	return keys
}

func checkHasNone(t testing.TB, where, text string, secrets []string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s has the handle or a key of the vault", where)
		}
	}
}

// checkStorage reads every name and byte of a storage. It returns how many files a vault has in each of its folders.
func checkStorage(t testing.TB, storage string, secrets []string) (kinds map[string]int) {
	t.Helper()
	kinds = map[string]int{}
	err := filepath.WalkDir(storage, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(storage, path)
		checkNoMarker(t, "a name in the storage", name)
		checkHasNone(t, "a name in the storage", name, secrets)
		if entry.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		checkNoMarker(t, name, string(content))
		checkHasNone(t, name, string(content), secrets)
		if parts := strings.Split(filepath.ToSlash(name), "/"); parts[0] == "smapi_upgrade" {
			kinds[parts[2]]++
			if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return kinds
}

// historyIn is what an instance has kept of the calls, opened.
func historyIn(t testing.TB, storage, keyFile string) string {
	t.Helper()
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(storage, "smapi_upgrade", "*", "history", "*", "*.jwe"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	sealed, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	var content json.RawMessage
	if _, err := keys.OpenObject(sealed, &content); err != nil || !bytes.Contains(content, []byte(`"total":{`)) {
		t.Fatalf("%v: %s", err, content)
	}
	return string(content)
}

// refusedAccounts are how many accounts more call where every one is refused.
var refusedAccounts = map[string]int{"rejected": 30}

var outcomes = []string{"upgraded", "rejected", "doubted", "guarded", "unavailable", "misconfigured", "reauthorize", "expired", "refreshed", "observed"}

func observedLines(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "observed a call") {
			lines = append(lines, line)
		}
	}
	return lines
}

func checkNoMarker(t testing.TB, where string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if at := strings.Index(strings.ToLower(text), "marker"); at >= 0 {
			t.Errorf("%s: %s", where, text[max(0, at-200):min(len(text), at+60)])
		}
	}
}
