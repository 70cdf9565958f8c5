package caddymodule_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// What varies from one run of a command to another.
var variable = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`(127\.0\.0\.1|localhost):\d+`), "localhost:9000"},
	{regexp.MustCompile(`[0-9.]+m?s, of`), "100ms, of"},
	{regexp.MustCompile(`"seconds": [0-9.e-]+`), `"seconds": 0.1`},
	{regexp.MustCompile(`(valid until )\d{4}-\d\d-\d\d`), "${1}2030-01-01"},
	{regexp.MustCompile(`(ours is )\d+m\d+s`), "${1}2m0s"},
	{regexp.MustCompile(`/tmp/[^ :]*/`), "/tmp/"},
}

// checkCommanded compares what a command has printed with a recorded session, and holds that it shows no secret.
func checkCommanded(t *testing.T, got commanded, code int, name, line string) {
	t.Helper()
	if got.code != code {
		t.Errorf("the exit code is %d, want %d", got.code, code)
	}
	out := got.stdout + got.stderr
	if strings.Contains(strings.ToLower(out), "marker") {
		t.Errorf("it shows a secret: %s", out)
	}
	if strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("it has control characters for a pipe: %q", out)
	}
	for line := range strings.Lines(got.stdout) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 && !strings.Contains(line, `": "`) {
			t.Errorf("a line of more than 80 columns: %s", line)
		}
	}
	text := fmt.Sprintf("$ caddy smapi-upgrade %s\n%s%s[exit status %d]\n", line, got.stderr, got.stdout, got.code)
	for _, v := range variable {
		text = v.is.ReplaceAllString(text, v.as)
	}
	recorded(t, []byte(text), filepath.Join(testdata, "commands", name+".txt"))
}

// configFile writes a Caddyfile of sites that are never served.
func configFile(t testing.TB, sites ...string) string {
	t.Helper()
	text := fmt.Sprintf("{\nadmin off\nstorage file_system %s\n}\n", t.TempDir())
	for i, directives := range sites {
		text += fmt.Sprintf("http://site%d.example.com {\n%s\n}\n", i+1, directives)
	}
	path := filepath.Join(t.TempDir(), "Caddyfile")
	write(t, path, text)
	return path
}

// testAccount is the account that is right, as a line of each kind.
var testAccount = map[string]string{
	"login": "marker-user\tmarker-password\n", "session_id": "marker-session\n", "login_token": "marker-old-token\tmarker-old-key\n",
}

// knows is a token endpoint that issues tokens for the test account alone, and says something else to others.
func knows(issues, otherwise http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		if strings.HasPrefix(form.Get("password")+form.Get("subject_token")+form.Get("refresh_token"), "marker-") {
			issues(w, r)
			return
		}
		otherwise(w, r)
	}
}

var (
	rejects = says(400, `{"error":"invalid_grant","error_description":"marker-password"}`)
	issues  = says(200, `{"access_token":"marker-new-token","refresh_token":"marker-new-key"}`)
)

// dated answers with a clock that is apart.
func dated(apart time.Duration, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(apart).UTC().Format(http.TimeFormat))
		answer(w, r)
	}
}

