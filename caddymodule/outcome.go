package caddymodule

import (
	"crypto/rand"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// outcome is what happened to a call.
type outcome string

const (
	upgraded      outcome = "upgraded"
	reauthorize   outcome = "reauthorize"
	rejected      outcome = "rejected"
	unavailable   outcome = "unavailable"
	overloaded    outcome = "overloaded"
	misconfigured outcome = "misconfigured"
	expired       outcome = "expired"
	refreshed     outcome = "refreshed"
	observed      outcome = "observed"
	forwarded     outcome = "forwarded"
)

// policy is the whole of it: what the player is told, and how loudly the operator. Without a fault the
// player gets the pair of tokens, which is blank unless the account is upgraded. A blank pair signs the
// listener out, so nothing but a definitive answer may lead to one.
var policy = map[outcome]struct {
	fault *smapi.Fault
	level zapcore.Level
}{
	upgraded:      {nil, zapcore.InfoLevel},
	reauthorize:   {nil, zapcore.InfoLevel},
	rejected:      {nil, zapcore.InfoLevel}, // or a fault, by refusal
	unavailable:   {&smapi.ServiceUnavailable, zapcore.WarnLevel},
	overloaded:    {&smapi.ServiceUnavailable, zapcore.WarnLevel},
	misconfigured: {&smapi.ServiceUnavailable, zapcore.ErrorLevel},
	expired:       {&smapi.AuthTokenExpired, zapcore.InfoLevel},
	refreshed:     {nil, zapcore.InfoLevel},
	observed:      {nil, zapcore.InfoLevel}, // upstream answers
}

// outcomeOf is what an exchange without tokens comes to.
var outcomeOf = map[token.Class]outcome{
	token.Rejected:      rejected,
	token.Unavailable:   unavailable,
	token.Overloaded:    overloaded,
	token.Misconfigured: misconfigured,
}

// refusal is the fault of a rejected call, if it gets one: to a refresh a blank pair has no meaning.
func (h *Handler) refusal(method smapi.Method) *smapi.Fault {
	switch {
	case method == smapi.RefreshAuthToken:
		return &smapi.AuthTokenExpired
	case h.settings.onRejected == NotLinked:
		return &smapi.NotLinkedFailure
	}
	return nil
}

// decision is what was found out about one call, and what its player gets.
type decision struct {
	call    *smapi.Call
	outcome outcome

	// exchange is how to find out, where the outcome is blank, and result what came of it.
	exchange *exchange
	result   token.Result

	authToken, privateKey string
}

// decide says what becomes of a call, as far as that is known without asking the token endpoint.
func (s *settings) decide(call *smapi.Call) decision {
	d := decision{call: call}
	x := s.exchanges[call.Credentials.Kind]
	waits := call.Credentials.Kind == smapi.LoginToken && call.Credentials.Token == smapi.NeedsReauth
	switch call.Method {
	case smapi.GetSessionID:
		d.outcome = expired
	case smapi.RefreshAuthToken:
		switch {
		case waits:
			d.outcome = rejected
		case smapi.CheckToken(call.Credentials.Key) != nil:
			d.outcome = forwarded // no key that was issued here
		default:
			d.exchange = s.refresh
		}
	default:
		switch {
		case !s.households.chooses(call.HouseholdID):
			d.outcome = forwarded
		case s.mode == ModeReauthorize || waits || x == nil:
			d.outcome = reauthorize
		case !x.proven(call):
			// Something in front may have taken the Authorization header. That is no reason to sign a home out.
			d.outcome = forwarded
		default:
			d.exchange = x
		}
	}
	return d
}

// conclude says what the result of the exchange comes to.
func (d *decision) conclude(s *settings) {
	if d.result.Class != token.Issued {
		d.outcome = outcomeOf[d.result.Class]
		return
	}
	d.pair(s)
}

// pair takes the player's tokens from the answer, if they are there and fit.
func (d *decision) pair(s *settings) {
	authToken, privateKey := d.result.Field(s.authToken), d.result.Field(s.privateKey)
	success := upgraded
	if d.call.Method == smapi.RefreshAuthToken {
		success = refreshed
	}
	if privateKey == "" && d.exchange.grantType == token.Refresh {
		privateKey = d.call.Credentials.Key // RFC 6749 section 6: the old one stays good
	}
	if privateKey == "" {
		privateKey = s.privateKeyFallback
	}
	if err := smapi.CheckToken(authToken); err != nil {
		d.misconfigured("the answer's field for authToken: "+err.Error(), mends[err])
		return
	}
	if privateKey == "" {
		d.misconfigured("the answer has no field for privateKey",
			"ask for a refresh token, often by scope offline_access, or give private_key a fallback")
		return
	}
	if err := smapi.CheckToken(privateKey); err != nil {
		d.misconfigured("the answer's field for privateKey: "+err.Error(), mends[err])
		return
	}
	d.outcome, d.authToken, d.privateKey = success, authToken, privateKey
}

var mends = map[error]string{
	smapi.ErrTokenBlank:   "check auth_token and private_key against the fields of the token response",
	smapi.ErrTokenLong:    "have the authorization server issue opaque tokens, or tokens with fewer claims",
	smapi.ErrTokenNotText: "have the authorization server issue tokens of printable characters",
}

func (d *decision) misconfigured(cause, mend string) {
	d.outcome, d.result.Cause, d.result.Mend = misconfigured, cause, mend
}

// answer tells the player and the log, both with the same reference.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, d decision) error {
	reference := rand.Text()[:8]
	fault := policy[d.outcome].fault
	if d.outcome == rejected {
		fault = h.refusal(d.call.Method)
	}
	h.record(d.outcome, d)
	h.log(r, d, reference)

	status, body := http.StatusOK, []byte(nil)
	if fault != nil {
		status, body = http.StatusInternalServerError, fault.Envelope(reference)
	} else {
		body = smapi.Pair(d.call.Method, d.authToken, d.privateKey)
	}
	header := w.Header()
	header.Set("Content-Type", "text/xml; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a player that has gone asks again
	return nil
}

// record counts a call in the metrics and in the status.
func (h *Handler) record(o outcome, d decision) {
	count(o, d.call.Credentials.Kind, &d.result)
	h.shared.tally.add(o, time.Now())
}
