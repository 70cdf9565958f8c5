package caddymodule_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// basicSecret is what the client authenticates with in a request.
func basicSecret(r *http.Request) string {
	_, secret, _ := r.BasicAuth()
	return secret
}

const (
	secretReadAgain  = "a secret was read again"
	secretUnreadable = "cannot read the file of a secret; the last good value stays in force"
)

func TestASecretIsReadAgainUnderLoadAndNothingFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, path, "secret-0\n")
	var newest atomic.Int32
	var used sync.Map // secrets by account
	endpoint := caddytest.Count(t, func(w http.ResponseWriter, r *http.Request) {
		var n int32
		if _, err := fmt.Sscanf(basicSecret(r), "secret-%d", &n); err != nil || n > newest.Load() {
			caddytest.Says(401, `{"error":"invalid_client"}`)(w, r)
			return
		}
		used.Store(r.PostFormValue("username"), n)
		caddytest.IssuesTokens(w, r)
	})
	s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_secret {file.%s}\n}", endpoint.URL, path))
	client := caddytest.Player(t)
	var accounts atomic.Int32
	upgrade := func() (name string) {
		name = fmt.Sprint("account", accounts.Add(1))
		if a, err := caddytest.Ask(t, client, s, caddytest.Account(t, name)); err != nil || caddytest.Told(t, a) != "upgraded" {
			t.Errorf("an upgrade failed while a secret was rewritten: %v, %+v", err, a)
		}
		return name
	}

	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				upgrade()
			}
		})
	}
	for n := int32(1); n <= 10; n++ {
		newest.Store(n)
		caddytest.Write(t, path, fmt.Sprintf("secret-%d\n", n))
		caddytest.Eventually(t, fmt.Sprintf("secret %d is used", n), func() bool {
			got, _ := used.Load(upgrade())
			return got == n
		})
	}
	close(stop)
	load.Wait()
	log := s.Log(t)
	if !strings.Contains(log, secretReadAgain) {
		t.Error("the log does not tell")
	}
	if strings.Contains(log, "secret-") {
		t.Error("the log has the secret")
	}
}

func TestASecretThatCannotBeReadAnyMoreStaysInForce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, path, "good")
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_secret {file.%s}\n}", endpoint.URL, path))
	secret := func(name string) string {
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, name)), "upgraded.xml")
		_, header := form(t, endpoint)
		return basicSecret(&http.Request{Header: header})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	caddytest.WaitForLog(t, s, secretUnreadable)
	if got := secret("gone"); got != "good" {
		t.Errorf("without a file it is %q", got)
	}
	caddytest.Write(t, path, "better")
	caddytest.WaitForLog(t, s, secretReadAgain)
	if got := secret("back"); got != "better" {
		t.Errorf("with the file back it is %q", got)
	}
}

func TestAKeyIsReadAgainWhenItsFileChanges(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	path := filepath.Join(t.TempDir(), "key.pem")
	first, text := caddytest.NewKey(t)
	caddytest.Write(t, path, text)
	s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth private_key_jwt\nclient_key %s\nkey_id 7\n}", endpoint.URL, path))
	signedBy := func(name string, key *ecdsa.PrivateKey) {
		t.Helper()
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, name)), "upgraded.xml")
		values, _ := form(t, endpoint)
		signed, err := jwt.ParseSigned(values.Get("client_assertion"), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		var claims jwt.Claims
		if err := signed.Claims(key.Public(), &claims); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if signed.Headers[0].KeyID != "7" || claims.Audience[0] != endpoint.URL+"/token" {
			t.Errorf("%s: for %v by kid %q", name, claims.Audience, signed.Headers[0].KeyID)
		}
	}
	signedBy("first", first)
	second, text := caddytest.NewKey(t)
	caddytest.Write(t, path, text)
	caddytest.WaitForLog(t, s, secretReadAgain)
	signedBy("second", second)
	caddytest.Write(t, path, "half a ke")
	caddytest.WaitForLog(t, s, secretUnreadable)
	signedBy("half", second)
}

