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

// fault is what the player of a call is told, nil where it gets a pair.
func (h *Handler) fault(d *decision) *smapi.Fault {
	if d.outcome == rejected {
		return h.refusal(d.call.Method)
	}
	return policy[d.outcome].fault
}

// rule is what has decided about a call.
type rule int

const (
	byExpireSessionIDs rule = iota + 1
	byNeedsReauth
	byKey // none that was issued here
	byRefreshAuthTokens
	byHouseholds
	byMode
	byNoExchange
	byNoProof
	byExchange
)

// causes say which rule has decided without asking the token endpoint, where the outcome does not.
var causes = map[rule]string{
	byNeedsReauth: "the account waits for its listener",
	byMode:        "mode reauthorize",
	byNoExchange:  "no exchange for these credentials",
}

// decision is what was found out about one call, and what its player gets.
type decision struct {
	call    *smapi.Call
	rule    rule
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
		d.rule, d.outcome = byExpireSessionIDs, expired
	case smapi.RefreshAuthToken:
		switch {
		case waits:
			d.rule, d.outcome = byNeedsReauth, rejected
		case smapi.CheckToken(call.Credentials.Key) != nil:
			d.rule, d.outcome = byKey, forwarded
		default:
			d.rule, d.exchange = byRefreshAuthTokens, s.refresh
		}
	default:
		switch {
		case !s.households.chooses(call.HouseholdID):
			d.rule, d.outcome = byHouseholds, forwarded
		case s.mode == ModeReauthorize:
			d.rule, d.outcome = byMode, reauthorize
		case waits:
			d.rule, d.outcome = byNeedsReauth, reauthorize
		case x == nil:
			d.rule, d.outcome = byNoExchange, reauthorize
		case !x.proven(call):
			// Something in front may have taken the Authorization header. That is no reason to sign a home out.
			d.rule, d.outcome = byNoProof, forwarded
		default:
			d.rule, d.exchange = byExchange, x
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
	fault := h.fault(&d)
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
