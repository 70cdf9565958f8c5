package command

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// httpCapture is a call as on the wire, with these headers.
func httpCapture(body []byte, headers ...string) []byte {
	return append([]byte(strings.Join(append([]string{"POST /smapi HTTP/1.1", "Host: smapi.example.com"}, headers...), "\r\n")+"\r\n\r\n"), body...)
}

const (
	xmlType = "Content-Type: text/xml; charset=utf-8"
	upgrade = `SOAPAction: "http://www.sonos.com/Services/1.1#getDeviceAuthToken"`
)

var markers = strings.NewReplacer(
	"testuser", "marker-user", "12345", "marker-password", "old-token", "marker-old-token", "old-key", "marker-old-key",
	"old-session", "marker-session", "Sonos_abc123", "marker-household", "00-0E-58-5B-06-D6:8", "marker-device",
)

func marked(t testing.TB, request string) []byte {
	t.Helper()
	return []byte(markers.Replace(string(caddytest.File(t, "requests", request))))
}

func length(body []byte) string { return fmt.Sprint("Content-Length: ", len(body)) }

func TestExplainSaysHowARequestIsDecided(t *testing.T) {
	call := marked(t, "upgrade.xml")
	capture := httpCapture(call, xmlType, upgrade, length(call))
	chunked := fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", len(call), call)
	handled := bytes.Replace(marked(t, "refresh-auth-token.xml"), []byte("marker-old-key"), []byte("smv1"+strings.Repeat("A", 43)), 1)
	handler := func(options string) []string {
		return []string{"smapi_upgrade https://auth.example.com/oauth2/token?key=marker {\nclient_id sonos-upgrade\nclient_secret {file./nonexistent/secret}\n" + options + "\n}"}
	}
	ofUpgradedHome := bytes.ReplaceAll(bytes.ReplaceAll(marked(t, "login-token.xml"), []byte("marker-old-token"), []byte("smv1.0123456789abcdefmarker")),
		[]byte("getDeviceAuthToken"), []byte("getMetadata"))
	const oldService = "refresh_auth_tokens\nvault /nonexistent/vault.json\nold_service session_id"
	for _, test := range []struct {
		name    string
		capture []byte
		config  []string
		args    string
		code    int
	}{
		{"envelope", call, nil, "", 0},
		{"request", capture, nil, "", 0},
		{"json", capture, handler("on_error 403 rejected"), "--json", 0},
		{"line-feeds", bytes.ReplaceAll(httpCapture(call, xmlType, upgrade), []byte("\r\n"), []byte("\n")), nil, "", 0},
		{"wrong-length", httpCapture(call, xmlType, upgrade, "Content-Length: 9"), nil, "", 0},
		{"no-number-as-length", httpCapture(call, xmlType, upgrade, "Content-Length: marker"), nil, "", 0},
		{"line-end-behind-it", append(bytes.Clone(capture), '\n'), nil, "", 0},
		{"http-2", bytes.Replace(capture, []byte("HTTP/1.1"), []byte("HTTP/2"), 1), nil, "", 0},
		{"chunked", httpCapture(chunked, xmlType, upgrade, "Transfer-Encoding: chunked"), nil, "", 0},
		{"chunked-in-name-only", httpCapture(call, xmlType, upgrade, "Transfer-Encoding: chunked"), nil, "", 0},

		{"get", []byte("GET /marker?marker HTTP/1.1\r\nHost: marker\r\nCookie: marker\r\n\r\n"), nil, "", 1},
		{"other-action", httpCapture(call, xmlType, `SOAPAction: "http://www.sonos.com/Services/1.1#getMetadata"`, length(call)), nil, "", 1},
		{"other-type", httpCapture(call, "Content-Type: application/soap+xml", length(call)), nil, "", 1},
		{"gzip", httpCapture(call, xmlType, "Content-Encoding: gzip", length(call)), nil, "", 1},
		{"large", httpCapture(bytes.Repeat(call, 200), xmlType, upgrade), nil, "", 1},
		{"poll", marked(t, "forward-poll.xml"), nil, "", 1},
		{"other-method", marked(t, "forward-get-metadata.xml"), nil, "", 1},
		{"two-logins", marked(t, "forward-two-logins.xml"), nil, "", 1},
		{"dtd", marked(t, "forward-dtd.xml"), nil, "", 1},
		{"utf-16", marked(t, "forward-utf-16.xml"), nil, "", 1},
		{"action-disagrees", httpCapture(marked(t, "refresh-auth-token.xml"), xmlType, upgrade), handler("refresh_auth_tokens"), "", 1},

		{"households", call, handler("households 0%"), "", 1},
		{"observe", call, handler("mode observe\non_rejected not_linked"), "", 1},
		{"reauthorize", call, handler("mode reauthorize"), "", 0},
		{"not-linked", call, handler("on_rejected not_linked\nprivate_key refresh_token none"), "", 0},
		{"no-exchange", marked(t, "anonymous.xml"), handler(""), "", 0},
		{"needs-reauth", marked(t, "login-token-needs-reauth.xml"), handler("exchange login_token {\nparam subject_token {smapi.token}\n}"), "", 0},
		{"no-proof", marked(t, "login-token-in-authorization.xml"), handler("exchange login_token {\nparam subject_token {smapi.token}\n}"), "", 1},
		{"session-expires", marked(t, "get-session-id.xml"), handler("expire_session_ids"), "", 0},
		{"session-waits", marked(t, "get-session-id.xml"), handler("expire_session_ids\nhouseholds 10%"), "", 1},
		{"session-without-option", marked(t, "get-session-id.xml"), handler(""), "", 1},
		{"refresh", marked(t, "refresh-auth-token.xml"), handler("refresh_auth_tokens"), "", 0},
		{"refresh-of-others", marked(t, "refresh-auth-token.xml"), handler("refresh_auth_tokens\nhouseholds 0%"), "", 0},
		{"refresh-without-option", marked(t, "refresh-auth-token.xml"), handler(""), "", 1},
		{"refresh-by-handle", handled, handler("refresh_auth_tokens\nvault /nonexistent/vault.json"), "", 0},
		{"refresh-by-handle-without-vault", handled, handler("refresh_auth_tokens"), "", 0},
		{"refresh-in-reauthorize", marked(t, "refresh-auth-token.xml"), handler("refresh_auth_tokens\nmode reauthorize"), "", 1},

		{"get-app-link", marked(t, "sign-in-get-app-link.xml"), handler("scope offline_access\nparam tenant {smapi.household_id}\nsign_in {\ndevice_endpoint https://auth.example.com/device\napp_url_string_id SIGN_IN\n}"), "", 0},
		{"get-app-link-without-option", marked(t, "sign-in-get-app-link.xml"), handler(""), "", 1},
		{"poll-of-sign-in", marked(t, "sign-in-poll.xml"), handler("sign_in {\ndevice_endpoint https://auth.example.com/device\napp_url_string_id SIGN_IN\n}"), "", 1},
		{"placeholder-without-value", call, handler("scope {env.SMAPI_NOT_SET}"), "", 0},
		{"key-that-is-not-read", call, []string{"smapi_upgrade {\nissuer https://auth.example.com\nclient_id sonos-upgrade\nclient_auth private_key_jwt\nclient_key /nonexistent/key.pem\n}"}, "", 0},
		{"own-grant", call, []string{`smapi_upgrade {
			issuer https://example.auth0.com/
			client_id sonos-upgrade
			client_secret marker
			client_auth post
			param audience marker
			header auth0-forwarded-for {client_ip}
			header x-app marker
			exchange login http://auth0.com/oauth/grant-type/password-realm {
				param username {smapi.username}
				param password {smapi.password}
				param realm marker
				on_error unauthorized rejected
			}
		}`}, "", 0},
		{"old-service", httpCapture(ofUpgradedHome, xmlType, `SOAPAction: "http://www.sonos.com/Services/1.1#getMetadata"`, length(ofUpgradedHome)),
			handler(oldService), "", 0},
		{"old-service-refused", httpCapture(append(bytes.Clone(ofUpgradedHome), '<'), xmlType), handler(oldService), "", 0},
		{"several", call, append(handler("households 0%"), "handle /smapi* {\n"+handler("")[0]+"\n}"), "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			path, line := filepath.Join(t.TempDir(), "capture"), "explain capture"
			caddytest.Write(t, path, string(test.capture))
			args := append([]string{"explain", path}, strings.Fields(test.args)...)
			if test.config != nil {
				args = append(args, "--config", configFile(t, test.config...))
				line += " --config Caddyfile"
			}
			checkSession(t, here(t, nil, args...), test.code, "explain-"+test.name, strings.TrimSpace(line+" "+test.args))
		})
	}
}

