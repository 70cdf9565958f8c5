package caddymodule

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

const (
	defaultTimeout = 15 * time.Second
	minTimeout     = 10 * time.Millisecond // less is a number without its unit
	// maxTimeout is when players give up, by the constants of Sonos's self-test.
	maxTimeout         = 20 * time.Second
	defaultMaxInFlight = 64

	defaultReplay           = Memory(60 * time.Second)
	defaultRememberRejected = Memory(30 * time.Second)
)

// settings are a configuration with its defaults and placeholders settled. They may hold secrets, and so
// stand where neither the admin API nor a log of the configuration looks.
type settings struct {
	url                    *url.URL
	clientID, clientSecret string
	clientAuth             token.ClientAuth
	params                 []token.Param
	timeout                time.Duration
	maxInFlight            int
	replay                 time.Duration
	rememberRejected       time.Duration
	authToken, privateKey  string
	privateKeyFallback     string
	onRejected             OnRejected
}

// fieldError is a mistake in one field of the configuration. It never quotes what the field holds.
type fieldError struct {
	field string
	err   error
}

func (e fieldError) Error() string { return e.field + ": " + e.err.Error() }
func (e fieldError) Unwrap() error { return e.err }

var (
	errMissing       = errors.New("is required")
	errNoURL         = errors.New("is no absolute http or https URL")
	errScope         = errors.New("has a character that no scope has (RFC 6749 section 3.3)")
	errProxy         = errors.New("cannot be set up with its proxy")
	errURLParts      = errors.New("has a user or a fragment, which a token endpoint cannot have")
	errHTTP          = errors.New("is http beyond loopback, which sends passwords in the clear; use https, or allow it with insecure_http")
	errSecretUnused  = errors.New("is not used with client_auth none")
	errTransportKind = errors.New("only the http transport can reach a token endpoint")
	errProxyProtocol = errors.New("proxy_protocol has no client to speak of here")
	errTransportTLS  = errors.New("is set up for TLS, but token_endpoint is http")
)

// resolve checks the configuration and settles it. Without a replacer it checks only what needs none, as
// when a Caddyfile is adapted, maybe on another machine.
func (h *Handler) resolve(repl *caddy.Replacer) (s settings, err error) {
	r := resolver{repl: repl}
	s = settings{
		clientID:           r.text("client_id", h.ClientID),
		clientSecret:       r.text("client_secret", h.ClientSecret),
		clientAuth:         orDefault(h.ClientAuth, token.Basic),
		timeout:            orDefault(time.Duration(h.Timeout), defaultTimeout),
		maxInFlight:        orDefault(h.MaxInFlight, defaultMaxInFlight),
		authToken:          orDefault(r.text("auth_token", h.AuthToken), "access_token"),
		privateKey:         orDefault(r.text("private_key", h.PrivateKey), "refresh_token"),
		privateKeyFallback: r.text("private_key_fallback", h.PrivateKeyFallback),
		onRejected:         orDefault(h.OnRejected, Reauthorize),
	}
	s.replay = r.memory("replay", orDefault(h.Replay, defaultReplay))
	s.rememberRejected = r.memory("remember_rejected", orDefault(h.RememberRejected, defaultRememberRejected))
	s.url = r.endpoint(h.TokenEndpoint, h.InsecureHTTP)
	s.params = r.params(h.Param)
	if len(h.Scope) > 0 {
		s.params = append(s.params, token.Param{Name: "scope", Value: r.scope(h.Scope)})
	}

	r.require("client_id", h.ClientID)
	oneOf(&r, "client_auth", s.clientAuth, token.Basic, token.BasicRaw, token.Post, token.None)
	if s.clientAuth.NeedsSecret() {
		r.require("client_secret", h.ClientSecret)
	} else if h.ClientSecret != "" {
		r.fail("client_secret", errSecretUnused)
	}
	if s.timeout < minTimeout || s.timeout > maxTimeout {
		r.fail("timeout", fmt.Errorf("has to be at least %v, and at most %v, when players give up", minTimeout, maxTimeout))
	}
	if s.maxInFlight < 0 {
		r.fail("max_in_flight", errors.New("has to be at least 1"))
	}
	if h.PrivateKeyFallback != "" {
		if err := smapi.CheckToken(s.privateKeyFallback); err != nil {
			r.fail("private_key", fmt.Errorf("its fallback: %w", err))
		}
	}
	oneOf(&r, "on_rejected", s.onRejected, Reauthorize, NotLinked)
	return s, r.err
}

