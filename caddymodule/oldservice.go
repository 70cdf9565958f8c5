package caddymodule

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/counts"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/legacy"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// forward hands on a request that is no call. With an old service its body ends where a token of ours comes.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	counts.Forwarded()
	body := r.Body
	err := next.ServeHTTP(w, r)
	if err != nil && smapi.Met(body) {
		return h.refuse(w, r, smapi.ErrTokenInBody)
	}
	return err
}

// refuse answers what must not be forwarded.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, why error) error {
	d := flow.Decision{
		Call:    &smapi.Call{Credentials: smapi.Credentials{Kind: smapi.LoginToken}},
		Outcome: flow.Refused, Reason: flow.Reason{Cause: why.Error()},
	}
	return h.answer(w, r, &d)
}

// translate puts a call of an upgraded home to the old service in its own terms.
func (h *Handler) translate(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, call *smapi.Call) error {
	r.Header.Del("Authorization") // where placeholders and the log would find it
	account, d := h.settings.Policy.OpenOld(r.Context(), h.exchanger, call, lookup(r), false)
	switch {
	case account == nil:
		return h.answer(w, r, &d)
	case call.Method == smapi.RefreshAuthToken || call.Method == smapi.GetDeviceAuthToken && !call.Bearing.Only:
		flow.Again(&d, account)
		return h.answer(w, r, &d)
	}
	smapi.Drop(r)
	o := oldCall{Handler: h, w: w, r: r, next: next, call: call, account: account}
	err := o.put()
	switch {
	case errors.Is(err, errPassword) && o.newer():
		err = o.put()
	case errors.Is(err, smapi.ErrNotWritable):
		d = flow.NotWritable(call)
		return h.answer(w, r, &d)
	}
	if errors.Is(err, errPassword) {
		d = flow.OldRefused(r.Context(), h.exchanger, call, o.account)
		return h.answer(w, r, &d)
	}
	h.record(&d)
	logCall(h.calls, r, &d, "")
	if d.Reason.Cause != "" {
		h.calls.Warn("served a home on whose token cannot be refreshed", append(fieldsOf(&d), zap.String("cause", d.Reason.Cause))...)
	}
	return err
}

// oldCall is a call that is put to the old service.
type oldCall struct {
	*Handler
	w       http.ResponseWriter
	r       *http.Request
	next    caddyhttp.Handler
	call    *smapi.Call
	account *flow.OldAccount
	again   bool // it was made before
}

// errPassword is an old service that no longer takes an account's password. Nothing has been answered then.
var errPassword = errors.New("the old service refuses the password")

// newer tells that the account has other credentials by now, as another instance may know.
func (o *oldCall) newer() bool {
	account, _ := o.settings.Policy.OpenOld(o.r.Context(), o.exchanger, o.call, lookup(o.r), true)
	if account == nil || account.Same(o.account) {
		return false
	}
	o.account = account
	return true
}

// put makes the call, and once more where the old service has forgotten the session.
func (o *oldCall) put() error {
	refused := ""
	for {
		credentials := o.account.Credentials
		if credentials.Kind == smapi.SessionID {
			session, err := o.session(refused)
			if answered, ok := errors.AsType[*oldAnswer](err); ok {
				_ = answered.CopyTo(o.w)
				return nil
			}
			if err != nil {
				return err
			}
			credentials = smapi.Credentials{Kind: smapi.SessionID, SessionID: session}
		}
		ctx := o.r.Context()
		if o.again {
			ctx = ownVars(ctx)
		}
		o.again = true
		to := o.r.Clone(ctx)
		if err := o.call.Bearing.Translate(to, &credentials, o.account.HouseholdID); err != nil {
			return err
		}
		answer := legacy.NewAnswer(o.w)
		if err := o.next.ServeHTTP(answer, to); err != nil {
			return err
		}
		code := ""
		if answer.Held() {
			code = smapi.FaultCode(answer.Text())
		}
		switch {
		case code == smapi.SessionIDInvalid && credentials.SessionID != "" && refused == "":
			refused = credentials.SessionID
			continue
		case code == smapi.LoginInvalid && credentials.Password != "":
			return errPassword
		case !answer.Held() && credentials.Kind == smapi.Login:
			flow.OldAccepted(o.exchanger, o.account)
		}
		_ = answer.Release() // a player that has gone asks again
		return nil
	}
}

// ownVars gives a call its own copy of the variables of its request. A connection that is still being made for the call before
// it, although that went by another one, goes on reading those.
func ownVars(ctx context.Context) context.Context {
	vars, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if vars == nil {
		return ctx
	}
	return context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
}

// oldAnswer is what the old service says in the place of a session.
type oldAnswer struct{ *legacy.Recorded }

func (*oldAnswer) Error() string { return "the old service gives no session" }

const (
	// sessionTimeout leaves the call itself some of the 20 s that players wait.
	sessionTimeout = 10 * time.Second

	// sessionHold is for how long an account that was refused a session is not tried again, so that calls once a minute lock
	// none.
	sessionHold = 30 * time.Second
)

// session returns the session of the account, other than the one that was refused.
func (o *oldCall) session(refused string) (string, error) {
	c := o.account.Credentials
	where := legacy.AccountOf(o.r.Host, o.r.URL.Path, c.Username, c.Password)
	return o.shared.sessions.Get(o.r.Context(), where, refused, func() (session string, hold time.Duration, err error) {
		result := "failed"
		defer func() { countSession(result) }()
		// In the place of the player: others wait for this session too.
		ctx, cancel := context.WithTimeout(ownVars(context.WithoutCancel(o.r.Context())), sessionTimeout)
		defer cancel()
		to := o.r.Clone(ctx)
		smapi.AskForSession(to, c.Username, c.Password)
		answer := legacy.NewRecorded()
		if err := o.next.ServeHTTP(answer, to); err != nil {
			return "", 0, err
		}
		if answer.Status == http.StatusOK && !answer.Long {
			if session = smapi.SessionIDOf(answer.Body); session != "" {
				if result = "begun"; refused != "" {
					result = "renewed"
				}
				flow.OldAccepted(o.exchanger, o.account)
				return session, 0, nil
			}
		}
		switch code := smapi.FaultCode(answer.Body); {
		case code == smapi.LoginInvalid:
			result = "refused"
			return "", sessionHold, errPassword
		case answer.Status == http.StatusInternalServerError && code != "" && code != "Server.ServiceUnavailable":
			result, hold = "refused", sessionHold
		case answer.Status == 0 || answer.Status == http.StatusOK: // nonsense, which is no answer to the call
			o.logger.Error("the old service's answer to getSessionId has no session", zap.Int("status", answer.Status))
			return "", 0, caddyhttp.Error(http.StatusBadGateway, errors.New("the old service's getSessionId has no session"))
		}
		return "", hold, &oldAnswer{answer}
	})
}
