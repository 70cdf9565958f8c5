package settings

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

const (
	defaultTimeout = 15 * time.Second
	minTimeout     = 10 * time.Millisecond // less is a number without its unit
	// MaxTimeout is when players give up, by the constants of Sonos's self-test, and the most that Options.Timeout can be.
	MaxTimeout         = 20 * time.Second
	defaultMaxInFlight = 64

	defaultForgetAfter = 400 * 24 * time.Hour
	minForgetAfter     = 24 * time.Hour

	defaultReplay           = value.Retention(60 * time.Second)
	defaultRememberRejected = value.Retention(30 * time.Second)
)

// Settings are what is in force by Options: with defaults, and with placeholders replaced. They may hold secrets, and so
// stand where neither the admin API nor a log of the configuration looks.
type Settings struct {
	// URL is the token endpoint. It is nil where Issuer tells it, where there is none, and where a placeholder in it was
	// left as it is.
	URL    *url.URL
	Issuer string

	// Client has neither Secret nor Key, which Connect reads.
	Client token.Client

	// MaxInFlight is how many logins are at the token endpoint at once.
	MaxInFlight int

	// Replay and RememberRejected are 0 where they are off.
	Replay, RememberRejected time.Duration

	FailedLogins value.FailedLogins
	Fuse         value.Fuse
	Policy       flow.Policy
	Methods      []smapi.Method // that are answered

	// SignInClient is by whom listeners sign in, without Secret and Key, and DeviceURL where, nil where Issuer tells it.
	SignInClient token.Client
	DeviceURL    *url.URL

	// VaultKeyFile is the file with the vault's keys, blank where there is no vault, and ForgetAfter how long its records
	// are kept that nobody uses.
	VaultKeyFile string
	ForgetAfter  time.Duration

	clientKey, keyID string
}

// Key tells the token endpoint and its client from others. It is not to be shown. Settings without an endpoint share a
// blank one.
func (s *Settings) Key() string { return s.Where() + " " + s.Client.ID }

// Where is the token endpoint or the issuer, blank where there is neither. It is not to be shown.
func (s *Settings) Where() string {
	if s.URL != nil {
		return s.URL.String()
	}
	return s.Issuer
}

// Shown is Where without its query, which may have a key.
func (s *Settings) Shown() string {
	where, _, _ := strings.Cut(s.Where(), "?")
	return where
}

// Plain reports whether what is sent to the authorization server is not encrypted.
func (s *Settings) Plain() bool { return strings.HasPrefix(s.Where(), "http:") }

// Exchanger exchanges by these settings at an endpoint.
func (s *Settings) Exchanger(endpoint token.Config, state *exchange.State, budgets *pacing.Budgets) *exchange.Exchanger {
	return &exchange.Exchanger{
		Name:             s.Where(),
		Endpoint:         token.New(endpoint),
		State:            state,
		Places:           s.MaxInFlight,
		Fair:             s.Policy.Timeout / 2,
		Fuse:             float64(s.Fuse),
		Budgets:          budgets,
		Budget:           s.FailedLogins.Budget(),
		Replay:           s.Replay,
		RememberRejected: s.RememberRejected,
	}
}

// Resolve checks the options and returns the settings by them. It reads no secret of the client. Without a replacer the
// placeholders stay as they are, and what depends on them is not checked, as when a Caddyfile is adapted, maybe on another
// machine. Where files is given, texts follow the files in them.
//
// An error is a FieldError; the settings beside it are those that could be resolved.
func (o *Options) Resolve(repl *caddy.Replacer, files *Files) (s Settings, err error) {
	r := resolver{repl: repl, files: files}
	s = Settings{
		Client: token.Client{
			ID:       r.text("client_id", o.ClientID),
			Auth:     orDefault(o.ClientAuth, token.Basic),
			Audience: r.text("assertion_audience", o.AssertionAudience),
		},
		clientKey:   r.text("client_key", o.ClientKey),
		keyID:       r.text("key_id", o.KeyID),
		MaxInFlight: orDefault(o.MaxInFlight, defaultMaxInFlight),
		Policy: flow.Policy{
			Mode:               orDefault(o.Mode, ModeUpgrade),
			Households:         households.All,
			OnRejected:         orDefault(o.OnRejected, Reauthorize),
			ExpireSessionIDs:   o.ExpireSessionIDs,
			RefreshAuthTokens:  o.RefreshAuthTokens,
			AuthToken:          orDefault(r.text("auth_token", o.AuthToken), "access_token"),
			PrivateKey:         orDefault(r.text("private_key", o.PrivateKey), "refresh_token"),
			PrivateKeyFallback: r.text("private_key_fallback", o.PrivateKeyFallback),
			Timeout:            orDefault(time.Duration(o.Timeout), defaultTimeout),
		},
	}
	p := &s.Policy
	oneOf(&r, "mode", p.Mode, ModeUpgrade, ModeReauthorize, ModeObserve)
	o.resolveEndpoint(&r, &s)
	o.resolveClient(&r, &s)
	if o.FormCharset != "" && o.FormCharset != "utf-8" {
		r.fail("form_charset", fmt.Errorf("%w%s", errCharset, value.Meant(o.FormCharset, "utf-8")))
	}
	s.Replay = r.retention("replay", orDefault(o.Replay, defaultReplay))
	s.RememberRejected = r.retention("remember_rejected", orDefault(o.RememberRejected, defaultRememberRejected))
	s.FailedLogins, s.Fuse = value.DefaultFailedLogins, orDefault(o.Fuse, value.DefaultFuse)
	if o.FailedLogins != nil {
		s.FailedLogins = *o.FailedLogins
	}
	if p.Timeout < minTimeout || p.Timeout > MaxTimeout {
		r.fail("timeout", fmt.Errorf("has to be at least %v, and at most %v, when players give up (it is %v)", minTimeout, MaxTimeout, p.Timeout))
	}
	if s.MaxInFlight < 0 {
		r.fail("max_in_flight", fmt.Errorf("has to be at least 1 (it is %d)", s.MaxInFlight))
	}
	if o.PrivateKeyFallback != "" {
		if err := smapi.CheckToken(p.PrivateKeyFallback); err != nil {
			r.fail("private_key", fmt.Errorf("its fallback: %w", err))
		}
	}
	oneOf(&r, "on_rejected", p.OnRejected, Reauthorize, NotLinked)
	if o.Households != nil {
		if err := o.Households.Check(); err != nil {
			r.fail("households", err)
		}
		p.Households = *o.Households
	}
	o.resolveOldService(&r, p)
	o.rules(&r, &s)
	later := repl == nil && strings.Contains(p.PrivateKey, "{")
	if o.RefreshAuthTokens && p.PrivateKey != token.Refresh && !later {
		r.fail("refresh_auth_tokens", errNoRefresh)
	}
	o.resolveVault(&r, &s)
	s.Methods = p.Methods()
	return s, r.err
}

