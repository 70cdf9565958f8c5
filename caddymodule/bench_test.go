package caddymodule

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
)

// provisioned is a handler whose token endpoint is a function.
func provisioned(tb testing.TB, transport http.RoundTripper) *Handler {
	tb.Helper()
	return provisionedWith(tb, transport, settings.Options{TokenEndpoint: "https://auth.example.com/token", ClientID: "id", ClientAuth: token.None})
}

func provisionedWith(tb testing.TB, transport http.RoundTripper, options settings.Options) *Handler {
	tb.Helper()
	h := &Handler{Options: options}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	tb.Cleanup(cancel)
	if err := h.Provision(ctx); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.Cleanup() })
	h.logger, h.calls = zap.NewNop(), zap.NewNop()
	h.exchanger.State = exchange.NewState(pacing.Watch{}, nil, clock)
	h.exchanger.Endpoint = token.New(token.Config{
		URL: h.settings.URL, DeviceURL: h.settings.DeviceURL, Client: token.Client{ID: "id", Auth: token.None},
		Fields: []string{"access_token", "refresh_token"}, Transport: transport, Context: context.Background(),
	})
	h.exchanger.SignIn = h.exchanger.Endpoint
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

// drain is a next handler that reads the body, as every proxy does.
var drain = caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
	_, err := io.Copy(io.Discard, r.Body)
	return err
})

// discard is a response that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// body is a request body that can be sent again.
type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

func benchmark(b *testing.B, action string, envelope []byte) {
	benchmarkOf(b, provisioned(b, roundTrip(issues)), action, envelope)
}

func benchmarkOf(b *testing.B, h *Handler, action string, envelope []byte) {
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
		if err := h.ServeHTTP(w, r, drain); err != nil {
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

// BenchmarkForwardOtherHome looks for a token of ours in a call that has none.
func BenchmarkForwardOtherHome(b *testing.B) {
	h := provisioned(b, roundTrip(issues))
	h.ours = seal.Bears
	benchmarkOf(b, h, "getMetadata", request(b, "forward-get-metadata.xml"))
}

func BenchmarkForwardPoll(b *testing.B) {
	benchmark(b, "getDeviceAuthToken", request(b, "forward-poll.xml"))
}

func BenchmarkUpgrade(b *testing.B) {
	benchmark(b, "getDeviceAuthToken", request(b, "upgrade.xml"))
}

// device is an authorization server at which nobody has signed in yet.
type device struct{ codes, polls int }

func (d *device) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	status, content := http.StatusBadRequest, `{"error":"authorization_pending"}`
	if d.polls++; r.URL.Path == "/device" {
		d.polls--
		d.codes++
		status, content = http.StatusOK, fmt.Sprintf(`{"device_code":"GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIy-%06d","user_code":"WDJB-MJHT",`+
			`"verification_uri":"https://auth.example.com/device","verification_uri_complete":"https://auth.example.com/device?user_code=WDJB-MJHT",`+
			`"expires_in":1800,"interval":60}`, d.codes)
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(content))}, nil
}

// signIn is a handler at which listeners sign in, and poll their polls: the same one until another has begun.
func signIn(b *testing.B, d *device) (begin, poll func()) {
	b.Setenv("SMAPI_CLIENT_SECRET", "secret")
	h := provisionedWith(b, d, settings.Options{
		TokenEndpoint: "https://auth.example.com/token", ClientID: "id", ClientSecret: "{env.SMAPI_CLIENT_SECRET}",
		SignIn: &settings.SignIn{DeviceEndpoint: "https://auth.example.com/device", AppURLStringID: "SIGN_IN"},
	})
	content := body{new(bytes.Reader)}
	r := httptest.NewRequest(http.MethodPost, "/smapi", content)
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	call := func(w http.ResponseWriter, envelope []byte) {
		content.Reset(envelope)
		r.Body, r.ContentLength = content, int64(len(envelope))
		if err := h.ServeHTTP(w, r, drain); err != nil {
			b.Fatal(err)
		}
	}
	link, sealed := request(b, "sign-in-get-app-link.xml"), request(b, "sign-in-poll.xml")
	var envelope []byte
	begin = func() {
		home, w := fmt.Appendf(nil, "Sonos_%06d", d.codes), httptest.NewRecorder()
		call(w, bytes.Replace(link, []byte("Sonos_abc123"), home, 1))
		_, id, _ := strings.Cut(w.Body.String(), "<linkDeviceId>")
		id, _, found := strings.Cut(id, "<")
		if !found {
			b.Fatalf("no link: %d %s", w.Code, w.Body)
		}
		envelope = bytes.Replace(bytes.Replace(sealed, []byte("sealed"), []byte(id), 1), []byte("Sonos_abc123"), home, 1)
	}
	begin()
	w := discard{http.Header{}}
	return begin, func() { call(w, envelope) }
}

