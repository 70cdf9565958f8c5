package command

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/sandbox/authserver"
)

// testAccount is the account that is right, as a line of each kind.
var testAccount = map[string]string{
	"login": "marker-user\tmarker-password\n", "session_id": "marker-session\n", "login_token": "marker-old-token\tmarker-old-key\n",
}

// ofClient is a token endpoint that refuses a client with a wrong secret.
func ofClient(otherwise http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, secret, ok := r.BasicAuth(); ok && secret != "marker-secret" {
			caddytest.Says(401, `{"error":"invalid_client"}`)(w, r)
			return
		}
		otherwise(w, r)
	}
}

// knowsClient is knows, and says something of its own to a client with a wrong secret.
func knowsClient(issues, otherwise, ofClient http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, secret, _ := r.BasicAuth(); secret != "marker-secret" {
			ofClient(w, r)
			return
		}
		knows(issues, otherwise)(w, r)
	}
}

// knows is a token endpoint that issues tokens for the test account alone, and says something else to others.
func knows(issues, otherwise http.HandlerFunc) http.HandlerFunc {
	return ofClient(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		if strings.HasPrefix(form.Get("password")+form.Get("subject_token")+form.Get("refresh_token"), "marker-") {
			issues(w, r)
			return
		}
		otherwise(w, r)
	})
}

var (
	rejects = caddytest.Says(400, `{"error":"invalid_grant","error_description":"marker-password"}`)
	issues  = caddytest.Says(200, `{"access_token":"marker-new-token","refresh_token":"marker-new-key"}`)
)

// dated answers with a clock that is apart.
func dated(apart time.Duration, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(apart).UTC().Format(http.TimeFormat))
		answer(w, r)
	}
}

func TestCheckSaysWhetherItWouldWorkForPlayers(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, secret, "marker-secret")
	keyFile := caddytest.Write(t, filepath.Join(t.TempDir(), "key.pem"), pemOf(t, newKey(t)))
	byFile := "client_id the-id\nclient_secret {file." + secret + "}\n"
	byKey := "client_id the-id\nclient_auth private_key_jwt\nclient_key " + keyFile + "\n"
	tokens := func(accessToken string) http.HandlerFunc {
		return knows(caddytest.Says(200, `{"access_token":"`+accessToken+`","refresh_token":"marker-new-key"}`), rejects)
	}
	for _, test := range []struct {
		name     string
		endpoint http.HandlerFunc
		options  string
		args     string
		code     int
		posts    int
	}{
		{"well", knows(issues, rejects), byFile, "", 0, 3},
		{"json", knows(issues, rejects), byFile, "--refresh --json", 0, 4},
		{"refresh", knows(issues, rejects), byFile + "refresh_auth_tokens\n", "--refresh", 0, 4},
		{"refresh-dead", knows(caddytest.Says(200, `{"access_token":"t","refresh_token":"used-up"}`), rejects), byFile + "refresh_auth_tokens\n", "--refresh", 3, 4},
		{"literal-secret", knows(issues, rejects), "client_id the-id\nclient_secret marker-secret\n", "", 1, 3},
		{"wrong-secret", caddytest.Says(401, `{"error":"invalid_client","error_description":"marker-secret"}`), byFile, "", 3, 1},
		{"rejected", rejects, byFile, "", 3, 1},
		{"not-linked", knows(issues, rejects), byFile + "on_rejected not_linked\n", "", 0, 3},
		{"bare-403", knows(issues, caddytest.Says(403, `{"message":"marker-password"}`)), byFile, "", 1, 3},
		{"on-error", knows(issues, caddytest.Says(403, `{"message":"marker-password"}`)), byFile + "on_error 403 rejected\n", "", 0, 3},
		{"client-blamed", knows(issues, caddytest.Says(401, `{"error":"invalid_client"}`)), byFile, "", 1, 3},
		{"own-error", knows(issues, caddytest.Says(400, `{"error":"account_locked"}`)), byFile, "", 1, 3},
		{"accepts-all", issues, byFile, "", 3, 3},
		{"long-tokens", tokens(strings.Repeat("x", 2049)), byFile, "", 3, 3},
		{"longest-tokens", tokens(strings.Repeat("x", 2048)), byFile, "", 0, 3},
		{"no-refresh-token", knows(caddytest.Says(200, `{"access_token":"marker-new-token"}`), rejects), byFile, "", 3, 3},
		{"fallback", knows(caddytest.Says(200, `{"access_token":"marker-new-token"}`), rejects), byFile + "private_key refresh_token none\n", "--refresh", 1, 3},
		{"clock", dated(2*time.Minute, knows(issues, rejects)), byFile, "", 1, 3},
		{"clock-of-assertions", dated(-2*time.Minute, knows(issues, rejects)), byKey, "", 3, 2},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/marker", http.StatusTemporaryRedirect)
		}, byFile, "", 3, 1},
		{"session-id", knows(issues, rejects), byFile + "exchange session_id {\nparam subject_token {smapi.session_id}\n}\n", "--credentials session_id", 0, 3},
		{"login-token", knows(issues, rejects), byFile + "exchange login_token {\nparam subject_token {smapi.token}\n}\n", "--credentials login_token", 0, 3},
		{"anonymous", ofClient(issues), byFile + "exchange anonymous urn:x:household {\nparam household {smapi.household_id}\n}\n", "--credentials anonymous", 0, 2},
		{"needs-reauth", issues, byFile + "exchange login_token {\nparam subject_token {smapi.token}\n}\n", "--credentials login_token", 3, 0},
		{"no-exchange", issues, byFile, "--credentials session_id", 2, 0},
		{"secret-is-rejection", knowsClient(issues, rejects, caddytest.Says(403, `{"error":"access_denied"}`)), byFile + "on_error access_denied rejected\n", "", 1, 3},
		{"vault", knows(issues, rejects), byFile + "refresh_auth_tokens\nvault " + caddytest.VaultFile(t) + "\n", "--refresh", 0, 4},
		{"observe", knows(issues, rejects), byFile + "mode observe\nhouseholds 0%\nreplay 10m\n", "", 0, 3},
		{"reauthorize", knows(issues, rejects), byFile + "mode reauthorize\n", "", 0, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint := caddytest.Serve(t, test.endpoint)
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
			got := here(t, strings.NewReader(account), args...)
			checkSession(t, got, test.code, "check-"+test.name, strings.TrimSpace("check --yes "+test.args))
			if n := len(endpoint.Asked()); n != test.posts {
				t.Errorf("the endpoint was asked %d times, want %d", n, test.posts)
			}
		})
	}
}

