// Package oldcall makes calls of upgraded homes at the old service, through the next handler.
package oldcall

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/legacy"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Service is what a handler has to make calls with. All fields are required.
type Service struct {
	Policy    *flow.Policy
	Exchanger *exchange.Exchanger
	Sessions  *legacy.Sessions
	Logger    *zap.Logger
}

// ErrPassword is an old service that no longer takes an account's password. Nothing has been answered then.
var ErrPassword = errors.New("the old service refuses the password")

// ErrPasswordBefore is one that did not take it in the last seconds, and was not asked again.
var ErrPasswordBefore = errors.New("the old service refused the password a moment ago")

// Put makes the call of an account, and answers w with what the old service says. The account that it returns is the same with
// the credentials that were tried last, as another instance may know newer ones.
func (s *Service) Put(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, call *smapi.Call, account *flow.OldAccount,
	lookup exchange.Lookup) (*flow.OldAccount, error) {
	o := attempt{Service: s, w: w, r: r, next: next, call: call, account: account, before: remember(r)}
	defer o.before.release()
	length, known := r.Header["Content-Length"]
	defer func() {
		if r.Header["Content-Length"] = length; !known {
			delete(r.Header, "Content-Length")
		}
	}()
	err := o.put()
	if !errors.Is(err, ErrPassword) && !errors.Is(err, ErrPasswordBefore) {
		return account, err
	}
	newer, _ := s.Policy.OpenOld(r.Context(), s.Exchanger, call, lookup, true)
	if newer == nil || newer.Same(account) {
		return account, err
	}
	o.account = newer
	return newer, o.put()
}

// attempt is a call with the credentials that are known of its account.
type attempt struct {
	*Service
	w       http.ResponseWriter
	r       *http.Request
	next    caddyhttp.Handler
	call    *smapi.Call
	account *flow.OldAccount
	before  *before
	again   bool // it was made before
}

// request is that of the player for another handler to answer. It shares with it what placeholders show, which are those of the
// player's: the URL and the header. The body it has for itself, and no placeholder shows the old credentials.
func (o *attempt) request(ctx context.Context) *http.Request { return o.r.WithContext(ctx) }

// put makes the call, and once more where the old service has forgotten the session.
func (o *attempt) put() error {
	var refused, session legacy.Session
	for {
		credentials := o.account.Credentials
		if credentials.Kind == smapi.SessionID {
			var err error
			session, err = o.session(refused)
			if answered, ok := errors.AsType[*oldAnswer](err); ok {
				_ = answered.CopyTo(o.w)
				return nil
			}
			if errors.Is(err, context.Canceled) { // the player has gone while another call of the account began one
				o.w.WriteHeader(statusGone)
				return nil
			}
			if err != nil {
				return err
			}
			credentials = smapi.Credentials{Kind: smapi.SessionID, SessionID: session.ID}
		}
		ctx := o.r.Context()
		if o.again {
			ctx = own(ctx)
		}
		o.again = true
		to := o.request(ctx)
		if err := o.call.Bearing.Translate(to, &credentials, o.account.HouseholdID); err != nil {
			return err
		}
		answer := legacy.NewAnswer(o.w)
		err := o.serve(answer, to)
		code := ""
		if answer.Held() {
			code = smapi.FaultCode(answer.Text())
		}
		if credentials.Kind == smapi.Login && o.r.Context().Err() == nil {
			o.note(code, answer.Status, err)
		}
		switch {
		case err != nil:
			_ = answer.Release()
			return err
		case code == smapi.SessionIDInvalid && credentials.SessionID != "" && refused.ID == "":
			refused = session
			o.withdraw(answer)
			continue
		case code == smapi.LoginInvalid && credentials.Password != "":
			o.withdraw(answer)
			return ErrPassword
		}
		_ = answer.Release() // a player that has gone asks again
		return nil
	}
}

// serve has the next handler answer. If it panics, as a proxy does when an answer breaks off, the player gets what there is.
func (o *attempt) serve(answer *legacy.Answer, to *http.Request) error {
	returned := false
	defer func() {
		if !returned {
			_ = answer.Release()
		}
	}()
	err := o.next.ServeHTTP(answer, to)
	returned = true
	return err
}

// statusGone is what Caddy's proxy notes of who has gone.
const statusGone = 499

// withdraw has an answer, and what came of its call, leave no trace.
func (o *attempt) withdraw(answer *legacy.Answer) {
	answer.Withdraw()
	o.before.restore(o.r)
}

// note notes what the old service says of an account in the answer to a call. A fault that is the call's own says nothing of it,
// and neither does a password that is wrong, as long as there may be a newer one.
func (o *attempt) note(code string, status int, err error) {
	var handler caddyhttp.HandlerError
	if errors.As(err, &handler) {
		status = handler.StatusCode
	}
	switch {
	case code == smapi.LoginInvalid:
	case smapi.OfAccount(code):
		flow.OldSays(o.Exchanger, o.account, pacing.Rejected)
	case strings.HasPrefix(code, "Client."):
	case status >= http.StatusInternalServerError || status == 0:
		flow.OldSays(o.Exchanger, o.account, pacing.Failed)
	case status < http.StatusBadRequest:
		flow.OldSays(o.Exchanger, o.account, pacing.Accepted)
	}
}
