//go:build nobadger

package integration

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // zitadel tells every refusal
	dir, err := os.MkdirTemp("", "smapi-upgrade-integration-")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// server is an OAuth server that counts what its token endpoint is asked.
type server struct {
	url           string
	tokenEndpoint string
	stop          func()
	restart       func()                                      // at the same address, with what it has stored
	works         func(t testing.TB, accessToken string) bool // for who serves what players ask for

	mu     sync.Mutex
	posts  map[string]int // by grant type
	onPost func()         // before the answer
}

// serve runs an OAuth server until the test ends. build gets the address at which it will be.
func serve(t testing.TB, tokenPath string, build func(address string) http.Handler) *server {
	t.Helper()
	listening := httptest.NewUnstartedServer(nil)
	address := "http://" + listening.Listener.Addr().String()
	s := &server{url: address, tokenEndpoint: address + tokenPath, stop: listening.Close, posts: map[string]int{}}
	handler := build(address)
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == tokenPath && r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			form, invalid := url.ParseQuery(string(body))
			if err != nil || invalid != nil {
				t.Error(err, invalid)
			}
			s.add(form.Get("grant_type"))
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		handler.ServeHTTP(w, r)
	})
	listening.Config.Handler = counted
	listening.Start()
	t.Cleanup(listening.Close)
	s.restart = func() {
		t.Helper()
		listener, err := net.Listen("tcp", strings.TrimPrefix(address, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		again := &httptest.Server{Listener: listener, Config: &http.Server{Handler: counted}}
		again.Start()
		t.Cleanup(again.Close)
	}
	return s
}

// worksAt says whether an access token is taken at that address.
func worksAt(userinfo string) func(t testing.TB, accessToken string) bool {
	return func(t testing.TB, accessToken string) bool {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, userinfo, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+accessToken)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
}

func (s *server) add(grant string) {
	s.mu.Lock()
	s.posts[grant]++
	onPost := s.onPost
	s.mu.Unlock()
	if onPost != nil {
		onPost()
	}
}

// before has every answer of the token endpoint wait for this from now on.
func (s *server) before(wait func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onPost = wait
}

// count is how often the token endpoint was asked by this grant since the start.
func (s *server) count(grant string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts[grant]
}

// checkPosts compares what the token endpoint was asked since the start.
func (s *server) checkPosts(t testing.TB, grant string, want int) {
	t.Helper()
	if got := s.count(grant); got != want {
		t.Errorf("%d POSTs with grant_type %s, want %d", got, grant, want)
	}
}

// tokens is an answer of a token endpoint.
type tokens struct {
	status  int
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Error   string `json:"error"`
}

// ask asks the token endpoint without Caddy, as the client with a secret if the form has no client of its own.
func (s *server) ask(t testing.TB, form url.Values) (answer tokens) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.tokenEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !form.Has("client_assertion") {
		r.SetBasicAuth(url.QueryEscape(clientID), url.QueryEscape(clientSecret))
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	answer.status = response.StatusCode
	return answer
}

// The client of every server. RFC 6749 form-encodes both for HTTP Basic.
const (
	clientID     = "sonos upgrade"
	clientSecret = "s3cret: 50% & more"
)

// bySecret is how the client with a secret is configured.
var bySecret = fmt.Sprintf("client_id %q\n\t\tclient_secret %q", clientID, clientSecret)

// byKey is how a client with a key is configured.
func byKey(file string, more ...string) string {
	return fmt.Sprintf("client_id %q\n\t\tclient_auth private_key_jwt\n\t\tclient_key %s\n\t\t%s",
		clientID, file, strings.Join(more, "\n\t\t"))
}

// keyID is the id of the client's key at every server.
const keyID = "key-1"

// newKey makes a key that signs by ES256, RS256 or EdDSA.
func newKey(t testing.TB, algorithm string) (key crypto.Signer) {
	t.Helper()
	var err error
	switch algorithm {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keyFile writes a private key into a file of the kind that is given by its PEM type, or as a JWK with its id.
func keyFile(t testing.TB, key crypto.Signer, kind string) string {
	t.Helper()
	var content []byte
	var err error
	switch kind {
	case "PRIVATE KEY":
		content, err = x509.MarshalPKCS8PrivateKey(key)
	case "EC PRIVATE KEY":
		content, err = x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	case "RSA PRIVATE KEY":
		content = x509.MarshalPKCS1PrivateKey(key.(*rsa.PrivateKey))
	case "JWK":
		content, err = jose.JSONWebKey{Key: key, KeyID: keyID, Use: "sig"}.MarshalJSON()
	}
	if err != nil {
		t.Fatal(err)
	}
	if kind != "JWK" {
		content = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
	}
	path := filepath.Join(t.TempDir(), "client.key")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// assertion is the proof of a client by its key (RFC 7523).
func assertion(t testing.TB, algorithm string, key crypto.Signer, audience string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(algorithm), Key: jose.JSONWebKey{Key: key, KeyID: keyID},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: clientID, Subject: clientID, Audience: jwt.Audience{audience}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Minute)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func withAssertion(form url.Values, assertion string) url.Values {
	form = maps.Clone(form)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	return form
}

// site is a running Caddy, as players see it.
type site struct{ url string }

// caddyRun runs a Caddy with smapi_upgrade until the test ends. There is no old service: nothing of what these
// players ask may be forwarded.
func caddyRun(t testing.TB, tokenEndpoint string, options ...string) site {
	t.Helper()
	return caddyRunOn(t, t.TempDir(), tokenEndpoint, options...)
}

// caddyRunOn is caddyRun on a storage that is kept.
func caddyRunOn(t testing.TB, storage, tokenEndpoint string, options ...string) site {
	t.Helper()
	return caddyBefore(t, storage, `respond "forwarded" 418`, tokenEndpoint, options...)
}

// caddyBefore is caddyRunOn in front of what answers the rest.
func caddyBefore(t testing.TB, storage, rest, tokenEndpoint string, options ...string) site {
	t.Helper()
	address := loopback.FreeAddress()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(fmt.Appendf(nil, `{
	admin off
	persist_config off
	storage file_system %s
}
http://%s {
	bind 127.0.0.1
	smapi_upgrade %s {
		%s
	}
	%s
}`, storage, address, tokenEndpoint, strings.Join(options, "\n\t\t"), rest), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return site{"http://" + address}
}

// pair is what a player gets, and sends from then on.
type pair struct{ authToken, privateKey string }

// answer is what a player reads: a pair or the code of a fault.
type answer struct {
	status int
	pair
	fault string
}

var (
	blank       = answer{status: http.StatusOK}
	unavailable = answer{status: http.StatusInternalServerError, fault: "Server.ServiceUnavailable"}
	expired     = answer{status: http.StatusInternalServerError, fault: "Client.AuthTokenExpired"}
)

// upgrade asks for new tokens, with the credentials of the old service.
func (s site) upgrade(t testing.TB, credentials string) answer {
	t.Helper()
	const method = "getDeviceAuthToken"
	return do(t, method, s.request(t, method, "<householdId>Sonos_abc123</householdId>", credentials))
}

// refresh asks for new tokens, with the last ones.
func (s site) refresh(t testing.TB, last pair) answer {
	t.Helper()
	return do(t, "refreshAuthToken", s.refreshRequest(t, last))
}

func (s site) refreshRequest(t testing.TB, last pair) *http.Request {
	t.Helper()
	return s.request(t, "refreshAuthToken", "", loginToken(last))
}

// login is what the players of a service with passwords send.
func login(username, password string) string {
	return fmt.Sprintf("<login><username>%s</username><password>%s</password></login>", escape(username), escape(password))
}

// loginToken is what the players of a DeviceLink service send, and all that are upgraded.
func loginToken(p pair) string {
	return fmt.Sprintf("<loginToken><token>%s</token><key>%s</key><householdId>Sonos_abc123</householdId></loginToken>",
		escape(p.authToken), escape(p.privateKey))
}

func escape(text string) string {
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(text))
	return escaped.String()
}

const sonos = "http://www.sonos.com/Services/1.1"

func (s site) request(t testing.TB, method, parameters, credentials string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.url+"/smapi", strings.NewReader(fmt.Sprintf(
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><credentials xmlns=%[1]q>`+
			`<deviceId>00-0E-58-5B-06-D6:8</deviceId><deviceProvider>Sonos</deviceProvider>%[2]s</credentials></s:Header>`+
			`<s:Body><%[3]s xmlns=%[1]q>%[4]s</%[3]s></s:Body></s:Envelope>`,
		sonos, credentials, method, parameters)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", fmt.Sprintf("%q", sonos+"#"+method))
	return r
}

// do may be called by many players at once.
func do(t testing.TB, method string, r *http.Request) (got answer) {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return got
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
		return got
	}
	got, err = read(method, body)
	if err != nil {
		t.Errorf("%v in the answer %d %s", err, response.StatusCode, body)
	}
	got.status = response.StatusCode
	return got
}

// read takes an answer to this method, or a fault, apart.
func read(method string, body []byte) (got answer, err error) {
	var envelope struct {
		Body struct {
			Content struct {
				XMLName xml.Name
				Code    string `xml:"faultcode"`
				Result  []struct {
					XMLName    xml.Name
					AuthToken  *string `xml:"http://www.sonos.com/Services/1.1 authToken"`
					PrivateKey *string `xml:"http://www.sonos.com/Services/1.1 privateKey"`
				} `xml:",any"`
			} `xml:",any"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
	}
	if err := xml.Unmarshal(body, &envelope); err != nil {
		return got, err
	}
	content := envelope.Body.Content
	if content.XMLName.Local == "Fault" && content.Code != "" {
		return answer{fault: content.Code}, nil
	}
	if content.XMLName != (xml.Name{Space: sonos, Local: method + "Response"}) || len(content.Result) != 1 {
		return got, fmt.Errorf("no %sResponse", method)
	}
	result := content.Result[0]
	if result.XMLName.Local != method+"Result" || result.AuthToken == nil || result.PrivateKey == nil {
		return got, fmt.Errorf("no pair")
	}
	return answer{pair: pair{*result.AuthToken, *result.PrivateKey}}, nil
}

// check compares an answer with the one that there has to be.
func check(t testing.TB, got, want answer) {
	t.Helper()
	if got != want {
		t.Errorf("the answer is %+v, want %+v", got, want)
	}
}

// signedIn returns the pair of an answer that has to have one.
func signedIn(t testing.TB, got answer) pair {
	t.Helper()
	if got.status != http.StatusOK || got.authToken == "" || got.privateKey == "" {
		t.Fatalf("no tokens but %+v", got)
	}
	return got.pair
}
