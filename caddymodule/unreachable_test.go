package caddymodule_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// serveTLS is a token endpoint over TLS.
func serveTLS(t testing.TB, config *tls.Config) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(caddytest.IssuesTokens)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of handshakes, which is what is tested
	s.TLS = config
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// tells is a server that answers every connection with these bytes.
func tells(t testing.TB, answer string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1<<10))
				_, _ = io.WriteString(conn, answer)
				_, _ = io.Copy(io.Discard, conn) // until the client has read it
			}()
		}
	}()
	return listener.Addr().String()
}

// nameServer knows no name at all.
func nameServer(t testing.TB) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		query := make([]byte, 1<<10)
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			if n > 12 {
				query[2], query[3] = 0x81, 0x83 // the answer NXDOMAIN
				_, _ = conn.WriteTo(query[:n], from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// oldHello is how a server begins that knows nothing newer than TLS 1.0.
const oldHello = "\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01" + "0123456789abcdef0123456789abcdef" + "\x00\xc0\x13\x00"

// Each trouble on the way to the token endpoint has a cause and a fix of its own, in the log and in check.
func TestWhyATokenEndpointCannotBeReachedIsSaid(t *testing.T) {
	well := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{validFor(t, time.Hour)}})
	expired := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{validFor(t, -time.Minute)}})
	old := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{validFor(t, time.Hour)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	proxy := caddytest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Proxy-Authenticate", "Basic realm=marker")
		w.WriteHeader(http.StatusProxyAuthRequired)
		_, _ = io.WriteString(w, "marker")
	})
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(well.URL, "https://"))
	trust := func(s *httptest.Server) string {
		cert, _ := caddytest.PEMFiles(t, s)
		return "tls_trust_pool file " + cert
	}
	throughProxy := "network_proxy url http://marker-user:marker-password@" + strings.TrimPrefix(proxy.URL, "http://")
	for _, test := range []struct{ name, url, options, outcome, cause, fix string }{
		{
			"untrusted", well.URL, "tls", "unavailable",
			"the certificate of the token endpoint is by an authority that is not trusted",
			"trust it by tls_trust_pool in transport, or have the server send its whole chain of certificates",
		},
		{
			"expired", expired.URL, trust(expired), "unavailable",
			"the certificate of the token endpoint has expired, or is not valid yet", "renew it at the server, and check the clock of this machine",
		},
		{
			"other-name", "https://localhost:" + port, trust(well), "unavailable",
			"the certificate of the token endpoint is for another host name", "use a name that the certificate has in token_endpoint or issuer",
		},
		{
			"old-tls", old.URL, trust(old), "unavailable",
			"the TLS version of the token endpoint is too old", "have the server offer TLS 1.2 or 1.3",
		},
		{
			"older-tls", "https://" + tells(t, oldHello), "tls", "unavailable",
			"the TLS version of the token endpoint is too old", "have the server offer TLS 1.2 or 1.3",
		},
		{
			"no-tls", "https://" + tells(t, "HTTP/1.1 400 marker\r\n\r\n"), "tls", "unavailable",
			"no TLS with the token endpoint", "check that it speaks TLS at this port, and whether it wants a client certificate",
		},
		{
			"no-name", "https://auth.example.com", "resolvers udp/" + nameServer(t), "unavailable",
			"the host name of the token endpoint cannot be resolved", "check the host name in token_endpoint or issuer, and the DNS of this machine",
		},
		{
			"no-name-of-proxy", "https://auth.example.com", "resolvers udp/" + nameServer(t) + "\nnetwork_proxy url http://proxy.example.com:3128", "unavailable",
			"the host name of the proxy cannot be resolved", "check the host name in the URL of the proxy in transport, and the DNS of this machine",
		},
		{
			"proxy-407", "https://auth.example.com", throughProxy, "misconfigured",
			"the proxy wants a user name and a password, or others", "check the user name and the password in the URL of the proxy in transport",
		},
		{
			"proxy-407-plain", "http://auth.example.com", throughProxy, "misconfigured",
			"the proxy wants a user name and a password, or others", "check the user name and the password in the URL of the proxy in transport",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			handler := fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\ninsecure_http\ntransport http {\n%s\n}\n}", test.url, test.options)
			s := caddytest.Run(t, handler)
			caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml")
			lines := answeredLines(s.Log(t))
			if len(lines) != 1 {
				t.Fatalf("%d lines", len(lines))
			}
			for field, want := range map[string]string{"outcome": test.outcome, "cause": test.cause, "fix": test.fix} {
				if !strings.Contains(lines[0], fmt.Sprintf("%q:%q", field, want)) {
					t.Errorf("the %s is not %q in %s", field, want, lines[0])
				}
			}
			checkNoMarker(t, "the line", lines[0])
			says := checked(t, handler)
			if !strings.Contains(says, test.cause) || !strings.Contains(says, test.fix) {
				t.Errorf("check says %s", says)
			}
			checkNoMarker(t, "check", says)
		})
	}
}

// checked is what a check of a handler finds.
func checked(t *testing.T, handler string) string {
	t.Helper()
	config, err := caddytest.Adapt(fmt.Sprintf("{\nadmin off\nstorage file_system %s\n}\nhttp://site.example.com {\n%s\n}", t.TempDir(), handler))
	if err != nil {
		t.Fatal(err)
	}
	trial, err := diagnose.Prepare(config, "", smapi.Login)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	r := trial.Run(t.Context(), diagnose.Tries{Account: smapi.Credentials{Kind: smapi.Login, Username: "marker-user", Password: "marker-password"}})
	if r.State != diagnose.Problem {
		t.Errorf("check finds %s", r.State)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// validFor is the certificate of a server on loopback that ends after so long.
func validFor(t testing.TB, life time.Duration) tls.Certificate {
	t.Helper()
	key, _ := caddytest.NewKey(t)
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