func orDefault[T comparable](value, def T) T {
	var unset T
	if value == unset {
		return def
	}
	return value
}

// resolver replaces placeholders and keeps the first mistake.
type resolver struct {
	repl *caddy.Replacer
	err  error
}

func (r *resolver) fail(field string, err error) {
	if r.err == nil {
		r.err = fieldError{field, err}
	}
}

func (r *resolver) require(field, value string) {
	if value == "" {
		r.fail(field, errMissing)
	}
}

func (r *resolver) text(field, value string) string {
	if r.repl == nil || value == "" {
		return value
	}
	text, err := r.repl.ReplaceOrErr(value, true, true)
	if err != nil {
		r.fail(field, noValue(value)) // err quotes what may be a part of a secret with a brace in it
	}
	return text
}

// noValue says what is wrong with a placeholder, and names it where it cannot be a secret.
func noValue(value string) error {
	name := strings.TrimSuffix(strings.TrimPrefix(value, "{"), "}")
	if strings.ContainsAny(name, "{}") || len(value) != len(name)+2 {
		return errors.New("has a placeholder that is not known or comes to nothing; a brace that is meant needs a backslash before it")
	}
	if variable, ok := strings.CutPrefix(name, "env."); ok {
		return fmt.Errorf("the environment variable %s is not set, or blank", variable)
	}
	if file, ok := strings.CutPrefix(name, "file."); ok {
		return fmt.Errorf("the file %s cannot be read, or is blank", file)
	}
	return errors.New("is a placeholder that is not known; {env.NAME} and {file./path} are")
}

// memory is 0 where it is off.
func (r *resolver) memory(field string, m Memory) time.Duration {
	if m != off && (m < 0 || m > maxMemory) {
		r.fail(field, errMemory)
	}
	return max(0, time.Duration(m))
}

func (r *resolver) scope(scopes []string) string {
	const field = "scope"
	for _, scope := range scopes {
		r.require(field, scope)
	}
	text := r.text(field, strings.Join(scopes, " "))
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		r.fail(field, errScope)
	}
	return text
}

func (r *resolver) endpoint(value string, insecure bool) *url.URL {
	const field = "token_endpoint"
	r.require(field, value)
	text := r.text(field, value)
	if r.repl == nil && strings.Contains(value, "{") {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || !validPort(u.Port()):
		r.fail(field, errNoURL)
	case u.User != nil || u.Fragment != "":
		r.fail(field, errURLParts)
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		r.fail(field, errHTTP)
	}
	return u
}

func validPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// reserved are the parameters that have a place of their own in the configuration or in the exchange.
var reserved = []string{"grant_type", "client_id", "client_secret", "scope", "username", "password"}

func checkParam(name string) error {
	if name == "" || slices.Contains(reserved, name) {
		return fmt.Errorf("%q cannot be set by param", name)
	}
	return nil
}

func (r *resolver) params(byName map[string][]string) []token.Param {
	var params []token.Param
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if err := checkParam(name); err != nil {
			r.fail("param", err)
		}
		for _, value := range byName[name] {
			params = append(params, token.Param{Name: name, Value: r.text("param", value)})
		}
	}
	return params
}

func oneOf[T ~string](r *resolver, field string, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		r.fail(field, fmt.Errorf("has to be one of %v", allowed))
	}
}
