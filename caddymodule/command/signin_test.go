package command

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/sandbox/authserver"
)

const deviceCode = `{"device_code":"marker-device-code","user_code":"ABCD-EFGH","verification_uri":"https://auth.example.com/device",` +
	`"verification_uri_complete":"https://auth.example.com/device?user_code=ABCD-EFGH","expires_in":600,"interval":5}`

func TestCheckPlaysAWholeSignIn(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, secret, "marker-secret")
	for _, test := range []struct {
		name  string
		code  http.HandlerFunc
		polls http.HandlerFunc
		args  string
		exit  int
	}{
		{"linked", caddytest.Says(200, deviceCode), issues, "", 0},
		{"json", caddytest.Says(200, deviceCode), issues, "--json", 0},
		{"refused", caddytest.Says(200, deviceCode), caddytest.Says(403, `{"error":"access_denied"}`), "", 3},
		{"no-refresh-token", caddytest.Says(200, deviceCode), caddytest.Says(200, `{"access_token":"marker-new-token"}`), "", 3},
		{"not-allowed", caddytest.Says(400, `{"error":"unauthorized_client"}`), issues, "", 3},
		{"long-code", caddytest.Says(200, strings.Replace(deviceCode, `"ABCD-EFGH"`, `"`+strings.Repeat("x", 33)+`"`, 1)), issues, "", 3},
		{"no-endpoint", caddytest.Says(404, "<html>"), issues, "", 3},
		{"old-service", caddytest.Says(200, deviceCode), issues, "", 3},
		{"with-account", caddytest.Says(200, deviceCode), issues, "--from account.tsv", 2},
		{"without-option", nil, issues, "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/device") {
					test.code(w, r)
					return
				}
				test.polls(w, r)
			})
			option := fmt.Sprintf("sign_in {\ndevice_endpoint %s/device\napp_url_string_id SIGN_IN\n}\n", endpoint.URL)
			switch {
			case test.code == nil:
				option = ""
			case test.name == "old-service":
				option += "refresh_auth_tokens\nvault " + caddytest.VaultFile(t) + "\nold_service session_id\n"
			}
			config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_secret {file.%s}\n%s}", endpoint.URL, secret, option))
			got := here(t, nil, append([]string{"check", "--config", config, "--sign-in"}, strings.Fields(test.args)...)...)
			checkSession(t, got, test.exit, "check-sign-in-"+test.name, strings.TrimSpace("check --sign-in "+test.args))
		})
	}
}

func TestCheckSignsInAtARealServer(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, secret, "the-secret")
	handler, err := authserver.New("the-id", "the-secret", map[string]string{"marker-user": "marker-password"})
	if err != nil {
		t.Fatal(err)
	}
	oauth := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if r.URL.Path == authserver.DevicePath { // and the listener signs in at once
			var given struct {
				UserCode string `json:"user_code"`
			}
			if err := json.Unmarshal(answer.Body.Bytes(), &given); err != nil {
				t.Error(err)
			}
			form := url.Values{"user_code": {given.UserCode}, "username": {"marker-user"}, "password": {"marker-password"}}
			page := httptest.NewRequest(http.MethodPost, authserver.PagePath, strings.NewReader(form.Encode()))
			page.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			handler.ServeHTTP(httptest.NewRecorder(), page)
		}
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
	config := configFile(t, fmt.Sprintf("smapi_upgrade %[1]s/token {\nclient_id the-id\nclient_auth basic_raw\nclient_secret {file.%[2]s}\n"+
		"sign_in {\ndevice_endpoint %[1]s%[3]s\napp_url_string_id SIGN_IN\n}\n}", oauth.URL, secret, authserver.DevicePath))
	got := here(t, nil, "check", "--config", config, "--sign-in")
	if got.code != 0 || !strings.Contains(got.stdout, "linked") || !strings.Contains(got.stderr, "/sign-in?user_code=") {
		t.Errorf("%d: %s%s", got.code, got.stdout, got.stderr)
	}
}

func TestSimulatePlaysAListenerWhoSignsIn(t *testing.T) {
	link := smapi.Link{URL: "https://auth.example.com/device?user_code=ABCD-EFGH", Code: "ABCD-EFGH", Show: true, DeviceID: "marker-sealed"}
	fault := func(w http.ResponseWriter, f smapi.Fault) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write(f.Envelope("ABCDEFGH"))
	}
	for _, test := range []struct {
		name  string
		polls func(http.ResponseWriter)
		args  string
		exit  int
	}{
		{"linked", func(w http.ResponseWriter) { _, _ = w.Write(smapi.SignedIn("marker-new-token", "marker-new-key", "")) }, "", 0},
		{"json", func(w http.ResponseWriter) { _, _ = w.Write(smapi.SignedIn("marker-new-token", "marker-new-key", "")) }, "--json", 0},
		{"refused", func(w http.ResponseWriter) { fault(w, smapi.LinkFailed) }, "", 1},
		{"blank", func(w http.ResponseWriter) { _, _ = w.Write(smapi.Pair(smapi.GetDeviceAuthToken, "", "")) }, "", 3},
		{"no-link", nil, "", 3},
		{"with-accounts", nil, "--accounts 7", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			site := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case test.polls == nil:
					fault(w, smapi.Fault{Code: "Server.ServiceUnknownError", Text: "marker"})
				case strings.Contains(r.Header.Get("SOAPAction"), "getAppLink"):
					_, _ = w.Write(smapi.AppLink(&link, "SIGN_IN"))
				default:
					test.polls(w)
				}
			})
			got := here(t, nil, append([]string{"simulate", site.URL, "--sign-in"}, strings.Fields(test.args)...)...)
			checkSession(t, got, test.exit, "simulate-sign-in-"+test.name, strings.TrimSpace("simulate http://localhost:9000 --sign-in "+test.args))
		})
	}
}