// BenchmarkPollTooEarly opens what a poll brings, and asks nobody.
func BenchmarkPollTooEarly(b *testing.B) {
	var d device
	_, poll := signIn(b, &d)
	b.ReportAllocs()
	for b.Loop() {
		poll()
	}
	b.ReportMetric(float64(d.polls)/float64(b.N), "POSTs/op")
}

// BenchmarkPollThatAsks is of a code each time that has not been asked for yet.
func BenchmarkPollThatAsks(b *testing.B) {
	var d device
	begin, poll := signIn(b, &d)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		begin()
		b.StartTimer()
		poll()
	}
	b.ReportMetric(float64(d.polls)/float64(b.N), "POSTs/op")
}

// BenchmarkTranslate puts a call of an upgraded home to an old service with sessions.
func BenchmarkTranslate(b *testing.B) {
	keys, storage := sealtest.NewKeys(b), &certmagic.FileStorage{Path: b.TempDir()}
	h := provisioned(b, roundTrip(issues))
	var err error
	h.RefreshAuthTokens, h.Vault = true, &settings.Vault{KeyFile: "vault.json"}
	h.OldService = &settings.OldService{Credentials: smapi.SessionID}
	if h.settings, err = h.Resolve(caddy.NewReplacer(), &h.files); err != nil {
		b.Fatal(err)
	}
	h.exchanger.Vault = vault.New(vault.Config{
		Keys: func() *seal.Keys { return keys }, Storage: func() certmagic.Storage { return storage },
	})
	h.ours = seal.Bears
	call := func(action string, envelope []byte) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/smapi", bytes.NewReader(envelope))
		r.Header.Set("Content-Type", "text/xml; charset=utf-8")
		r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+action+`"`)
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, r, drain); err != nil {
			b.Fatal(err)
		}
		return w
	}
	answer := call("getDeviceAuthToken", request(b, "upgrade.xml")).Body.String()
	_, reference, _ := strings.Cut(answer, "<authToken>")
	reference, _, _ = strings.Cut(reference, "<")
	envelope := bytes.Replace(request(b, "login-token.xml"), []byte("old-token"), []byte(reference), 1)
	envelope = bytes.ReplaceAll(envelope, []byte("getDeviceAuthToken"), []byte("getMetadata"))
	old := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		text := "<ok/>"
		if strings.Contains(r.Header.Get("SOAPAction"), "getSessionId") {
			text = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><a><getSessionIdResult>session</getSessionIdResult></a></s:Body></s:Envelope>`
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, err := io.WriteString(w, text)
		return err
	})
	content := body{bytes.NewReader(envelope)}
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/smapi", content)
		r.Header.Set("Content-Type", "text/xml; charset=utf-8")
		r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#getMetadata"`)
		r.ContentLength = int64(len(envelope))
		content.Reset(envelope)
		r.Body = content
		if err := h.ServeHTTP(w, r, old); err != nil {
			b.Fatal(err)
		}
	}
	if n := h.shared.sessions.Begun(); n != 1 {
		b.Errorf("%d sessions", n)
	}
}
