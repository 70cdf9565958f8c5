package caddymodule_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// pemFiles writes the certificate and the key of a TLS server to files.
func pemFiles(t *testing.T, s *httptest.Server) (cert, key string) {
	t.Helper()
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTheTransportIsCaddysOwn(t *testing.T) {
	var presented atomic.Int32
	endpoint := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		presented.Add(int32(len(r.TLS.PeerCertificates)))
		issuesTokens(w, r)
	}))
	endpoint.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	endpoint.StartTLS()
	defer endpoint.Close()
	cert, key := pemFiles(t, endpoint)
	directive := func(transport string) string {
		return fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth none\nreplay off\n%s\n}", endpoint.URL, transport)
	}

	s := caddyRun(t, directive(fmt.Sprintf("transport http {\ntls_trust_pool file %s\ntls_client_auth %s %s\n}", cert, cert, key)))
	checkAnswer(t, s.upgrade(t), "upgraded.xml")
	if presented.Load() != 1 {
		t.Errorf("%d client certificates", presented.Load())
	}
	s = caddyRun(t, directive(""))
	checkAnswer(t, s.upgrade(t), "service-unavailable.xml")
	if log := s.log(t); !strings.Contains(log, "authority that is not trusted") {
		t.Errorf("the log does not say why: %s", log)
	}
}

func TestProvisioningDoesNoNetworkIO(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := provision(t, strings.Replace(handlerJSON(""), "https://auth.example.com", "http://"+listener.Addr().String(), 1)); err != nil {
		t.Fatal(err)
	}
	ours, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	first, err := listener.Accept() // in the order in which they were dialed
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != ours.LocalAddr().String() {
		t.Error("the token endpoint was dialed")
	}
}

func TestWhatIsUnsafeIsWarnedOf(t *testing.T) {
	for option, warning := range map[string]string{
		"client_secret literal\ninsecure_http": "in the clear",
		"client_secret literal":                "client_secret is no placeholder",
	} {
		s := caddyRun(t, "smapi_upgrade http://127.0.0.1:1/token {\nclient_id id\n"+option+"\n}")
		if !strings.Contains(s.log(t), warning) {
			t.Errorf("%q: no warning of %q", option, warning)
		}
	}
}
