package caddymodule_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func TestTheTransportIsCaddysOwn(t *testing.T) {
	var presented atomic.Int32
	endpoint := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		presented.Add(int32(len(r.TLS.PeerCertificates)))
		caddytest.IssuesTokens(w, r)
	}))
	endpoint.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	endpoint.StartTLS()
	defer endpoint.Close()
	cert, key := caddytest.PEMFiles(t, endpoint)
	directive := func(transport string) string {
		return fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth none\nreplay off\n%s\n}", endpoint.URL, transport)
	}

	s := caddytest.Run(t, directive(fmt.Sprintf("transport http {\ntls_trust_pool file %s\ntls_client_auth %s %s\n}", cert, cert, key)))
	caddytest.CheckAnswer(t, s.Upgrade(t), "upgraded.xml")
	if presented.Load() != 1 {
		t.Errorf("%d client certificates", presented.Load())
	}
	s = caddytest.Run(t, directive(""))
	caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml")
	if log := s.Log(t); !strings.Contains(log, "authority that is not trusted") {
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
		s := caddytest.Run(t, "smapi_upgrade http://127.0.0.1:1/token {\nclient_id id\n"+option+"\n}")
		if !strings.Contains(s.Log(t), warning) {
			t.Errorf("%q: no warning of %q", option, warning)
		}
	}
}