// What is explained is what happens.
func TestExplainAgreesWithWhatIsServed(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(caddytest.Testdata, "requests", "*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	config := caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t),
		"expire_session_ids\nrefresh_auth_tokens\nexchange login\nexchange login_token {\nparam subject_token {smapi.token}\n}")
	url, path := caddyRun(t, "admin off", config), configFile(t, config)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.Post(url, "text/xml; charset=utf-8", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			forwarded := response.StatusCode == http.StatusTeapot
			got := here(t, strings.NewReader(markers.Replace(string(body))), "explain", "-", "--config", path)
			session(t, got, "explain")
			if got.code > 1 || forwarded != (got.code == 1) {
				t.Errorf("forwarded is %v, exit status %d: %s%s", forwarded, got.code, got.stdout, got.stderr)
			}
		})
	}
}

func TestExplainRefusesWhatItCannotRead(t *testing.T) {
	capture := filepath.Join(caddytest.Testdata, "requests", "upgrade.xml")
	config := configFile(t, "smapi_upgrade {\nmode observe\n}")
	for _, test := range []struct{ args, stdin, says string }{
		{"", "", "it takes one file"},
		{"a b", "", "it takes one file"},
		{"/nonexistent/capture", "", "no such file"},
		{"-", "", "neither an HTTP request"},
		{"-", "marker-password", "neither an HTTP request"},
		{"-", "HTTP/1.1 200 OK\r\n\r\nmarker", "neither an HTTP request"},
		{"-", "POST / HTTP/1.1\r\nmarker marker\r\n\r\n", "neither an HTTP request"},
		{"- --config -", "", "either the request or the configuration"},
		{"--adapter caddyfile " + capture, "", "--adapter is for"},
		{"--config /nonexistent/Caddyfile " + capture, "", "no such file"},
		{"--config " + configFile(t, "respond ok") + " " + capture, "", "no smapi_upgrade in the configuration"},
		{"--config " + config + " --adapter marker- " + capture, "", "adapter"},
		{"--what " + capture, "", "unknown flag"},
	} {
		got := here(t, strings.NewReader(test.stdin), append([]string{"explain"}, strings.Fields(test.args)...)...)
		if got.code != 2 || got.stdout != "" || !strings.Contains(unwrapped(got.stderr), test.says) || strings.Contains(got.stderr, "marker") != strings.Contains(test.args, "marker") {
			t.Errorf("%s: exit status %d, %s%s", test.args, got.code, got.stdout, got.stderr)
		}
	}
}
