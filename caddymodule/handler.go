// Package caddymodule is the Caddy module http.handlers.smapi_upgrade.
package caddymodule

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/counts"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/network"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/directive"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/stdlog"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("smapi_upgrade", parseCaddyfile)
	// What limits requests comes first, and our answers are not compressed.
	httpcaddyfile.RegisterDirectiveOrder("smapi_upgrade", httpcaddyfile.Before, "encode")
}

// secretInterval is the time between two looks at the files of secrets.
var secretInterval = secret.DefaultInterval

// Handler moves the listeners of an old Sonos music service to OAuth. It answers the upgrade call of Sonos
// players, `getDeviceAuthToken` without a `linkCode`, by exchanging the account's old credentials at an
// OAuth 2.0 token endpoint, and hands every other request on to the next handler as it came.
//
// The token endpoint is asked once per call: no redirect is followed and no failed exchange is repeated, so
// that a wrong password costs its account one failed login.
//
// `exchange` says for each kind how old credentials are exchanged; without that, user names and passwords are, by
// the password grant. On demand it also answers `getSessionId`, so that Session ID players begin to upgrade
// (`expire_session_ids`), `refreshAuthToken` (`refresh_auth_tokens`), and the calls of listeners who sign in (`sign_in`).
//
// All text fields may hold global placeholders such as `{env.CLIENT_ID}` or `{file./run/secrets/client}`,
// which are replaced when the configuration is loaded; a field whose placeholder is empty is an error.
type Handler struct {
	settings.Options

	settings  settings.Settings
	files     settings.Files
	exchanger *exchange.Exchanger
	shared    *sharedEndpoint
	vault     *vaultMember
	ours      smapi.Ours // nil without an old service
	logger    *zap.Logger
	calls     *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.smapi_upgrade",
		New: func() caddy.Module { return new(Handler) },
	}
}

func parseCaddyfile(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	return h, h.UnmarshalCaddyfile(helper.Dispenser)
}

// UnmarshalCaddyfile sets the options by the tokens of a Caddyfile, as directive.Unmarshal says.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return directive.Unmarshal(&h.Options, d)
}

// Provision sets the handler up. It does no network I/O.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.calls = sampled(h.logger)
	h.files = settings.Files{Logger: h.logger, Interval: secretInterval}
	var err error
	if h.settings, err = h.Resolve(caddy.NewReplacer(), &h.files); err != nil {
		return err
	}
	h.warn()
	if another(ctx) {
		h.logger.Warn("there are two smapi_upgrade in this route: the second one meets only the calls that the first one forwards")
	}
	endpoint, err := h.Connect(ctx, &h.settings, &h.files)
	if err != nil {
		return err
	}
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	keys, err := h.settings.VaultKeys(&h.files)
	if err != nil {
		return err
	}
	var budgets *pacing.Budgets
	if h.shared, budgets, err = join(&h.settings, &h.files, h.logger); err != nil {
		return err
	}
	stdlog.Quiet()
	if h.settings.Policy.OldService != nil {
		h.ours = seal.Bears
	}
	endpoint.Transport = h.shared.seen.Watch(endpoint.Transport)
	signsIn := h.settings.Policy.SignIn != nil && h.settings.Policy.Mode != flow.ModeObserve
	if h.settings.Policy.Mode == flow.ModeUpgrade || signsIn || h.ours != nil {
		endpoint.Metadata = h.shared.metadataFor(&endpoint)
		h.exchanger = h.settings.Exchanger(endpoint, h.shared.State, budgets)
		if keys != nil {
			if h.vault, err = joinVault(&h.settings, keys, ctx.Storage(), h.logger); err != nil {
				return err
			}
			h.keep()
			h.exchanger.Vault, h.exchanger.Now = h.vault.Vault, clock
		}
	}
	if signsIn {
		signIn, err := h.ConnectSignIn(&h.settings, &h.files, endpoint, keys)
		if err != nil {
			return err
		}
		signIn.Metadata = h.shared.metadataFor(&signIn)
		h.exchanger.SignIn = token.New(signIn)
		if h.vault != nil {
			h.settings.Policy.SignIn.HashUser = func(user string) string { return h.vault.Digest("user_id", user) }
		}
	}
	return nil
}