func TestCheckSaysWhetherItWouldWorkForPlayers(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "marker-secret")
	_, key := newKey(t)
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	write(t, keyFile, key)
	byFile := "client_id the-id\nclient_secret {file." + secret + "}\n"
	byKey := "client_id the-id\nclient_auth private_key_jwt\nclient_key " + keyFile + "\n"
	tokens := func(accessToken string) http.HandlerFunc {
		return knows(says(200, `{"access_token":"`+accessToken+`","refresh_token":"marker-new-key"}`), rejects)
	}
	for _, test := range []struct {
		name     string
		endpoint http.HandlerFunc
		options  string
		args     string
		code     int
		posts    int
	}{
		{"well", knows(issues, rejects), byFile, "", 0, 2},
		{"json", knows(issues, rejects), byFile, "--refresh --json", 0, 3},
		{"refresh", knows(issues, rejects), byFile + "refresh_auth_tokens\n", "--refresh", 0, 3},
		{"refresh-dead", knows(says(200, `{"access_token":"t","refresh_token":"used-up"}`), rejects), byFile + "refresh_auth_tokens\n", "--refresh", 3, 3},
		{"literal-secret", knows(issues, rejects), "client_id the-id\nclient_secret marker-secret\n", "", 1, 2},
		{"wrong-secret", says(401, `{"error":"invalid_client","error_description":"marker-secret"}`), byFile, "", 3, 1},
		{"rejected", rejects, byFile, "", 3, 1},
		{"not-linked", knows(issues, rejects), byFile + "on_rejected not_linked\n", "", 0, 2},
		{"bare-403", knows(issues, says(403, `{"message":"marker-password"}`)), byFile, "", 1, 2},
		{"on-error", knows(issues, says(403, `{"message":"marker-password"}`)), byFile + "on_error 403 rejected\n", "", 0, 2},
		{"client-blamed", knows(issues, says(401, `{"error":"invalid_client"}`)), byFile, "", 1, 2},
		{"own-error", knows(issues, says(400, `{"error":"account_locked"}`)), byFile, "", 1, 2},
		{"accepts-all", issues, byFile, "", 3, 2},
		{"long-tokens", tokens(strings.Repeat("x", 2049)), byFile, "", 3, 2},
		{"longest-tokens", tokens(strings.Repeat("x", 2048)), byFile, "", 0, 2},
		{"no-refresh-token", knows(says(200, `{"access_token":"marker-new-token"}`), rejects), byFile, "", 3, 2},
		{"fallback", knows(says(200, `{"access_token":"marker-new-token"}`), rejects), byFile + "private_key refresh_token none\n", "--refresh", 1, 2},
		{"clock", dated(2*time.Minute, knows(issues, rejects)), byFile, "", 1, 2},
		{"clock-of-assertions", dated(-2*time.Minute, knows(issues, rejects)), byKey, "", 3, 2},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/marker", http.StatusTemporaryRedirect)
		}, byFile, "", 3, 1},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, byFile + "timeout 2s\n", "", 3, 1},
		{"session-id", knows(issues, rejects), byFile + "exchange session_id {\nparam subject_token {smapi.session_id}\n}\n", "--credentials session_id", 0, 2},
		{"login-token", knows(issues, rejects), byFile + "exchange login_token {\nparam subject_token {smapi.token}\n}\n", "--credentials login_token", 0, 2},
		{"anonymous", issues, byFile + "exchange anonymous urn:x:household {\nparam household {smapi.household_id}\n}\n", "--credentials anonymous", 0, 1},
		{"needs-reauth", issues, byFile + "exchange login_token {\nparam subject_token {smapi.token}\n}\n", "--credentials login_token", 3, 0},
		{"no-exchange", issues, byFile, "--credentials session_id", 2, 0},
		{"observe", knows(issues, rejects), byFile + "mode observe\nhouseholds 0%\nreplay 10m\n", "", 0, 2},
		{"reauthorize", knows(issues, rejects), byFile + "mode reauthorize\n", "", 0, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint := serve(t, test.endpoint)
			config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token?key=marker {\n%s}", endpoint.URL, test.options))
			args := append([]string{"check", "--config", config, "--yes"}, strings.Fields(test.args)...)
			kind := "login"
			if _, k, ok := strings.Cut(test.args, "--credentials "); ok {
				kind = k
			}
			account := testAccount[kind]
			if test.name == "needs-reauth" {
				account = "needs_reauth\tmarker-old-key\n"
			}
			got := smapiUpgrade(t, strings.NewReader(account), args...)
			checkCommanded(t, got, test.code, "check-"+test.name, strings.TrimSpace("check --yes "+test.args))
			if n := len(endpoint.asked()); n != test.posts {
				t.Errorf("the endpoint was asked %d times, want %d", n, test.posts)
			}
		})
	}
}

func TestCheckTriesARealServer(t *testing.T) {
	t.Parallel()
	secret, account := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "account.tsv")
	write(t, secret, "the-secret")
	write(t, account, testAccount["login"])
	oauth := oauthServer(t, map[string]string{"marker-user": "marker-password"})
	config := func(secret string) string {
		return configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth basic_raw\nclient_secret {file.%s}\n}", oauth.URL, secret))
	}
	got := smapiUpgrade(t, nil, "check", "--config", config(secret), "--from", account, "--refresh", "--yes")
	checkCommanded(t, got, 0, "check-real-server", "check --from account.tsv --refresh --yes")
	if n := len(oauth.asked()); n != 3 {
		t.Errorf("%d POSTs", n)
	}
	other := filepath.Join(t.TempDir(), "secret")
	write(t, other, "marker-secret")
	got = smapiUpgrade(t, nil, "check", "--config", config(other), "--from", account, "--yes")
	checkCommanded(t, got, 3, "check-real-server-wrong-secret", "check --from account.tsv --yes")
	if n := len(oauth.asked()); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

func TestCheckFindsTheEndpointByItsIssuer(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{"issuer": "/.well-known/openid-configuration", "issuer-without-metadata": "/elsewhere"} {
		var auth *server
		auth = serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case path:
				fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, auth.URL, auth.URL+"/oauth2/token")
			case "/oauth2/token":
				knows(issues, rejects)(w, r)
			default:
				http.NotFound(w, r)
			}
		})
		code := 0
		if name != "issuer" {
			code = 3
		}
		config := configFile(t, fmt.Sprintf("smapi_upgrade {\nissuer %s\nclient_id the-id\nclient_auth none\n}", auth.URL))
		got := smapiUpgrade(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes", "--endpoint", auth.URL)
		checkCommanded(t, got, code, "check-"+name, "check --yes --endpoint http://localhost:9000")
	}
}

