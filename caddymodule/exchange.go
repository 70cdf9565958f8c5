package caddymodule

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// Exchange says how one kind of credentials is exchanged.
type Exchange struct {
	// The kind of credentials: `login` (user name and password), `session_id`, `login_token` (the token and
	// key of a DeviceLink account, the token from the `Authorization` header where the call has it there) or
	// `anonymous`. Required.
	Credentials smapi.Kind `json:"credentials,omitempty"`

	// The OAuth grant type: `password`, `urn:ietf:params:oauth:grant-type:token-exchange` (RFC 8693),
	// `urn:ietf:params:oauth:grant-type:jwt-bearer` (RFC 7523) or any other that the server has. Default:
	// `password` for `login`, token exchange for the others.
	GrantType string `json:"grant_type,omitempty"`

	// The form parameters of this exchange, by name; they take the place of those with the same name outside.
	// Values may have the placeholders `{smapi.household_id}`, `{smapi.device_id}`, `{smapi.device_provider}`
	// and those of the kind: `{smapi.username}` and `{smapi.password}` of `login`, `{smapi.session_id}` of
	// `session_id`, `{smapi.token}` and `{smapi.key}` of `login_token`. A parameter that comes to nothing is
	// left out. Default for the password grant: `username` and `password`; every other exchange but an
	// anonymous one has to pass on the account's credentials.
	Param map[string][]string `json:"param,omitempty"`

	// What answers to this exchange mean, where that differs from `on_error` outside.
	OnError OnError `json:"on_error,omitempty"`
}

// OnError says what failures mean: `rejected`, `unavailable` or `misconfigured`, by OAuth error or by HTTP
// status.
type OnError map[string]token.Class

// exchange is an Exchange that is settled but for the call.
type exchange struct {
	grantType string
	params    []param
	header    []param
	onError   OnError
	proofs    []string // placeholders, of which a call needs one
	variant   string   // a digest of all that, to tell the exchanges of handlers apart
}

type param struct {
	name  string
	value template
}

// grant is what is exchanged for a call that came with r.
func (x *exchange) grant(call *smapi.Call, r *http.Request) token.Grant {
	g := token.Grant{
		Type:     x.grantType,
		Params:   make([]token.Param, 0, len(x.params)),
		Identity: x.identity(call),
		Account:  accountOf(call),
		OnError:  x.onError,
	}
	for _, p := range x.params {
		if value := p.value.settle(call, r); value != "" {
			g.Params = append(g.Params, token.Param{Name: p.name, Value: value})
		}
	}
	for _, p := range x.header {
		// What a player sent may be no header, and is no reason to fail.
		if value := p.value.settle(call, r); value != "" && len(value) <= maxHeader && httpguts.ValidHeaderFieldValue(value) {
			if g.Header == nil {
				g.Header = make(http.Header, len(x.header))
			}
			g.Header[p.name] = append(g.Header[p.name], value)
		}
	}
	return g
}

// maxHeader is how long a header may become. A server that refuses a longer one would do so for whoever sends it.
const maxHeader = 1 << 10

// identity is what makes a call the same as another: the account and the home, since a token stands for one user in
// one household, and not the device. A refresh token is enough, because servers that rotate them take its second
// use for a theft.
func (x *exchange) identity(call *smapi.Call) []string {
	c := &call.Credentials
	if call.Method == smapi.RefreshAuthToken {
		return []string{c.Key}
	}
	return []string{x.variant, call.HouseholdID, string(c.Kind), c.Username, c.Password, c.SessionID, c.Token, c.Key}
}

// accountOf tells an account from others, in whatever home and by whatever password. Who has none is a home.
func accountOf(call *smapi.Call) string {
	switch c := &call.Credentials; c.Kind {
	case smapi.Login:
		return c.Username
	case smapi.SessionID:
		return c.SessionID
	case smapi.LoginToken:
		return c.Token + c.Key
	}
	return call.HouseholdID
}

// proven tells whether a call has credentials for the exchange to pass on.
func (x *exchange) proven(call *smapi.Call) bool {
	return len(x.proofs) == 0 || slices.ContainsFunc(x.proofs, func(p string) bool { return placeholders[p](call) != "" })
}

// Parameters that have a place of their own in the configuration or in the protocol.
var (
	reserved        = []string{"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type"}
	reservedOutside = []string{"scope", "username", "password", "refresh_token"}
)

// reservedHeader are the headers that make the request what it is. Idempotency-Key makes Go's transport send a
// POST again.
var reservedHeader = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host",
	"Idempotency-Key", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Idempotency-Key",
}

func checkParam(name string) error {
	if slices.Contains(reservedOutside, name) {
		return fmt.Errorf("%q cannot be set by param", name)
	}
	return checkExchangeParam(name)
}

func checkExchangeParam(name string) error {
	if name == "" || slices.Contains(reserved, name) {
		return fmt.Errorf("%q cannot be set by param", name)
	}
	return nil
}

func checkHeader(name string) error {
	if !httpguts.ValidHeaderFieldName(name) || slices.Contains(reservedHeader, http.CanonicalHeaderKey(name)) {
		return fmt.Errorf("%q cannot be set by header", name)
	}
	return nil
}

