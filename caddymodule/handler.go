// Package caddymodule is the Caddy module http.handlers.smapi_upgrade.
package caddymodule

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler moves the listeners of an old Sonos music service to OAuth. It answers the upgrade call of Sonos
// players, `getDeviceAuthToken` without a `linkCode`, by exchanging the account's old credentials at an
// OAuth 2.0 token endpoint, and hands every other request on to the next handler as it came.
//
// The token endpoint is asked once per call: no redirect is followed and no failed exchange is repeated, so
// that a wrong password costs its account one failed login.
//
// All text fields may hold global placeholders such as `{env.CLIENT_ID}` or `{file./run/secrets/client}`,
// which are replaced when the configuration is loaded; a field whose placeholder comes to nothing is an error.
type Handler struct {
	// The URL of the OAuth 2.0 token endpoint. Required. It has to be `https` unless its host is loopback;
	// see `insecure_http`.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// The client id at the token endpoint. Required.
	ClientID string `json:"client_id,omitempty"`

	// The client's secret. Required unless `client_auth` is `none`. Use a placeholder, so that the secret
	// itself is no part of the configuration, which the admin API, the autosaved configuration and Caddy's
	// own debug log show.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the client proves itself: `basic` (HTTP Basic, form-encoded first as RFC 6749 has it), `basic_raw`
	// (HTTP Basic without the encoding; it matters for special characters only), `post` (in the form) or
	// `none` (a public client). Default: `basic`.
	ClientAuth token.ClientAuth `json:"client_auth,omitempty"`

	// The scopes to ask for. Most servers issue a refresh token only for one that says so, such as
	// `offline_access`. Default: none, which leaves it to the server.
	Scope []string `json:"scope,omitempty"`

	// Extra form parameters of every exchange, by name.
	Param map[string][]string `json:"param,omitempty"`

	// How long a call may take in all, from its arrival to its answer, the wait for a place at the token
	// endpoint included. At most 20s, when players give up. Default: `15s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How many exchanges are under way at the token endpoint at once. The others wait in order of arrival, at
	// most 1000 for each of these; who cannot get an answer in time at the recent pace is turned away early.
	// Handlers with the same token endpoint and client share the places, across configuration reloads too.
	// Default: 64.
	MaxInFlight int `json:"max_in_flight,omitempty"`

	// For how long the same call (the same credentials from the same household) gets the tokens again that
	// were issued to it, without another login: players that lose an answer ask again. At most 16384 are
	// kept, in memory only. A duration or `off`. Default: `60s`.
	Replay Memory `json:"replay,omitempty"`

	// For how long the same call is rejected again without asking, so that repeats do not lock the account.
	// Other credentials are tried at once. At most 65536 are kept, in memory only. A duration or `off`.
	// Default: `30s`.
	RememberRejected Memory `json:"remember_rejected,omitempty"`

	// The HTTP transport to the token endpoint, as in `reverse_proxy`: certificate authorities, client
	// certificates, a proxy, timeouts. Only `http` is supported, without `proxy_protocol`. Differing from
	// `reverse_proxy`, idle connections are kept for 4s, which is less than the 5s after which some servers
	// close them, unless `keep_alive` has an `idle_timeout`; and as many are kept as may be in flight.
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	// Allows an `http` token endpoint beyond loopback. Passwords then cross the network in the clear.
	InsecureHTTP bool `json:"insecure_http,omitempty"`

	// The field of the token response that becomes the player's `authToken`. Default: `access_token`.
	AuthToken string `json:"auth_token,omitempty"`

	// The field of the token response that becomes the player's `privateKey`, with which it refreshes its
	// token later. Default: `refresh_token`.
	PrivateKey string `json:"private_key,omitempty"`

	// The `privateKey` for responses without that field, literally. Without a fallback such a response is
	// an error, because the account could never refresh its token.
	PrivateKeyFallback string `json:"private_key_fallback,omitempty"`

	// What the player is told when the credentials are refused for good: `reauthorize` (a blank pair, upon
	// which the Sonos app asks the listener to sign in again) or `not_linked` (the fault
	// `Client.NOT_LINKED_FAILURE`). Default: `reauthorize`.
	OnRejected OnRejected `json:"on_rejected,omitempty"`

	settings settings
	endpoint *token.Endpoint
	stateKey string
	logger   *zap.Logger
}

// OnRejected is what a player is told when its credentials were refused for good.
type OnRejected string