// validFor is the certificate of a server on loopback that ends after so long.
func validFor(t testing.TB, life time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestCheckLooksAtTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(knows(issues, rejects))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{validFor(t, 100*24*time.Hour+time.Hour)}}
	s.StartTLS()
	defer s.Close()
	cert, _ := pemFiles(t, s)
	for name, test := range map[string]struct {
		transport string
		code      int
	}{
		"tls":            {fmt.Sprintf("transport http {\ntls_trust_pool file %s\n}\n", cert), 0},
		"tls-untrusted":  {"", 3},
		"tls-unverified": {"transport http {\ntls_insecure_skip_verify\n}\n", 1},
	} {
		config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n%s}", s.URL, test.transport))
		got := smapiUpgrade(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
		checkCommanded(t, got, test.code, "check-"+name, "check --yes")
	}
}

func TestCheckTriesAnEndpointThatIsDownOnlyOnce(t *testing.T) {
	t.Parallel()
	config := configFile(t, fmt.Sprintf("smapi_upgrade http://%s/token {\nclient_id the-id\nclient_auth none\n}", deadAddress(t)))
	got := smapiUpgrade(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
	checkCommanded(t, got, 3, "check-down", "check --yes")
}

func TestCheckTriesEveryHandlerOnceAndNoneTwice(t *testing.T) {
	t.Parallel()
	one, two := serve(t, knows(issues, rejects)), serve(t, knows(issues, says(500, "")))
	handler := func(s *server, more string) string {
		return fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n%s}", s.URL, more)
	}
	config := configFile(t, handler(one, ""), "handle /smapi* {\n"+handler(two, "")+"\n}", handler(one, "households 10%\n"),
		"smapi_upgrade {\nmode reauthorize\n}", "smapi_upgrade {\nmode observe\n}")
	got := smapiUpgrade(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
	checkCommanded(t, got, 1, "check-several", "check --yes")
	if a, b := len(one.asked()), len(two.asked()); a != 2 || b != 2 {
		t.Errorf("%d and %d POSTs", a, b)
	}
	got = smapiUpgrade(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes", "--endpoint", one.URL+"/token")
	if a, b := len(one.asked()), len(two.asked()); got.code != 0 || a != 2 || b != 0 {
		t.Errorf("exit status %d, %d and %d POSTs", got.code, a, b)
	}
}

func TestCheckRefusesWhatItCannotDoAndAsksNobody(t *testing.T) {
	t.Parallel()
	endpoint := serve(t, issues)
	config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n}", endpoint.URL))
	unreadable := configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_secret {file./nonexistent/secret}\n}", endpoint.URL))
	for _, test := range []struct{ args, stdin, says string }{
		{"--config " + config, testAccount["login"], "add --yes"},
		{"--config " + config + " --yes", "", "there has to be one account, not 0"},
		{"--config " + config + " --yes", testAccount["login"] + testAccount["login"], "there has to be one account, not 2"},
		{"--config " + config + " --yes", "marker-user marker-password", "line 1 has to be two values"},
		{"--config " + config + " --yes --from /nonexistent/account", "", "no such file"},
		{"--config " + config + " --yes --credentials password", "", "has to be login, session_id, login_token or anonymous"},
		{"--config " + config + " --yes --endpoint https://auth.example.com", "", "has the token endpoint or issuer of --endpoint"},
		{"--config " + config + " --yes user", "", "must not be on the command line"},
		{"--config - --yes", "", "either the account or the configuration"},
		{"--adapter caddyfile --yes", "", "--adapter is for"},
		{"--config /nonexistent/Caddyfile --yes", "", "no such file"},
		{"--yes", "", "no Caddyfile in this directory"},
		{"--config " + configFile(t, "respond ok") + " --yes", "", "no smapi_upgrade in the configuration"},
		{"--config " + unreadable + " --yes", testAccount["login"], "the file /nonexistent/secret cannot be read"},
	} {
		got := smapiUpgrade(t, strings.NewReader(test.stdin), append([]string{"check"}, strings.Fields(test.args)...)...)
		if got.code != 2 || got.stdout != "" || !strings.Contains(got.stderr, test.says) || strings.Contains(got.stderr, "marker") {
			t.Errorf("%s: exit status %d, %s%s", test.args, got.code, got.stdout, got.stderr)
		}
	}
	if n := len(endpoint.asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

func TestCheckWritesNoFileAndNoLog(t *testing.T) {
	t.Parallel()
	endpoint, log := serve(t, knows(issues, rejects)), filepath.Join(t.TempDir(), "log")
	config := configFile(t, fmt.Sprintf("log {\noutput file %s\n}\nsmapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n}", log, endpoint.URL))
	got := smapiUpgrade(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
	if got.code != 0 || strings.Contains(got.stderr, "{") {
		t.Errorf("exit status %d, %s", got.code, got.stderr)
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("the log was opened")
	}
}