// Cleanup gives up what the handler shares with others. It does not wait for exchanges in flight, which keep the secrets
// as they are now.
func (h *Handler) Cleanup() error {
	h.files.Close()
	stdlog.Quiet() // which Caddy may just have given back
	if h.vault != nil {
		h.leaveKeeper()
		h.vault.leave()
	}
	if h.shared == nil {
		return nil
	}
	return h.shared.leave(&h.settings, &h.files)
}

// warn logs what works but may not be what was meant.
func (h *Handler) warn() {
	if h.IsExample() {
		h.logger.Warn("the token endpoint or the client_secret is still that of the example: nobody can be upgraded")
	}
	if h.settings.Plain() && h.InsecureHTTP && h.settings.Policy.Mode == flow.ModeUpgrade {
		h.logger.Warn("passwords go to the token endpoint in the clear, because of insecure_http")
	}
	if h.ExpireSessionIDs && h.settings.Policy.Households != households.All {
		h.logger.Warn("expire_session_ids has no effect before households 100%, because a getSessionId does not say which home it is from")
	}
	if h.SignIn == nil && (h.settings.Policy.Mode == flow.ModeReauthorize || slices.Contains(h.settings.Methods, smapi.GetSessionID)) {
		h.logger.Warn("there is no sign_in: listeners who have to sign in again can do so only if the old service answers getAppLink")
	}
	if h.RefreshAuthTokens && h.SignIn == nil && h.settings.Policy.Mode == flow.ModeReauthorize {
		h.logger.Warn("refresh_auth_tokens is not in force in mode reauthorize: refreshAuthToken is forwarded")
	}
	for kind, lacks := range h.settings.Unfilled() {
		h.logger.Warn("homes that are upgraded by this exchange cannot call the old service, because old_service has placeholders that it does not fill",
			zap.String("exchange", string(kind)), zap.Strings("placeholders", lacks))
	}
	if o := h.settings.Policy.OldService; o != nil {
		if lacks := o.Lacks(smapi.Anonymous); h.SignIn != nil && len(lacks) > 0 {
			h.logger.Warn("listeners who sign in cannot call the old service, because old_service has placeholders that only an upgrade fills",
				zap.Strings("placeholders", lacks))
		}
		if len(o.Lacks("")) > 0 {
			h.logger.Info("homes that were upgraded before old_service was on have to sign in again, unless old_service has only {token.FIELD}")
		}
	}
}

// ServeHTTP answers the calls that concern a move to OAuth and forwards everything else.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	arrived := time.Now()
	candidate := h.ours.MayCall(r, h.settings.Methods)
	if candidate == nil { // most requests, so that they cost no allocation
		h.forwarded(arrived)
		return next.ServeHTTP(w, r)
	}
	return candidate.Serve(w, arrived, func(call *smapi.Call, peeked int, why error) error {
		metrics.peeked.Add(float64(peeked))
		if call == nil {
			return h.serveOther(w, r, next, why)
		}
		observes := h.settings.Policy.Mode == flow.ModeObserve
		if call.Bearing != nil && (call.Bearing.Only || call.Method == smapi.GetDeviceAuthToken || observes) {
			return h.translate(w, r, next, call)
		}
		d := h.settings.Policy.Decide(call)
		switch {
		case d.Outcome == flow.Forwarded:
		case observes:
			h.observe(d)
			return next.ServeHTTP(w, r)
		case d.Rule != nil:
			h.exchange(r, d, peeked)
		}
		return h.serveDecided(w, r, next, d)
	})
}

