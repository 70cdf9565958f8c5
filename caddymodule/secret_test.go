package caddymodule_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/sys/unix"
)

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// waysToRewrite are how secrets get into their files: in place, by another file in their place as editors and
// deployments do, or behind a symbolic link as Kubernetes does.
var waysToRewrite = map[string]func(t testing.TB, path, content string){
	"in place": write,
	"by another file": func(t testing.TB, path, content string) {
		write(t, path+".new", content)
		if err := os.Rename(path+".new", path); err != nil {
			t.Error(err)
		}
	},
	"behind a link": func(t testing.TB, path, content string) {
		target := filepath.Join(t.TempDir(), "secret")
		write(t, target, content)
		if err := os.Symlink(target, path+".new"); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Error(err)
		}
	},
}

func TestASecretIsReadAgainUnderLoadAndNothingFails(t *testing.T) {
	for way, rewrite := range waysToRewrite {
		t.Run(way, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			write(t, path, "secret-0\n")
			var newest atomic.Int32
			var used sync.Map // secrets by account
			endpoint := count(t, func(w http.ResponseWriter, r *http.Request) {
				_, secret, _ := r.BasicAuth()
				var n int32
				if _, err := fmt.Sscanf(secret, "secret-%d", &n); err != nil || n > newest.Load() {
					says(401, `{"error":"invalid_client"}`)(w, r)
					return
				}
				used.Store(r.PostFormValue("username"), n)
				issuesTokens(w, r)
			})
			s := caddyRun(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_secret {file.%s}\n}", endpoint.URL, path))
			client := player(t)
			var accounts atomic.Int32
			upgrade := func() (name string) {
				name = fmt.Sprint("account", accounts.Add(1))
				if a, err := ask(t, client, s, account(t, name)); err != nil || told(t, a) != "upgraded" {
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
			for n := int32(1); n <= 20; n++ {
				newest.Store(n)
				rewrite(t, path, fmt.Sprintf("secret-%d\n", n))
				if got, _ := used.Load(upgrade()); got != n {
					t.Errorf("the exchange after secret %d used %v", n, got)
				}
			}
			close(stop)
			load.Wait()
			log := s.log(t)
			if !strings.Contains(log, "a secret was read again") {
				t.Error("the log does not tell")
			}
			if strings.Contains(log, "secret-") {
				t.Error("the log has the secret")
			}
		})
	}
}

func TestASecretThatCannotBeReadAnyMoreStaysInForce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "good")
	endpoint := serve(t, issuesTokens)
	s := caddyRun(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_secret {file.%s}\n}", endpoint.URL, path))
	secret := func(name string) string {
		checkAnswer(t, s.post(t, account(t, name)), "upgraded.xml")
		_, header := form(t, endpoint)
		_, secret, _ := (&http.Request{Header: header}).BasicAuth()
		return secret
	}
	complaints := func() int { return strings.Count(s.log(t), "cannot be read any more") }

	write(t, path, "")
	if got := secret("empty"); got != "good" {
		t.Errorf("with an empty file it is %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := secret("gone"); got != "good" {
		t.Errorf("without a file it is %q", got)
	}
	if n := complaints(); n != 1 {
		t.Errorf("the log tells %d times", n)
	}
	write(t, path, "better")
	for deadline, n := time.Now().Add(10*time.Second), 0; secret(fmt.Sprint("back", n)) != "better"; n++ {
		if time.Now().After(deadline) {
			t.Fatal("the new secret is not used")
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := secret("gone again"); got != "better" || complaints() != 2 {
		t.Errorf("gone again it is %q, and the log tells %d times", got, complaints())
	}
}

// As of a network file system whose server is gone: a named pipe without a writer.
func TestAFileSystemThatHangsHoldsNobodyUpForLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "good")
	endpoint := serve(t, issuesTokens)
	s := caddyRun(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_secret {file.%s}\nmax_in_flight 1\n}", endpoint.URL, path))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		checkAnswer(t, s.post(t, account(t, fmt.Sprint("account", i))), "upgraded.xml")
	}
	writer, err := os.OpenFile(path, os.O_WRONLY, 0) // which ends it
	if err != nil {
		t.Fatal(err)
	}
	writer.Close()
}

func newKey(t testing.TB) (key *ecdsa.PrivateKey, text string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestAKeyIsReadAgainWhenItsFileChanges(t *testing.T) {
	endpoint := serve(t, issuesTokens)
	path := filepath.Join(t.TempDir(), "key.pem")
	first, text := newKey(t)
	write(t, path, text)
	s := caddyRun(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth private_key_jwt\nclient_key %s\nkey_id 7\n}", endpoint.URL, path))
	signedBy := func(name string, key *ecdsa.PrivateKey) {
		t.Helper()
		checkAnswer(t, s.post(t, account(t, name)), "upgraded.xml")
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
	second, text := newKey(t)
	write(t, path, text)
	signedBy("second", second)
	write(t, path, "half a ke")
	signedBy("half", second)
	if !strings.Contains(s.log(t), "cannot be read any more") {
		t.Error("the log does not tell")
	}
}

// certificate is a self-signed one in files, told by its serial number.
func certificate(t testing.TB, serial int64) (cert, key string) {
	t.Helper()
	signer, keyText := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), keyText
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
		w.Header().Set("Connection", "close") // so that the next has to prove itself anew
		issuesTokens(w, r)
	}))
	endpoint.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	endpoint.StartTLS()
	defer endpoint.Close()
	authority, _ := pemFiles(t, endpoint)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	deploy := func(serial int64) {
		cert, key := certificate(t, serial)
		write(t, certFile, cert)
		write(t, keyFile, key)
	}
	deploy(1)
	s := caddyRun(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth tls\ntransport http {\ntls_trust_pool file %s\ntls_client_auth %s %s\n}\n}",
		endpoint.URL, authority, certFile, keyFile))
	for n := int64(1); n <= 2; n++ {
		deploy(n)
		checkAnswer(t, s.post(t, account(t, fmt.Sprint("account", n))), "upgraded.xml")
		if got := serial.Load(); got != n {
			t.Errorf("the certificate is number %d, want %d", got, n)
		}
	}
}

func TestTheAdminAPIShowsNoSecretOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "marker-secret")
	admin := freeAddress(t)
	load(t, fmt.Sprintf(`{
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
}`, admin, t.TempDir(), freeAddress(t), path))
	s := &site{url: "http://" + admin}
	r, err := http.NewRequest(http.MethodGet, s.url+"/config/", bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	got := s.do(t, r)
	if got.status != http.StatusOK || !strings.Contains(got.body, "{file."+path) {
		t.Fatalf("the admin API answers %+v", got)
	}
	if strings.Contains(got.body, "marker-secret") {
		t.Error("the admin API shows the secret")
	}
}