// exchanges settles how every kind of credentials is exchanged, and how tokens are refreshed.
func (h *Handler) exchanges(r *resolver) (byKind map[smapi.Kind]*exchange, refresh *exchange) {
	outside := r.params("param", h.Param, checkParam, identifiers, false)
	header := r.params("header", h.Header, checkHeader, identifiers, true)
	onError := r.onError("on_error", h.OnError)
	for i := range header {
		header[i].name = http.CanonicalHeaderKey(header[i].name)
		r.checkHeaderValue(header[i], h.ClientAuth)
	}

	settle := func(field string, x Exchange, outside []param) *exchange {
		params := r.params(field, x.Param, checkExchangeParam, x.allowed(), false)
		for _, p := range outside {
			if _, given := x.Param[p.name]; !given {
				params = append(params, p)
			}
		}
		settled := &exchange{grantType: r.text(field, x.GrantType), params: params, header: header, onError: OnError{}}
		maps.Copy(settled.onError, onError)
		maps.Copy(settled.onError, r.onError(field, x.OnError))
		for _, proof := range proofs[x.Credentials] {
			if proof.proves && settled.has(proof.placeholder) {
				settled.proofs = append(settled.proofs, proof.placeholder)
			}
		}
		if len(settled.proofs) == 0 && x.Credentials != smapi.Anonymous {
			r.fail(field, errNoProof) // it would hand out tokens whoever asks
		}
		variant := sha256.Sum256(fmt.Append(nil, settled.grantType, settled.params, settled.header))
		settled.variant = string(variant[:])
		return settled
	}

	// RFC 6749 section 6: without a scope a refresh keeps what was granted.
	refresh = settle("refresh_auth_tokens", Exchange{
		Credentials: smapi.LoginToken,
		GrantType:   token.Refresh,
		Param:       map[string][]string{"refresh_token": {"{smapi.key}"}},
	}, outside)

	if len(h.Scope) > 0 {
		outside = append(outside, param{"scope", template{{text: r.scope(h.Scope)}}})
	}
	given := h.Exchange
	if len(given) == 0 {
		given = []Exchange{{Credentials: smapi.Login}}
	}
	byKind = make(map[smapi.Kind]*exchange, len(given))
	for _, x := range given {
		field := "exchange " + string(x.Credentials)
		if _, known := proofs[x.Credentials]; !known {
			r.fail("exchange", errKind)
			continue
		}
		if byKind[x.Credentials] != nil {
			r.fail(field, errTwice)
		}
		byKind[x.Credentials] = settle(field, x.withDefaults(), outside)
	}
	return byKind, refresh
}

var (
	errHeaderValue   = errors.New("has a value that no header can have: a line break, or more than 1024 bytes")
	errAuthorization = errors.New("the header Authorization is what client_auth basic proves the client by")

	errKind   = errors.New("needs the kind of credentials, one of login, session_id, login_token and anonymous")
	errTwice  = errors.New("is given twice")
	errStatus = errors.New("needs an OAuth error or a status from 300 to 599, and rejected, unavailable or misconfigured")
)

// allowed are the placeholders that its parameters can have.
func (x Exchange) allowed() []string {
	var all []string
	for _, p := range proofs[x.Credentials] {
		all = append(all, p.placeholder)
	}
	return append(all, identifiers...)
}

func (x Exchange) withDefaults() Exchange {
	const password = "password"
	if x.GrantType == "" {
		if x.GrantType = token.TokenExchange; x.Credentials == smapi.Login {
			x.GrantType = password
		}
	}
	if x.GrantType == password && x.Credentials == smapi.Login {
		params := map[string][]string{"username": {"{smapi.username}"}, password: {"{smapi.password}"}}
		maps.Copy(params, x.Param)
		x.Param = params
	}
	return x
}

func (x *exchange) has(placeholder string) bool {
	return slices.ContainsFunc(x.params, func(p param) bool { return p.value.has(placeholder) })
}

// checkHeaderValue refuses what could never go out, and what client_auth overwrites.
func (r *resolver) checkHeaderValue(p param, auth token.ClientAuth) {
	for _, piece := range p.value {
		if !httpguts.ValidHeaderFieldValue(piece.text) || len(piece.text) > maxHeader {
			r.fail("header", errHeaderValue)
		}
	}
	if p.name == "Authorization" && (auth == "" || auth == token.Basic || auth == token.BasicRaw) {
		r.fail("header", errAuthorization)
	}
}

func (r *resolver) params(field string, byName map[string][]string, check func(string) error, allowed []string, request bool) []param {
	var params []param
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if err := check(name); err != nil {
			r.fail(field, err)
		}
		for _, value := range byName[name] {
			params = append(params, param{name, r.template(field, value, allowed, request)})
		}
	}
	return params
}

func (r *resolver) onError(field string, byError OnError) OnError {
	for name, class := range byError {
		switch class {
		case token.Rejected, token.Unavailable, token.Misconfigured:
		default:
			r.fail(field, errStatus)
		}
		status, err := strconv.Atoi(name)
		if err == nil && (status < 300 || status > 599 || strconv.Itoa(status) != name) || !isOAuthError(name) {
			r.fail(field, errStatus)
		}
	}
	return byError
}

// isOAuthError tells whether a text can be one: RFC 6749 section 5.2.
func isOAuthError(text string) bool {
	return text != "" && strings.TrimSpace(text) == text && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' })
}