// serveDecided does as it is decided.
func (h *Handler) serveDecided(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, d *flow.Decision) error {
	switch {
	case d.Outcome != flow.Forwarded:
		return h.answer(w, r, d)
	case d.Call.Bearing != nil:
		return h.translate(w, r, next, d.Call)
	case d.Rule != nil: // it was asked for
		h.record(d, time.Now())
		logCall(h.calls, r, d, "")
	default:
		h.record(d, d.Call.Arrived)
	}
	return next.ServeHTTP(w, r)
}

// serveOther forwards what is no call, unless it must not be.
func (h *Handler) serveOther(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, why error) error {
	switch why.(type) {
	case smapi.Refuse:
		return h.refuse(w, r, why)
	case smapi.NoCall:
	default:
		h.logger.Debug("forwarded an ambiguous call", zap.NamedError("cause", why))
	}
	return h.forward(w, r, next)
}

// observe counts and logs what would have become of a call that is forwarded.
func (h *Handler) observe(d *flow.Decision) {
	would := []zap.Field{zap.String("would", d.Outcome.String())}
	if d.Rule != nil {
		would = []zap.Field{zap.String("would", "exchange"), zap.String("grant_type", d.Rule.GrantType)}
	}
	d.Outcome = flow.Observed
	h.record(d, time.Now())
	logObserved(h.calls, d, would...)
}

// exchange takes a call to the token endpoint. Its body of so many bytes is kept if it may yet be forwarded.
func (h *Handler) exchange(r *http.Request, d *flow.Decision, body int) {
	q := h.request(r, d)
	if q.Others {
		q.Held = body
	} else {
		smapi.Drop(r) // it may wait, and needs no body any more
	}
	h.settings.Policy.Ask(r.Context(), h.exchanger, d, q)
	h.remember(q, d)
	if d.Unsaved != nil {
		logUnsaved(h.logger, d)
	}
}

// request is what is asked of the token endpoint for a call.
func (h *Handler) request(r *http.Request, d *flow.Decision) *exchange.Request {
	q := d.Rule.Request(d.Call, lookup(r))
	q.Others, q.Network = d.Others, network.Of(r)
	if h.vault != nil {
		q.From = network.Prefix(r).String()
	}
	return &q
}

// lookup finds Caddy's placeholders of an HTTP request.
func lookup(r *http.Request) exchange.Lookup {
	return func(name string) string {
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			text, _ := repl.GetString(name)
			return text
		}
		return ""
	}
}

// answer tells the player and the log, both with the same reference.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, d *flow.Decision) error {
	reference := rand.Text()[:8]
	h.record(d, time.Now())
	h.shared.fault(d, reference)
	logCall(h.calls, r, d, reference)

	status, body := http.StatusOK, []byte(nil)
	if fault := h.settings.Policy.Reply(d).Fault; fault != nil {
		status, body = http.StatusInternalServerError, fault.Envelope(reference)
	} else {
		body = h.settings.Policy.Answer(d)
	}
	// Each has an array of its own, as Set makes them, but of one allocation.
	header, values := w.Header(), []string{"text/xml; charset=utf-8", "no-store", strconv.Itoa(len(body))}
	header["Content-Type"], header["Cache-Control"], header["Content-Length"] = values[0:1:1], values[1:2:2], values[2:]
	w.WriteHeader(status)
	_, _ = w.Write(body) // a player that has gone asks again
	return nil
}

// record counts a call in the metrics and in the status.
func (h *Handler) record(d *flow.Decision, now time.Time) {
	count(d)
	h.shared.history.Add(d.Outcome, now)
	if r := &d.Result; r.Took > 0 && !r.Replayed {
		h.shared.history.Exchanges.Note(r.Took, now)
	}
}

// forwarded counts a request that is no call.
func (h *Handler) forwarded(arrived time.Time) {
	counts.Forwarded()
	h.shared.history.Add(flow.Forwarded, arrived)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
