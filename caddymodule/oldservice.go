package caddymodule

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/counts"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/oldcall"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// forward hands on a request that is no call. With an old service its body ends where a token of ours comes.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.forwarded(time.Now())
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
	counts.Differs(d.Differs)
	switch {
	case account == nil:
		return h.answer(w, r, &d)
	case call.Method == smapi.RefreshAuthToken || call.Method == smapi.GetDeviceAuthToken && !call.Bearing.Only:
		flow.Again(&d, account)
		return h.answer(w, r, &d)
	}
	smapi.Drop(r)
	old := oldcall.Service{Policy: &h.settings.Policy, Exchanger: h.exchanger, Sessions: h.shared.sessions, Logger: h.logger}
	account, err := old.Put(w, r, next, call, account, lookup(r))
	call.Bearing.Done()
	switch {
	case errors.Is(err, smapi.ErrNotWritable):
		d = flow.NotWritable(call)
		return h.answer(w, r, &d)
	case errors.Is(err, oldcall.ErrPasswordBefore):
		d = flow.OldRefusedBefore(call)
		return h.answer(w, r, &d)
	case errors.Is(err, oldcall.ErrPassword):
		d = flow.OldRefused(r.Context(), h.exchanger, call, account)
		return h.answer(w, r, &d)
	}
	h.record(&d, call.Arrived)
	logCall(h.calls, r, &d, "")
	if d.Reason.Cause != "" {
		h.calls.Warn("served a home although its token cannot be refreshed", append(fieldsOf(&d), zap.String("cause", d.Reason.Cause))...)
	}
	if err != nil { // whoever answers in the place of the old service gets nothing of the body, and has to know
		r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil
		r.Header.Set("Content-Length", "0")
	}
	return err
}