func TestTheClientIsItsCertificate(t *testing.T) {
	var serial atomic.Int64
	endpoint := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if r.PostForm.Get("client_id") != "id" || r.PostForm.Has("client_secret") || r.Header.Get("Authorization") != "" {
			t.Errorf("the form is %v, with %v", r.PostForm, r.Header)
		}
		serial.Store(r.TLS.PeerCertificates[0].SerialNumber.Int64())
		w.Header().Set("Connection", "close") // so that the next has to authenticate anew
		caddytest.IssuesTokens(w, r)
	}))
	endpoint.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	endpoint.StartTLS()
	defer endpoint.Close()
	authority, _ := caddytest.PEMFiles(t, endpoint)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	deploy := func(serial int64) {
		cert, key := caddytest.Certificate(t, serial)
		caddytest.Write(t, certFile, cert)
		caddytest.Write(t, keyFile, key)
	}
	deploy(1)
	s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth tls\ntransport http {\ntls_trust_pool file %s\ntls_client_auth %s %s\n}\n}",
		endpoint.URL, authority, certFile, keyFile))
	for n := int64(1); n <= 2; n++ {
		if n > 1 {
			deploy(n)
			caddytest.WaitForLog(t, s, secretReadAgain)
		}
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, fmt.Sprint("account", n))), "upgraded.xml")
		if got := serial.Load(); got != n {
			t.Errorf("the certificate is number %d, want %d", got, n)
		}
	}
}

func TestTheAdminAPIShowsNoSecretOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, path, "marker-secret")
	admin := loopback.FreeAddress()
	caddytest.Load(t, fmt.Sprintf(`{
	admin %s
	persist_config off
	storage file_system %s
	log {
		output discard
	}
}
http://%s {
	bind 127.0.0.1
	smapi_upgrade https://auth.example.com/token {
		client_id id
		client_secret {file.%s}
	}
}`, admin, t.TempDir(), loopback.FreeAddress(), path))
	s := &caddytest.Site{URL: "http://" + admin}
	r, err := http.NewRequest(http.MethodGet, s.URL+"/config/", bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	got := s.Do(t, r)
	if got.Status != http.StatusOK || !strings.Contains(got.Body, "{file."+path) {
		t.Fatalf("the admin API answers %+v", got)
	}
	if strings.Contains(got.Body, "marker-secret") {
		t.Error("the admin API shows the secret")
	}
}

func TestNobodyFollowsTheFilesOfAConfigurationThatIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, path, "secret")
	followed := func() bool {
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte(".follow("))
	}
	directive := fmt.Sprintf("smapi_upgrade https://auth.example.com/token {\nclient_id id\nclient_secret {file.%s}\n", path)
	config := func(rest string) string {
		return fmt.Sprintf("{\nadmin off\npersist_config off\nstorage file_system %s\n}\nhttp://%s {\nbind 127.0.0.1\n%s%s}\n}", t.TempDir(), loopback.FreeAddress(), directive, rest)
	}
	caddytest.Load(t, config(""))
	caddytest.Eventually(t, "the file is followed", followed) // or the rest would prove nothing
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	caddytest.Eventually(t, "the file of a configuration that was stopped is left alone", func() bool { return !followed() })

	bad, err := caddytest.Adapt(config("transport http {\ntls_client_auth /nowhere/cert /nowhere/key\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(bad, true); err == nil {
		t.Fatal("it loads")
	}
	caddytest.Eventually(t, "the file of a configuration that does not load is left alone", func() bool { return !followed() })
}

func TestAFileInAHeaderIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	caddytest.Write(t, path, "first\n")
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth none\nheader X-Api-Key {file.%s}\nparam tenant t-{file.%s}\n}",
		endpoint.URL, path, path))
	n := 0
	sent := func() string {
		n++
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, fmt.Sprint("account-", n))), "upgraded.xml")
		values, header := form(t, endpoint)
		return header.Get("X-Api-Key") + " " + values.Get("tenant")
	}
	if got := sent(); got != "first t-first" {
		t.Errorf("it sends %q", got)
	}
	caddytest.Write(t, path, "second\n")
	caddytest.Eventually(t, "the new key", func() bool { return sent() == "second t-second" })
}
