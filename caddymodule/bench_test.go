package caddymodule

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// provisioned is a handler whose token endpoint is a function.
func provisioned(tb testing.TB, transport http.RoundTripper) *Handler {
	tb.Helper()
	h := &Handler{Options: settings.Options{TokenEndpoint: "https://auth.example.com/token", ClientID: "id", ClientAuth: token.None}}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	tb.Cleanup(cancel)
	if err := h.Provision(ctx); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.Cleanup() })
	h.logger, h.calls = zap.NewNop(), zap.NewNop()
	h.exchanger.State = flow.NewState(pacing.Watch{}, nil, clock)
	h.exchanger.Endpoint = token.New(token.Config{
		URL: h.settings.URL, Client: token.Client{ID: "id", Auth: token.None}, Fields: []string{"access_token", "refresh_token"},
		Transport: transport, Context: context.Background(),
	})
	return h
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func issues(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	return &http.Response{
		StatusCode: http.StatusOK,
		Body:       io.NopCloser(strings.NewReader(`{"access_token":"new-token","token_type":"Bearer","expires_in":3600,"refresh_token":"new-key"}`)),
	}, nil
}

var ignore = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// discard is a response that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// body is a request body that can be sent again.
type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

func benchmark(b *testing.B, action string, envelope []byte) {
	h := provisioned(b, roundTrip(issues))
	content := body{bytes.NewReader(envelope)}
	r := httptest.NewRequest(http.MethodPost, "/smapi", content)
	r.ContentLength = int64(len(envelope))
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	if action != "" {
		r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+action+`"`)
	}
	w := discard{http.Header{}}
	envelope = bytes.Replace(envelope, []byte("testuser"), []byte("user0000000000"), 1)
	r.ContentLength = int64(len(envelope))
	account := bytes.Index(envelope, []byte("0000000000"))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if account >= 0 { // the same call would not be exchanged again
			for i, rest := account+9, n; rest > 0; i, rest = i-1, rest/10 {
				envelope[i] = byte('0' + rest%10)
			}
		}
		content.Reset(envelope)
		r.Body = content
		if err := h.ServeHTTP(w, r, ignore); err != nil {
			b.Fatal(err)
		}
	}
}

func request(tb testing.TB, name string) []byte {
	tb.Helper()
	envelope, err := os.ReadFile("../testdata/requests/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	return envelope
}

func BenchmarkForwardOtherMethod(b *testing.B) {
	benchmark(b, "getMetadata", request(b, "forward-get-metadata.xml"))
}

func BenchmarkForwardPeeked(b *testing.B) {
	envelope := bytes.ReplaceAll(request(b, "forward-get-metadata.xml"), []byte("getDeviceAuthToken"), []byte("root"))
	benchmark(b, "", append(envelope, bytes.Repeat([]byte(" "), 1<<10-len(envelope))...))
}

func BenchmarkForwardPoll(b *testing.B) {
	benchmark(b, "getDeviceAuthToken", request(b, "forward-poll.xml"))
}

func BenchmarkUpgrade(b *testing.B) {
	benchmark(b, "getDeviceAuthToken", request(b, "upgrade.xml"))
}
