package caddymodule

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
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
	url              *url.URL
	issuer           string
	clientID         string
	clientAuth       token.ClientAuth
	clientKey, keyID string
	audience         string
	maxInFlight      int
	replay           time.Duration
	rememberRejected time.Duration
	failedLogins     FailedLogins
	fuse             Fuse
	policy           flow.Policy
	methods          []smapi.Method // that are answered
}

// plain tells whether what is sent to the authorization server is not encrypted.
func (s *settings) plain() bool { return strings.HasPrefix(s.where(), "http:") }

// fieldError is a mistake in one field of the configuration. It never quotes what the field holds.
type fieldError struct {
	field string
	err   error
}

func (e fieldError) Error() string { return e.field + ": " + e.err.Error() }
func (e fieldError) Unwrap() error { return e.err }

var (
	errMissing      = errors.New("is required")
	errNoEndpoint   = errors.New("is required, or issuer in its place")
	errTwoEndpoints = errors.New("cannot be combined with token_endpoint")
	errScope        = errors.New("has a character that no scope has (RFC 6749 section 3.3)")
	errCertificate  = errors.New("tls needs a client certificate in transport, and https")
	errCharset      = errors.New("must be utf-8, in which every form is sent (RFC 6749 appendix B)")
	errNoRefresh    = errors.New("needs private_key to be refresh_token, so that players hold what refreshes their tokens")
)

// resolve checks the configuration and settles it. Without a replacer it checks only what needs none, as
// when a Caddyfile is adapted, maybe on another machine.
//
// Where watch is given, it has texts follow the files in them.
func (h *Handler) resolve(repl *caddy.Replacer, watch watchText) (s settings, err error) {
	r := resolver{repl: repl, watch: watch}
	s = settings{
		clientID:    r.text("client_id", h.ClientID),
		clientAuth:  orDefault(h.ClientAuth, token.Basic),
		clientKey:   r.text("client_key", h.ClientKey),
		keyID:       r.text("key_id", h.KeyID),
		audience:    r.text("assertion_audience", h.AssertionAudience),
		maxInFlight: orDefault(h.MaxInFlight, defaultMaxInFlight),
		policy: flow.Policy{
			Mode:               orDefault(h.Mode, ModeUpgrade),
			Households:         flow.AllHouseholds,
			OnRejected:         orDefault(h.OnRejected, Reauthorize),
			ExpireSessionIDs:   h.ExpireSessionIDs,
			RefreshAuthTokens:  h.RefreshAuthTokens,
			AuthToken:          orDefault(r.text("auth_token", h.AuthToken), "access_token"),
			PrivateKey:         orDefault(r.text("private_key", h.PrivateKey), "refresh_token"),
			PrivateKeyFallback: r.text("private_key_fallback", h.PrivateKeyFallback),
			Timeout:            orDefault(time.Duration(h.Timeout), defaultTimeout),
		},
	}
	p := &s.policy
	oneOf(&r, "mode", p.Mode, ModeUpgrade, ModeReauthorize, ModeObserve)
	h.resolveEndpoint(&r, &s)
	h.resolveClient(&r, &s)
	if h.FormCharset != "" && h.FormCharset != "utf-8" {
		r.fail("form_charset", errCharset)
	}
	s.replay = r.memory("replay", orDefault(h.Replay, defaultReplay))
	s.rememberRejected = r.memory("remember_rejected", orDefault(h.RememberRejected, defaultRememberRejected))
	s.failedLogins, s.fuse = defaultFailedLogins, orDefault(h.Fuse, defaultFuse)
	if h.FailedLogins != nil {
		s.failedLogins = *h.FailedLogins
	}
	if p.Timeout < minTimeout || p.Timeout > maxTimeout {
		r.fail("timeout", fmt.Errorf("has to be at least %v, and at most %v, when players give up", minTimeout, maxTimeout))
	}
	if s.maxInFlight < 0 {
		r.fail("max_in_flight", errors.New("has to be at least 1"))
	}
	if h.PrivateKeyFallback != "" {
		if err := smapi.CheckToken(p.PrivateKeyFallback); err != nil {
			r.fail("private_key", fmt.Errorf("its fallback: %w", err))
		}
	}
	oneOf(&r, "on_rejected", p.OnRejected, Reauthorize, NotLinked)
	if h.Households != nil {
		if err := h.Households.Check(); err != nil {
			r.fail("households", err)
		}
		p.Households = *h.Households
	}
	h.exchanges(&r, p)
	later := repl == nil && strings.Contains(p.PrivateKey, "{")
	if h.RefreshAuthTokens && p.PrivateKey != token.Refresh && !later {
		r.fail("refresh_auth_tokens", errNoRefresh)
	}
	s.methods = p.Methods()
	return s, r.err
}

// resolveEndpoint settles where the token endpoint is. Only exchanges need one.
func (h *Handler) resolveEndpoint(r *resolver, s *settings) {
	switch {
	case h.TokenEndpoint != "" && h.Issuer != "":
		r.fail("issuer", errTwoEndpoints)
	case h.TokenEndpoint == "" && h.Issuer == "" && s.policy.Mode == ModeUpgrade:
		r.fail("token_endpoint", errNoEndpoint)
	}
	s.url = r.url("token_endpoint", h.TokenEndpoint, h.InsecureHTTP, token.ParseURL)
	s.issuer = r.text("issuer", h.Issuer)
	r.url("issuer", h.Issuer, h.InsecureHTTP, token.ParseIssuer)
}

// resolveClient settles how the client proves itself. Its secrets are read by whoever uses them.
func (h *Handler) resolveClient(r *resolver, s *settings) {
	oneOf(r, "client_auth", s.clientAuth, token.Basic, token.BasicRaw, token.Post, token.PrivateKeyJWT, token.TLS, token.None)
	secret, key := s.clientAuth.NeedsSecret(), s.clientAuth == token.PrivateKeyJWT
	if s.policy.Mode == ModeUpgrade {
		r.require("client_id", h.ClientID)
		if secret {
			r.require("client_secret", h.ClientSecret)
		}
		if key {
			r.require("client_key", h.ClientKey)
		}
	}
	for _, given := range [...]struct {
		field, value string
		used         bool
	}{
		{"client_secret", h.ClientSecret, secret},
		{"client_key", h.ClientKey, key},
		{"key_id", h.KeyID, key},
		{"assertion_audience", h.AssertionAudience, key},
	} {
		if given.value != "" && !given.used {
			r.fail(given.field, fmt.Errorf("is not used with client_auth %s", s.clientAuth))
		}
	}
	transport := h.givenTransport()
	if s.clientAuth == token.TLS && (!transport.hasClientCertificate() || s.plain()) {
		r.fail("client_auth", errCertificate)
	}
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
	repl  *caddy.Replacer
	watch watchText
	err   error
}

// watchText returns what has a text follow the files in it.
type watchText func(field, text string) (get func() string, err error)

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
		return errors.New("has a placeholder that is not known or is empty; a brace that is meant needs a backslash before it")
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

func (r *resolver) url(field, value string, insecure bool, parse func(string, bool) (*url.URL, error)) *url.URL {
	text := r.text(field, value)
	if value == "" || r.repl == nil && strings.Contains(value, "{") {
		return nil
	}
	u, err := parse(text, insecure)
	if err != nil {
		r.fail(field, err)
	}
	return u
}

func oneOf[T ~string](r *resolver, field string, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		var names []string
		for _, a := range allowed {
			names = append(names, string(a))
		}
		r.fail(field, fmt.Errorf("has to be one of %s", strings.Join(names, ", ")))
	}
}
