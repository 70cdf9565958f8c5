package caddymodule

import (
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// MaxTimeout is when players give up, and the most that Handler.Timeout can be.
const MaxTimeout = maxTimeout

// Settings are a configuration with its defaults and placeholders settled, for who looks at a handler and does not serve
// by it. They may hold secrets.
type Settings struct {
	// URL is the token endpoint. It is nil where Issuer tells it, where there is none, or where a placeholder in it was
	// left as it is.
	URL    *url.URL
	Issuer string

	// Shown is the token endpoint or the issuer without its query, which may have a key. Blank is none.
	Shown string

	// Key tells the token endpoint and its client from others. It is not to be shown.
	Key string

	// Client has neither Secret nor Key.
	Client token.Client

	Policy  flow.Policy
	Methods []smapi.Method // that are answered
}

// Settle checks the configuration and settles it. It reads no secret of the client and keeps nothing. Without a replacer
// the placeholders stay as they are, and what depends on them is not checked. Its errors name a field and never quote
// what it holds; the settings beside an error are those that could be settled.
func (h *Handler) Settle(repl *caddy.Replacer) (Settings, error) {
	s, err := h.resolve(repl, nil)
	return s.shared(), err
}

// Settings are those by which a handler serves, after Provision.
func (h *Handler) Settings() Settings { return h.settings.shared() }

func (s *settings) shared() Settings {
	return Settings{
		URL: s.url, Issuer: s.issuer, Shown: s.shown(), Key: s.key(),
		Client:  token.Client{ID: s.clientID, Auth: s.clientAuth, Audience: s.audience},
		Policy:  s.policy,
		Methods: s.methods,
	}
}

// Exchanger exchanges as the handler does, and what it asks is made of the Config. It is nil before Provision, and in every
// mode but `upgrade`.
func (h *Handler) Exchanger() (*flow.Exchanger, token.Config) { return h.exchanger, h.endpoint }

// Secrets tell how the secrets are that come from files, after Provision.
func (h *Handler) Secrets(now time.Time) []secret.Status {
	all := make([]secret.Status, 0, len(h.secrets))
	for _, s := range h.secrets {
		all = append(all, s.Status(now))
	}
	return all
}