func TestCheckTriesTheStorageOfAVault(t *testing.T) {
	keys, account := caddytest.VaultFile(t), filepath.Join(t.TempDir(), "account.tsv")
	caddytest.Write(t, account, testAccount["login"])
	endpoint := caddytest.Serve(t, knows(issues, rejects))
	storage := filepath.Join(t.TempDir(), "storage")
	config := caddytest.Write(t, filepath.Join(t.TempDir(), "Caddyfile"), fmt.Sprintf("{\nadmin off\nstorage file_system %s\n}\nhttp://site.example.com {\n"+
		"smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\nrefresh_auth_tokens\nvault %s\n}\n}", storage, endpoint.URL, keys))
	check := func() commanded { return here(t, nil, "check", "--config", config, "--from", account, "--yes") }
	if got := check(); got.code != 0 || !strings.Contains(got.stdout, "its storage was locked, written to and read") {
		t.Errorf("got %+v", got)
	}
	err := filepath.WalkDir(storage, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil || os.RemoveAll(storage) != nil {
		t.Fatal(err)
	}
	caddytest.Write(t, storage, "no folder")
	if got := check(); got.code != 3 || !strings.Contains(got.stdout, "its storage does not work") {
		t.Errorf("got %+v", got)
	}
}

func TestCheckTriesARealServer(t *testing.T) {
	secret, account := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "account.tsv")
	caddytest.Write(t, secret, "the-secret")
	caddytest.Write(t, account, testAccount["login"])
	handler, err := authserver.New("the-id", "the-secret", map[string]string{"marker-user": "marker-password"})
	if err != nil {
		t.Fatal(err)
	}
	oauth := caddytest.Serve(t, handler.ServeHTTP)
	config := func(secret string) string {
		return configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth basic_raw\nclient_secret {file.%s}\n}", oauth.URL, secret))
	}
	got := here(t, nil, "check", "--config", config(secret), "--from", account, "--refresh", "--yes")
	checkSession(t, got, 0, "check-real-server", "check --from account.tsv --refresh --yes")
	if n := len(oauth.Asked()); n != 4 {
		t.Errorf("%d POSTs", n)
	}
	other := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, other, "marker-secret")
	got = here(t, nil, "check", "--config", config(other), "--from", account, "--yes")
	checkSession(t, got, 3, "check-real-server-wrong-secret", "check --from account.tsv --yes")
	if n := len(oauth.Asked()); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