// asks reports whether anybody is asked. Upgraded homes that call an old service are served on in any mode.
func (o *Options) asks(s *Settings) bool {
	return s.Policy.Mode == ModeUpgrade || s.Policy.Mode == ModeReauthorize && o.SignIn != nil || o.OldService != nil
}

// resolveEndpoint resolves where the token endpoint is.
func (o *Options) resolveEndpoint(r *resolver, s *Settings) {
	switch {
	case o.TokenEndpoint != "" && o.Issuer != "":
		r.fail("issuer", errTwoEndpoints)
	case o.TokenEndpoint == "" && o.Issuer == "" && o.asks(s):
		r.fail("token_endpoint", errNoEndpoint)
	}
	s.URL = r.url("token_endpoint", o.TokenEndpoint, o.InsecureHTTP, token.ParseURL)
	s.Issuer = r.text("issuer", o.Issuer)
	r.url("issuer", o.Issuer, o.InsecureHTTP, token.ParseIssuer)
}

// resolveClient resolves how the client authenticates. Its secrets are read by whoever uses them.
func (o *Options) resolveClient(r *resolver, s *Settings) {
	oneOf(r, "client_auth", s.Client.Auth, token.Basic, token.BasicRaw, token.Post, token.PrivateKeyJWT, token.TLS, token.None)
	secret, key := s.Client.Auth.NeedsSecret(), s.Client.Auth == token.PrivateKeyJWT
	r.closed("client_secret", o.ClientSecret)
	if o.asks(s) {
		r.require("client_id", o.ClientID)
		if secret {
			r.require("client_secret", o.ClientSecret)
		}
		if key {
			r.require("client_key", o.ClientKey)
		}
	}
	for _, given := range [...]struct {
		field, value string
		used         bool
	}{
		{"client_secret", o.ClientSecret, secret},
		{"client_key", o.ClientKey, key},
		{"key_id", o.KeyID, key},
		{"assertion_audience", o.AssertionAudience, key},
	} {
		if given.value != "" && !given.used {
			r.fail(given.field, fmt.Errorf("is not used with client_auth %s", s.Client.Auth))
		}
	}
	transport := o.givenTransport()
	if s.Client.Auth == token.TLS && (!transport.hasClientCertificate() || s.Plain()) {
		r.fail("client_auth", errCertificate)
	}
}

// resolveVault settles where refresh tokens are kept. The keys are read by whoever uses them.
func (o *Options) resolveVault(r *resolver, s *Settings) {
	if o.Vault == nil {
		return
	}
	const field = "vault"
	r.require(field, o.Vault.KeyFile)
	s.VaultKeyFile = r.text(field, o.Vault.KeyFile)
	s.ForgetAfter = orDefault(time.Duration(o.Vault.ForgetAfter), defaultForgetAfter)
	if !o.RefreshAuthTokens {
		r.fail(field, errVaultRefresh)
	}
	if s.ForgetAfter < minForgetAfter {
		r.fail(field, fmt.Errorf("%w (it is %v)", errForgetAfter, s.ForgetAfter))
	}
	s.Policy.Vault = true
}

func orDefault[T comparable](value, def T) T {
	var unset T
	if value == unset {
		return def
	}
	return value
}