// The values of OnRejected.
const (
	Reauthorize OnRejected = "reauthorize"
	NotLinked   OnRejected = "not_linked"
)

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.smapi_upgrade",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets the handler up. It does no network I/O.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	var err error
	if h.settings, err = h.resolve(caddy.NewReplacer()); err != nil {
		return err
	}
	if h.settings.url.Scheme == "http" && h.InsecureHTTP {
		h.logger.Warn("passwords go to the token endpoint in the clear, because of insecure_http")
	}
	if h.ClientSecret != "" && h.ClientSecret == h.settings.clientSecret {
		h.logger.Warn("client_secret is no placeholder: the admin API, the autosaved configuration and Caddy's debug log show it")
	}
	transport, err := h.loadTransport(ctx)
	if err != nil {
		return fieldError{"transport", err}
	}
	state, err := h.loadState()
	if err != nil {
		return err
	}
	h.endpoint = token.New(token.Config{
		URL:          h.settings.url,
		ClientID:     h.settings.clientID,
		ClientSecret: h.settings.clientSecret,
		ClientAuth:   h.settings.clientAuth,
		Params:       h.settings.params,
		MaxInFlight:  h.settings.maxInFlight,
		Transport:    transport,
		State:        state,

		Replay:           h.settings.replay,
		RememberRejected: h.settings.rememberRejected,

		// Not the request's context: reverse_proxy, and so forward_auth, leaves there where to dial, and
		// the transport would send the password to that address.
		Context: context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()),
	})
	return nil
}

// states are the States of the token endpoints in use, by endpoint and client. They outlive configurations.
var states = caddy.NewUsagePool()

// pooled is a State in the pool. There is nothing to close: exchanges in flight finish on their own.
type pooled struct{ *token.State }

func (pooled) Destruct() error { return nil }

func (h *Handler) loadState() (*token.State, error) {
	key := h.settings.url.String() + " " + h.settings.clientID
	state, _, err := states.LoadOrNew(key, func() (caddy.Destructor, error) { return pooled{token.NewState()}, nil })
	if err != nil {
		return nil, err
	}
	h.stateKey = key
	return state.(pooled).State, nil
}

// Cleanup gives up what the handler shares with others. It does not wait for exchanges in flight.
func (h *Handler) Cleanup() error {
	if h.stateKey == "" {
		return nil
	}
	_, err := states.Delete(h.stateKey)
	return err
}

// loadTransport provisions the transport of the configuration, with the defaults that logins need.
func (h *Handler) loadTransport(ctx caddy.Context) (*reverseproxy.HTTPTransport, error) {
	if h.TransportRaw == nil {
		h.TransportRaw = json.RawMessage(`{"protocol":"http"}`)
	}
	var given struct {
		KeepAlive struct {
			IdleTimeout *caddy.Duration `json:"idle_timeout"`
		} `json:"keep_alive"`
		Proxy    json.RawMessage `json:"network_proxy"`
		ProxyURL string          `json:"forward_proxy_url"`
	}
	_ = json.Unmarshal(h.TransportRaw, &given) // LoadModule reports what is wrong with it

	module, err := ctx.LoadModule(h, "TransportRaw")
	if err != nil && (given.Proxy != nil || given.ProxyURL != "") {
		return nil, errProxy // err may quote its URL, which may have a password
	}
	if err != nil {
		return nil, err
	}
	transport, ok := module.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil, errTransportKind
	}
	if transport.ProxyProtocol != "" {
		return nil, errProxyProtocol
	}
	if transport.TLS != nil && h.settings.url.Scheme == "http" {
		return nil, errTransportTLS
	}
	if given.KeepAlive.IdleTimeout == nil {
		transport.Transport.IdleConnTimeout = 4 * time.Second
	}
	transport.Transport.MaxIdleConnsPerHost = max(transport.Transport.MaxIdleConnsPerHost, h.settings.maxInFlight)
	return transport, nil
}

// ServeHTTP answers an upgrade call and forwards everything else.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	call, err := smapi.Read(r)
	if call == nil {
		if err != nil {
			h.logger.Debug("forwarded what resembles an upgrade call", zap.Error(err))
		}
		return next.ServeHTTP(w, r)
	}
	return h.answer(w, h.upgrade(r.Context(), call))
}

// upgrade decides what becomes of the account.
func (h *Handler) upgrade(ctx context.Context, call *smapi.Call) decision {
	d := decision{credentials: call.Credentials.Kind}
	grant, ok := grantFor(call)
	if !ok {
		d.outcome = reauthorize
		return d
	}
	d.exchange = h.endpoint.Exchange(ctx, call.Arrived.Add(h.settings.timeout), grant)
	if d.exchange.Class != token.Issued {
		d.outcome = outcomeOf[d.exchange.Class]
		return d
	}
	d.pair(&h.settings)
	return d
}

// grantFor says how the credentials of a call are exchanged, if they are.
func grantFor(call *smapi.Call) (token.Grant, bool) {
	c := &call.Credentials
	if c.Kind != smapi.Login {
		return token.Grant{}, false
	}
	return token.Grant{
		Type:    "password",
		Params:  []token.Param{{Name: "username", Value: c.Username}, {Name: "password", Value: c.Password}},
		Subject: call.HouseholdID,
	}, true
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