func TestCheckFindsTheEndpointByItsIssuer(t *testing.T) {
	for name, path := range map[string]string{"issuer": "/.well-known/openid-configuration", "issuer-without-metadata": "/elsewhere"} {
		var auth *caddytest.Server
		auth = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
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
		got := here(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes", "--endpoint", auth.URL)
		checkSession(t, got, code, "check-"+name, "check --yes --endpoint http://localhost:9000")
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemOf(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// validFor is the certificate of a server on loopback that ends after so long.
func validFor(t testing.TB, life time.Duration) tls.Certificate {
	t.Helper()
	key := newKey(t)
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
	s := httptest.NewUnstartedServer(knows(issues, rejects))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{validFor(t, 100*24*time.Hour+time.Hour)}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	cert := caddytest.Write(t, filepath.Join(t.TempDir(), "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	for name, test := range map[string]struct {
		transport string
		code      int
	}{
		"tls":            {fmt.Sprintf("transport http {\ntls_trust_pool file %s\n}\n", cert), 0},
		"tls-untrusted":  {"", 3},
		"tls-unverified": {"transport http {\ntls_insecure_skip_verify\n}\n", 1},
	} {
		config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n%s}", s.URL, test.transport))
		got := here(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
		checkSession(t, got, test.code, "check-"+name, "check --yes")
	}
}

func TestCheckTriesAnEndpointThatIsDownOnlyOnce(t *testing.T) {
	config := configFile(t, fmt.Sprintf("smapi_upgrade http://%s/token {\nclient_id the-id\nclient_auth none\n}", caddytest.DeadAddress(t)))
	got := here(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
	checkSession(t, got, 3, "check-down", "check --yes")
}

func TestCheckTriesEveryHandlerOnceAndNoneTwice(t *testing.T) {
	one, two := caddytest.Serve(t, knows(issues, rejects)), caddytest.Serve(t, knows(issues, caddytest.Says(500, "")))
	handler := func(s *caddytest.Server, more string) string {
		return fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n%s}", s.URL, more)
	}
	config := configFile(t, handler(one, ""), "handle /smapi* {\n"+handler(two, "")+"\n}", handler(one, "households 10%\n"),
		"smapi_upgrade {\nmode reauthorize\n}", "smapi_upgrade {\nmode observe\n}")
	got := here(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
	checkSession(t, got, 1, "check-several", "check --yes")
	if a, b := len(one.Asked()), len(two.Asked()); a != 2 || b != 2 {
		t.Errorf("%d and %d POSTs", a, b)
	}
	got = here(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes", "--endpoint", one.URL+"/token")
	if a, b := len(one.Asked()), len(two.Asked()); got.code != 0 || a != 2 || b != 0 {
		t.Errorf("exit status %d, %d and %d POSTs", got.code, a, b)
	}
}

func TestCheckRefusesWhatItCannotDoAndAsksNobody(t *testing.T) {
	endpoint := caddytest.Serve(t, issues)
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
		got := here(t, strings.NewReader(test.stdin), append([]string{"check"}, strings.Fields(test.args)...)...)
		if got.code != 2 || got.stdout != "" || !strings.Contains(unwrapped(got.stderr), test.says) || strings.Contains(got.stderr, "marker") {
			t.Errorf("%s: exit status %d, %s%s", test.args, got.code, got.stdout, got.stderr)
		}
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

func TestCheckTriesALockedAccount(t *testing.T) {
	dir := t.TempDir()
	account := caddytest.Write(t, filepath.Join(dir, "account.tsv"), testAccount["login"])
	locked := caddytest.Write(t, filepath.Join(dir, "locked.tsv"), "locked-marker\tmarker-of-locked\n")
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if strings.Contains(string(body), "locked-marker") {
			caddytest.Says(400, `{"error":"account_locked","error_description":"locked-marker"}`)(w, r)
			return
		}
		knows(issues, rejects)(w, r)
	})
	config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n}", endpoint.URL))
	got := here(t, nil, "check", "--config", config, "--yes", "--from", account, "--locked-from", locked)
	checkSession(t, got, 1, "check-locked", "check --yes --from account.tsv --locked-from locked.tsv")
	if n := len(endpoint.Asked()); n != 3 {
		t.Errorf("%d POSTs", n)
	}
	for options, says := range map[string]string{
		"--locked-from -": "has to be a file", "--locked-from /nonexistent/locked": "no such file",
		"--locked-from " + locked + " --credentials anonymous": "players without one have none",
	} {
		got := here(t, nil, append([]string{"check", "--config", config, "--yes"}, strings.Fields(options)...)...)
		if got.code != 2 || got.stdout != "" || !strings.Contains(unwrapped(got.stderr), says) {
			t.Errorf("%s: %+v", options, got)
		}
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}
