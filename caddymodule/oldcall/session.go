package oldcall

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/counts"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/legacy"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/trace"
)

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

// throttled says nothing of an account, as little as what the old service says of itself.
const throttled = "Client.Throttled"

// where is the account at the old service, which handlers in front of this one may have reached by a rewrite.
func (o *attempt) where() legacy.Account {
	target := o.r.RequestURI
	if original, ok := o.r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok { // which has no Host
		target = original.RequestURI
	}
	return legacy.AccountAt(o.r.Host, target, o.account.Digest)
}

// session returns the session of the account, other than the one that was refused.
func (o *attempt) session(refused legacy.Session) (legacy.Session, error) {
	c := o.account.Credentials
	session, err := o.Sessions.Get(o.r.Context(), o.where(), refused, func() (id string, hold time.Duration, err error) {
		result, answer := counts.SessionFailed, legacy.NewRecorded(o.w)
		// In the place of the player: others wait for this session too.
		ctx, cancel := context.WithTimeout(own(context.WithoutCancel(o.r.Context())), sessionTimeout)
		defer cancel()
		to := o.request(ctx)
		defer o.before.restore(o.r)
		smapi.AskForSession(to, c.Username, c.Password)
		_, span := trace.Begin(ctx, "session", &to.Header)
		defer func() {
			counts.Session(result)
			cause := ""
			if result == counts.SessionRefused || result == counts.SessionFailed {
				cause = string(result)
			}
			span.End(cause, attribute.String("smapi.session", string(result)), attribute.Int("http.response.status_code", answer.Status))
			if err != ErrPassword { // which may be an old one
				flow.OldSays(o.Exchanger, o.account, result.End())
			}
		}()
		if err := o.record(answer, to); err != nil {
			return "", 0, err
		}
		if answer.Status == http.StatusOK && !answer.Long {
			if id = smapi.SessionIDOf(answer.Body); id != "" {
				if result = counts.SessionBegun; refused.ID != "" {
					result = counts.SessionRenewed
				}
				return id, 0, nil
			}
		}
		code := smapi.FaultCode(answer.Body)
		switch {
		case code == smapi.LoginInvalid:
			result = counts.SessionRefused
			return "", sessionHold, ErrPassword
		case code != "" && !strings.HasPrefix(code, "Server") && code != throttled:
			hold, result = sessionHold, counts.SessionRefused
		case code == "" && answer.Status < http.StatusMultipleChoices: // nonsense, which is no answer to the call
			o.Logger.Error("the old service's answer to getSessionId has no session", zap.Int("status", answer.Status))
			return "", 0, errNoSession()
		}
		return "", hold, &oldAnswer{answer}
	})
	_, remembered := errors.AsType[*legacy.Remembered](err)
	switch {
	case errors.Is(err, legacy.ErrBroken):
		err = errNoSession()
	case remembered && errors.Is(err, ErrPassword):
		err = ErrPasswordBefore
	}
	return session, err
}

func errNoSession() error {
	return caddyhttp.Error(http.StatusBadGateway, errors.New("the old service's getSessionId has no session"))
}

// record has the next handler answer a call of our own. One that breaks off, for which a proxy ends the connection of whose call it
// is, is none.
func (o *attempt) record(answer *legacy.Recorded, to *http.Request) (err error) {
	defer func() {
		if broken := recover(); broken == http.ErrAbortHandler {
			err = errNoSession()
		} else if broken != nil {
			panic(broken)
		}
	}()
	return o.next.ServeHTTP(answer, to)
}
