package settings

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

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

// CheckParam checks one of Options.Param or SignIn.Param. Placeholders stay as they are.
func CheckParam(name, value string) error {
	return checkPair("param", name, value, checkParam, identifiers, false)
}

// CheckHeader checks one of Options.Header. Placeholders stay as they are.
func CheckHeader(name, value string) error {
	return checkPair("header", name, value, checkHeader, identifiers, true)
}

// CheckParam checks one of its Param, given its Credentials. Placeholders stay as they are.
func (x *Exchange) CheckParam(name, value string) error {
	return checkPair("param", name, value, checkExchangeParam, exchange.Placeholders(x.Credentials), false)
}

func checkPair(field, name, value string, check func(string) error, allowed []string, request bool) error {
	if err := check(name); err != nil {
		return err
	}
	r := resolver{}
	r.template(field, value, allowed, request)
	return r.err
}

// Check finds a name or a meaning that there is not.
func (e OnError) Check() error {
	r := resolver{}
	r.onError("on_error", e)
	return r.err
}

// rules are how every kind of credentials is exchanged, and how tokens are refreshed.
func (o *Options) rules(r *resolver, s *Settings) {
	p := &s.Policy
	outside := r.params("param", o.Param, checkParam, identifiers, false)
	header := r.params("header", o.Header, checkHeader, identifiers, true)
	onError := r.onError("on_error", o.OnError)
	for i := range header {
		header[i].Name = http.CanonicalHeaderKey(header[i].Name)
		r.checkHeaderValue(header[i], o.ClientAuth)
	}

	complete := func(field string, x Exchange, outside []exchange.Param) *exchange.Rule {
		params := r.params(field, x.Param, checkExchangeParam, exchange.Placeholders(x.Credentials), false)
		for _, p := range outside {
			if _, given := x.Param[p.Name]; !given {
				params = append(params, p)
			}
		}
		meanings := OnError{}
		maps.Copy(meanings, onError)
		maps.Copy(meanings, r.onError(field, x.OnError))
		completed := exchange.NewRule(exchange.Rule{
			GrantType: r.text(field, x.GrantType), Params: params, Header: header, OnError: meanings,
		}, x.Credentials, append([]string{p.AuthToken, p.PrivateKey, o.FormCharset}, tokenFields(p)...)...)
		if !completed.PassesCredentials() {
			r.fail(field, errNoCredentials)
		}
		return completed
	}

	// RFC 6749 section 6: without a scope a refresh keeps what was granted.
	p.Refresh = complete("refresh_auth_tokens", Exchange{
		Credentials: smapi.LoginToken,
		GrantType:   token.Refresh,
		Param:       map[string][]string{"refresh_token": {"{smapi.key}"}},
	}, outside)

	o.signIn(r, s, outside, header)
	if len(o.Scope) > 0 {
		outside = append(outside, scopeParam(r.scope(o.Scope)))
	}
	given := o.Exchange
	if len(given) == 0 {
		given = []Exchange{{Credentials: smapi.Login}}
	}
	p.Rules = make(map[smapi.Kind]*exchange.Rule, len(given))
	for _, x := range given {
		field := "exchange " + string(x.Credentials)
		if !slices.Contains(exchange.Kinds, x.Credentials) {
			r.fail("exchange", UnknownKind(x.Credentials))
			continue
		}
		if p.Rules[x.Credentials] != nil {
			r.fail(field, errTwice)
		}
		p.Rules[x.Credentials] = complete(field, x.withDefaults(), outside)
	}
}

func scopeParam(scope string) exchange.Param {
	return exchange.Param{Name: "scope", Value: exchange.Template{{Text: func() string { return scope }}}, Source: scope}
}

// identifiers are the placeholders that every kind of credentials has. They are no secrets.
var identifiers = exchange.Placeholders("")

var (
	errHeaderValue   = errors.New("has a value that no header can have: a line break, or more than 1024 bytes")
	errAuthorization = errors.New("the header Authorization is set by client_auth basic; choose another client_auth, or another header")

	errKind   = errors.New("needs the kind of credentials, one of login, session_id, login_token and anonymous")
	errTwice  = errors.New("is given twice")
	errStatus = errors.New("needs an OAuth error or a status from 300 to 599, and rejected, unavailable or misconfigured")
)

// UnknownKind is the error of a kind of credentials that there is not.
func UnknownKind(kind smapi.Kind) error { return meantKind(errKind, kind) }

func meantKind(err error, kind smapi.Kind) error {
	var kinds []string
	for _, k := range exchange.Kinds {
		kinds = append(kinds, string(k))
	}
	return fmt.Errorf("%w%s", err, value.Meant(string(kind), kinds...))
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

// checkHeaderValue refuses what could never go out, and what client_auth overwrites.
func (r *resolver) checkHeaderValue(p exchange.Param, auth token.ClientAuth) {
	for _, piece := range p.Value {
		if piece.Text == nil {
			continue
		}
		if text := piece.Text(); !httpguts.ValidHeaderFieldValue(text) || len(text) > exchange.MaxHeader {
			r.fail("header", errHeaderValue)
		}
	}
	if p.Name == "Authorization" && (auth == "" || auth == token.Basic || auth == token.BasicRaw) {
		r.fail("header", errAuthorization)
	}
}

func (r *resolver) params(field string, byName map[string][]string, check func(string) error, allowed []string, request bool) []exchange.Param {
	var params []exchange.Param
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if err := check(name); err != nil {
			r.fail(field, err)
		}
		for _, value := range byName[name] {
			params = append(params, exchange.Param{Name: name, Value: r.template(field, value, allowed, request), Source: value})
		}
	}
	return params
}

func (r *resolver) onError(field string, byError OnError) OnError {
	for name, class := range byError {
		switch class {
		case token.Rejected, token.Unavailable, token.Misconfigured:
		default:
			r.fail(field, fmt.Errorf("%w%s", errStatus, value.Meant(string(class), string(token.Rejected), string(token.Unavailable), string(token.Misconfigured))))
		}
		status, err := strconv.Atoi(name)
		ofStatus := err == nil && len(name) < 5 // WSO2's errors are longer numbers
		if ofStatus && (status < 300 || status > 599 || strconv.Itoa(status) != name) || !isOAuthError(name) {
			r.fail(field, errStatus)
		}
	}
	return byError
}

// notOneStatus is what is meant for several statuses, or for one and a suberror.
var notOneStatus = regexp.MustCompile(`(?i)^\d(xx|\d\d[^0-9a-z_]).*$`)

// isOAuthError reports whether a text can be one (RFC 6749 section 5.2), also with a suberror behind a slash. Placeholders are
// not replaced in it.
func isOAuthError(text string) bool {
	name, suberror, with := strings.Cut(text, "/")
	if name == "" || with && suberror == "" || strings.Contains(suberror, "/") || strings.ContainsAny(text, "{}") || notOneStatus.MatchString(text) {
		return false
	}
	return text != "" && strings.TrimSpace(text) == text && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' })
}
