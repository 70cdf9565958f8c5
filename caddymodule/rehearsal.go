package caddymodule

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
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// rehearse has the exchange send its request to nowhere.
func (h *Handler) rehearse(d *decision, grant token.Grant) (*exchangeFacts, error) {
	s, sent := &h.settings, &rehearsal{answer: h.tokens()}
	key, err := anyKey()
	if err != nil {
		return nil, err
	}
	where := cmp.Or(s.url, &url.URL{Scheme: "https", Host: "token-endpoint.invalid"})
	endpoint := token.New(token.Config{
		URL: where,
		Client: token.Client{
			ID: s.clientID, Auth: s.clientAuth, Audience: s.audience,
			Secret: func() string { return "not read" },
			Key:    func() *token.Key { return key },
		},
		MaxInFlight: 1,
		State:       token.NewState(token.Watch{}),
		Transport:   sent,
		Context:     context.Background(),
	})
	d.result = endpoint.Exchange(context.Background(), time.Now().Add(s.timeout), grant)
	d.conclude(s)
	x := &exchangeFacts{GrantType: grant.Type, Headers: slices.Sorted(maps.Keys(sent.header)), OnError: grant.OnError}
	for field := range strings.SplitSeq(sent.form, "&") {
		name, value, _ := strings.Cut(field, "=")
		name, _ = url.QueryUnescape(name)
		value, _ = url.QueryUnescape(value)
		x.Params = append(x.Params, named{name, maskParam(name, value)})
	}
	for _, p := range d.exchange.header {
		if grant.Header[p.name] == nil && !slices.Contains(x.LeftOut, p.name) {
			x.LeftOut = append(x.LeftOut, p.name)
		}
	}
	return x, nil
}

// maskParam shows the grant type alone. The client's own proof was made up.
func maskParam(name, value string) string {
	switch name {
	case "grant_type":
		return value
	case "client_secret", "client_assertion":
		return "***"
	}
	return cmp.Or(mask(value), "***(0)")
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

// tokens is an answer with the fields that become the player's tokens.
func (h *Handler) tokens() []byte {
	text, _ := json.Marshal(map[string]string{h.settings.authToken: "token", h.settings.privateKey: "key"})
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
	{token.Overloaded, "no place in time"},
	{token.Misconfigured, "client refused, tokens unfit"},
}

// tellAll says what every answer comes to, the one with tokens first, to which d has come.
func (h *Handler) tellAll(d decision) []told {
	all := []told{h.tell(&d, "tokens that fit")}
	for _, a := range answers {
		d := decision{call: d.call, exchange: d.exchange, result: token.Result{Class: a.class}}
		d.conclude(&h.settings)
		all = append(all, h.tell(&d, a.text))
	}
	return all
}

const (
	pairOfTokens = "the pair of tokens"
	blankPair    = "a blank pair"
)

// tell says what the player of a decided call is told.
func (h *Handler) tell(d *decision, answer string) told {
	t := told{Answer: answer, Outcome: d.outcome}
	switch fault := h.fault(d); {
	case fault != nil:
		t.Player = fault.Code
	case d.authToken != "":
		t.Player = pairOfTokens
	default:
		t.Player = blankPair
	}
	return t
}

// does says what a player does then.
func (t *told) does(method smapi.Method) string {
	switch t.Player {
	case smapi.ServiceUnavailable.Code:
		return "keeps what it has, and may ask again"
	case smapi.NotLinkedFailure.Code:
		return "stops asking, until it is linked again"
	case pairOfTokens:
		return "plays on with them"
	}
	if method == smapi.GetSessionID {
		return "upgrades, if it knows the new version"
	}
	return "its listener signs in again"
}
