package diagnose

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/capture"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// rehearse has the exchange send its request to nowhere, and concludes that it brought tokens that fit.
func rehearse(s *settings.Settings, d *flow.Decision, q exchange.Request) (*ExchangeFacts, error) {
	sent := &rehearsal{answer: tokens(&s.Policy)}
	key, err := anyKey()
	if err != nil {
		return nil, err
	}
	config := token.Config{
		URL:       cmp.Or(s.URL, &url.URL{Scheme: "https", Host: "token-endpoint.invalid"}),
		Client:    withAny(s.Client, key),
		Fields:    []string{s.Policy.AuthToken, s.Policy.PrivateKey},
		Transport: sent,
		Context:   context.Background(),
	}
	exchanger := exchange.Exchanger{
		Endpoint: token.New(config),
		Places:   1,
		State:    exchange.NewState(pacing.Watch{}, nil, time.Now),
	}
	if s.Policy.SignIn != nil {
		config.Client, config.DeviceURL = withAny(s.SignInClient, key), cmp.Or(s.DeviceURL, config.URL)
		exchanger.SignIn = token.New(config)
		s.Policy.SignIn.Seals = secret.NewSeals(config.Client.Secret)
	}
	s.Policy.Ask(context.Background(), &exchanger, d, &q)
	x := &ExchangeFacts{GrantType: q.Type, Headers: slices.Sorted(maps.Keys(sent.header)), OnError: q.OnError, Device: d.Link != nil}
	if sent.form == "" {
		return x, nil
	}
	for field := range strings.SplitSeq(sent.form, "&") {
		name, value, _ := strings.Cut(field, "=")
		name, _ = url.QueryUnescape(name)
		value, _ = url.QueryUnescape(value)
		x.Params = append(x.Params, capture.Named{Name: name, Value: maskParam(name, value)})
	}
	for _, p := range d.Rule.Header {
		if q.Header[p.Name] == nil && !slices.Contains(x.LeftOut, p.Name) {
			x.LeftOut = append(x.LeftOut, p.Name)
		}
	}
	return x, nil
}

// withAny is a client with secrets in the place of those that are not read.
func withAny(c token.Client, key *token.Key) token.Client {
	c.Secret = func() string { return "not read" }
	c.Key = func() *token.Key { return key }
	return c
}

// maskParam shows the grant type alone. The client's own proof was made up.
func maskParam(name, value string) string {
	switch name {
	case "grant_type":
		return value
	case "client_secret", "client_assertion":
		return "***"
	}
	return cmp.Or(capture.Mask(value), "***(0)")
}

// rehearsal is a transport that keeps what it is given, and answers with tokens.
type rehearsal struct {
	answer []byte
	form   string
	header http.Header
}

func (t *rehearsal) RoundTrip(r *http.Request) (*http.Response, error) {
	form, err := io.ReadAll(r.Body)
	t.form, t.header = string(form), r.Header
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r,
		Body: io.NopCloser(bytes.NewReader(t.answer)),
	}, err
}

// tokens are an answer with the fields that become the player's tokens, and with a code to sign in by.
func tokens(p *flow.Policy) []byte {
	text, _ := json.Marshal(map[string]string{
		"device_code": "code", "user_code": "CODE", "verification_uri": "https://token-endpoint.invalid/",
		p.AuthToken: "token", p.PrivateKey: "key",
	})
	return text
}

// anyKey signs in the place of one that is not read.
func anyKey() (*token.Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return token.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "")
}

// answers of the token endpoint, by class.
var answers = []struct {
	class token.Class
	text  string
}{
	{token.Rejected, "credentials refused"},
	{token.Unavailable, "no answer, 5xx, 429"},
	{exchange.NotSent, "no place in time"},
	{token.Misconfigured, "client refused, tokens unfit"},
}

// tellAll says what every answer becomes, the one that is wanted first, which d has brought.
func tellAll(p *flow.Policy, d flow.Decision) []Told {
	first := "tokens that fit"
	if d.Link != nil {
		first = "an address and a code that fit"
	}
	all := []Told{tell(p, &d, first)}
	for _, a := range answers {
		if d.Link != nil && a.class == token.Rejected { // there are no credentials
			continue
		}
		p.Conclude(&d, &exchange.Result{Verdict: token.Verdict{Class: a.class}})
		all = append(all, tell(p, &d, a.text))
	}
	return all
}

// tell says what the player of a decided call is told.
func tell(p *flow.Policy, d *flow.Decision, answer string) Told {
	reply := p.Reply(d)
	return Told{Answer: answer, Outcome: d.Outcome, Player: reply.Player, Then: reply.Then}
}

// placeholders are those of a request as Caddy's server has them.
func placeholders(r *http.Request) exchange.Lookup {
	repl := caddy.NewReplacer()
	ctx := context.WithValue(context.Background(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	caddyhttp.PrepareRequest(r.WithContext(ctx), repl, nil, &caddyhttp.Server{})
	return func(name string) string {
		text, _ := repl.GetString(name)
		return text
	}
}
