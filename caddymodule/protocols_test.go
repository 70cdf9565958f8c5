package caddymodule_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// clients are one of each protocol, by its name in Request.Proto.
func clients(t *testing.T) map[string]http.RoundTripper {
	t.Helper()
	// The certificate is one for tests.
	insecure := func() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
	h1 := &http.Transport{TLSClientConfig: insecure(), DisableCompression: true}
	h2 := &http.Transport{TLSClientConfig: insecure(), DisableCompression: true, ForceAttemptHTTP2: true}
	h3 := &http3.Transport{TLSClientConfig: insecure(), DisableCompression: true}
	t.Cleanup(func() {
		h1.CloseIdleConnections()
		h2.CloseIdleConnections()
		_ = h3.Close()
	})
	return map[string]http.RoundTripper{"HTTP/1.1": h1, "HTTP/2.0": h2, "HTTP/3.0": h3}
}

// everyProtocol runs sites that speak all of them, and returns their addresses. The Caddy is a process of its own: QUIC
// has no edge between Caddy's start and a first handshake that the race detector knows of.
func everyProtocol(t *testing.T, directives ...string) (urls []string) {
	t.Helper()
	tlsServer := httptest.NewTLSServer(nil)
	tlsServer.Close()
	cert, key := caddytest.PEMFiles(t, tlsServer)
	text := ""
	for _, d := range directives {
		_, port, _ := net.SplitHostPort(loopback.FreeAddress())
		text += fmt.Sprintf("https://:%s {\nbind 127.0.0.1\ntls %s %s\nrespond /ready ok\n%s\n}\n", port, cert, key, d)
		urls = append(urls, "https://127.0.0.1:"+port)
	}
	caddytest.Node(t, text)
	client := &http.Client{Transport: clients(t)["HTTP/3.0"], Timeout: time.Second}
	for _, url := range urls {
		caddytest.Reachable(t, strings.TrimPrefix(url, "https://"))
		caddytest.Eventually(t, "HTTP/3 is served", func() bool {
			response, err := client.Get(url + "/ready")
			if err != nil {
				return false
			}
			return response.Body.Close() == nil && response.StatusCode == http.StatusOK
		})
	}
	return urls
}

func TestEveryProtocolIsUpgraded(t *testing.T) {
	t.Parallel()
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	s := &caddytest.Site{URL: everyProtocol(t, caddytest.Directive(endpoint, old, "replay off"))[0]}
	for proto, client := range clients(t) {
		response, err := client.RoundTrip(s.Request(t, caddytest.Account(t, proto)))
		if err != nil {
			t.Fatal(proto, err)
		}
		got, err := caddytest.Read(response)
		if err != nil || response.Proto != proto {
			t.Fatal(proto, response.Proto, err)
		}
		caddytest.CheckAnswer(t, got, "upgraded.xml")
		if asked := endpoint.Asked(); len(asked) != 1 || !strings.Contains(asked[0].Text, "username="+strings.ReplaceAll(proto, "/", "%2F")) {
			t.Errorf("%s: asked for %+v", proto, asked)
		}
	}
}

func TestEveryProtocolIsForwardedAsByABareProxy(t *testing.T) {
	t.Parallel()
	const host = "smapi.example.com" // the same for both
	old := listen(t, false)
	proxy := "reverse_proxy " + old.Addr().String()
	urls := everyProtocol(t, proxy, "smapi_upgrade http://127.0.0.1:1/token {\nclient_id id\nclient_auth none\n}\n"+proxy)
	bodies := map[string][]byte{"large": bytes.Repeat([]byte("<x>"), 1<<17), "empty": nil}
	for _, name := range []string{"forward-poll.xml", "forward-get-metadata.xml", "forward-truncated.xml", "forward-two-logins.xml"} {
		bodies[name] = caddytest.File(t, "requests", name)
	}
	for proto, client := range clients(t) {
		for name, body := range bodies {
			for _, streamed := range []bool{false, true} {
				var sent [2]string
				for i, url := range urls {
					var source io.Reader = bytes.NewReader(body)
					if streamed {
						source = io.MultiReader(source) // of unknown length
					}
					r, err := http.NewRequest(http.MethodPost, url+"/smapi?a=b%20c", source)
					if err != nil {
						t.Fatal(err)
					}
					r.Host = host
					r.Header = http.Header{"Content-Type": {"text/xml"}, "Cookie": {"a=b", "c=d"}, "X-Odd": {""}, "User-Agent": {"Sonos"}}
					if streamed {
						r.Trailer = http.Header{"X-Sum": {"42"}}
					}
					answer, err := client.RoundTrip(r)
					if err != nil {
						t.Fatal(proto, name, err)
					}
					content, err := io.ReadAll(answer.Body)
					_ = answer.Body.Close()
					if answer.StatusCode != http.StatusCreated || answer.Proto != proto || string(content) != "answer" || err != nil {
						t.Errorf("%s, %s: %s %s %q %v", proto, name, answer.Proto, answer.Status, content, err)
					}
					sent[i] = old.received(t)
				}
				if sent[0] != sent[1] {
					t.Errorf("%s, %s: sent as\n%.2000q\nwant\n%.2000q", proto, name, sent[1], sent[0])
				}
			}
		}
	}
}

// A body that is not whole when nobody waits for it any more is forwarded as it comes.
func TestEveryProtocolsSlowBodiesAreForwarded(t *testing.T) {
	t.Parallel()
	old := caddytest.OldService(t)
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := &caddytest.Site{URL: everyProtocol(t, caddytest.Directive(endpoint, old))[0]}
	var all sync.WaitGroup
	for proto, client := range clients(t) {
		all.Go(func() {
			body := caddytest.Account(t, proto)
			source, rest := io.Pipe()
			go func() {
				_, _ = rest.Write(body[:100])
				time.Sleep(3200 * time.Millisecond) // what the stranger does
				_, _ = rest.Write(body[100:])
				_ = rest.Close()
			}()
			r := s.Request(t, nil)
			r.Body, r.ContentLength = source, -1
			response, err := client.RoundTrip(r)
			if err != nil {
				t.Error(proto, err)
				return
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusTeapot || response.Proto != proto {
				t.Errorf("%s %s", response.Proto, response.Status)
			}
		})
	}
	all.Wait()
	bodies := map[string]bool{}
	for _, r := range old.Asked() {
		bodies[r.Text] = true
	}
	for proto := range clients(t) {
		if !bodies[string(caddytest.Account(t, proto))] {
			t.Errorf("over %s other bytes were forwarded", proto)
		}
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d were asked for", n)
	}
}
