package crowd_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// What an endpoint or its issuer does wrong harms no more than it has to.

func TestTheLastGoodMetadataStaysInForceAcrossReloads(t *testing.T) {
	var gone atomic.Bool
	var endpoint *caddytest.Server
	endpoint = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			caddytest.IssuesTokens(w, r)
		case gone.Load():
			caddytest.Says(http.StatusServiceUnavailable, "")(w, r)
		default:
			caddytest.Says(http.StatusOK, fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q}`, endpoint.URL, endpoint.URL+"/token"))(w, r)
		}
	})
	address := loopback.FreeAddress()
	config := func(n int) string {
		return fmt.Sprintf(`{
	admin off
	persist_config off
}
http://%s {
	bind 127.0.0.1
	header X-Config %d
	smapi_upgrade {
		issuer %s
		client_id id
		client_auth none
	}
}`, address, n, endpoint.URL)
	}
	s := caddytest.Run(t, "respond ok")
	s.URL = "http://" + address
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a reload ends connections
	for n := range 3 {
		caddytest.Load(t, config(n))
		gone.Store(n > 0)
		var a caddytest.Answer
		caddytest.Eventually(t, "a call is answered", func() bool { // the old listener may take one with it
			var err error
			a, err = caddytest.Ask(t, client, s, caddytest.Account(t, fmt.Sprint("account", n)))
			return err == nil
		})
		caddytest.CheckAnswer(t, a, "upgraded.xml")
	}
}

func TestAnEndpointForClientCertificatesIsFoundByTheIssuer(t *testing.T) {
	var presented atomic.Int32
	aliased := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		presented.Add(int32(len(r.TLS.PeerCertificates)))
		caddytest.IssuesTokens(w, r)
	}))
	aliased.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	aliased.StartTLS()
	defer aliased.Close()
	var issuer *httptest.Server
	issuer = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" { // where no certificate is looked at
			caddytest.Says(http.StatusUnauthorized, `{"error":"invalid_client"}`)(w, r)
			return
		}
		caddytest.Says(http.StatusOK, fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q,"mtls_endpoint_aliases":{"token_endpoint":%q}}`,
			issuer.URL, issuer.URL+"/token", aliased.URL+"/token"))(w, r)
	}))
	defer issuer.Close()
	authority, _ := caddytest.PEMFiles(t, issuer)
	dir := t.TempDir()
	cert, key := caddytest.Certificate(t, 1)
	caddytest.Write(t, filepath.Join(dir, "cert"), cert)
	caddytest.Write(t, filepath.Join(dir, "key"), key)
	directive := func(auth string) string {
		return fmt.Sprintf(`smapi_upgrade {
			issuer %s
			client_id id
			client_auth %s
			replay off
			transport http {
				tls_trust_pool file %s
				tls_client_auth %s/cert %s/key
			}
		}`, issuer.URL, auth, authority, dir, dir)
	}
	s := caddytest.Run(t, directive("tls"))
	caddytest.CheckAnswer(t, s.Upgrade(t), "upgraded.xml")
	if presented.Load() != 1 {
		t.Errorf("%d client certificates were presented", presented.Load())
	}
	s = caddytest.Run(t, directive("none"))
	caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml") // by the standard endpoint
}

func TestAnAnswersHeaderIsBounded(t *testing.T) {
	var size atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range size.Load() / 1024 {
			w.Header().Set(fmt.Sprint("X-Padding-", i), strings.Repeat("x", 1000))
		}
		w.Header().Set("X-Proto", r.Proto)
		caddytest.IssuesTokens(w, r)
	})
	for _, http2 := range []bool{false, true} {
		endpoint := httptest.NewUnstartedServer(handler)
		endpoint.EnableHTTP2 = http2
		endpoint.StartTLS()
		defer endpoint.Close()
		authority, _ := caddytest.PEMFiles(t, endpoint)
		for _, test := range []struct {
			option string
			size   int64
			fits   bool
		}{
			{"", 32 << 10, true},
			{"", 96 << 10, false},
			{"max_response_header 1MiB", 96 << 10, true},
			{"max_response_header 16KiB", 32 << 10, false},
		} {
			s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_auth none\nreplay off\ntransport http {\ntls_trust_pool file %s\n%s\n}\n}",
				endpoint.URL, authority, test.option))
			size.Store(test.size)
			if became := caddytest.Told(t, s.Upgrade(t)); became == "upgraded" != test.fits {
				t.Errorf("HTTP/2 %t, %q: with a header of %d bytes a call is %s", http2, test.option, test.size, became)
			}
		}
	}
}

func TestAGetSessionIdWithoutAHeaderExpires(t *testing.T) {
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t), "expire_session_ids"))
	caddytest.CheckAnswer(t, s.Call(t, "getSessionId", "get-session-id-no-header.xml"), "auth-token-expired.xml")
}
