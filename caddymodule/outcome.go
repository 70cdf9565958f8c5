package caddymodule

import (
	"crypto/rand"
	"net/http"
	"strconv"

	"go.uber.org/zap"
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
	observed:      {nil, zapcore.InfoLevel}, // or whatever upstream answers, as for forwarded
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
	loginToken := call.Credentials.Kind == smapi.LoginToken
	waits := loginToken && call.Credentials.Token == smapi.NeedsReauth
	switch call.Method {
	case smapi.GetSessionID:
		d.outcome = expired
	case smapi.RefreshAuthToken:
		if d.exchange = s.refresh; waits {
			d.outcome, d.exchange = rejected, nil
		}
	default:
		d.exchange = s.exchanges[call.Credentials.Kind]
		switch {
		case s.households != allHouseholds && !s.households.chooses(call.HouseholdID):
			d.outcome, d.exchange = forwarded, nil
		case s.mode == ModeReauthorize || waits || d.exchange == nil:
			d.outcome, d.exchange = reauthorize, nil
		case loginToken && call.Credentials.Token == "":
			// Something in front may have taken the Authorization header. That is no reason to sign a home out.
			d.outcome, d.exchange = forwarded, nil
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
	if privateKey == "" {
		privateKey = s.privateKeyFallback
	}
	if d.call.Method == smapi.RefreshAuthToken {
		success = refreshed
		if d.result.Field(s.privateKey) == "" { // RFC 6749 section 6: the old one stays good
			privateKey = d.call.Credentials.Key
		}
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
func (h *Handler) answer(w http.ResponseWriter, d decision) error {
	reference := rand.Text()[:8]
	fault := policy[d.outcome].fault
	if d.outcome == rejected {
		fault = h.refusal(d.call.Method)
	}
	h.count(d.outcome, d)
	h.log(d, reference)

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

func (h *Handler) log(d decision, reference string) {
	entry := h.logger.Check(policy[d.outcome].level, "answered a call")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.String("method", string(d.call.Method)),
		zap.String("outcome", string(d.outcome)),
		zap.String("reference", reference),
		zap.String("credentials", string(d.call.Credentials.Kind)),
	}
	if x := &d.result; x.Class != "" {
		fields = append(fields,
			zap.Int("status", x.Status),
			zap.String("oauth_error", x.Error),
			zap.Bool("replayed", x.Replayed),
			zap.Duration("waited", x.Waited),
			zap.Duration("duration", x.Took))
	}
	if d.result.Cause != "" {
		fields = append(fields, zap.String("cause", d.result.Cause))
	}
	if d.result.Mend != "" {
		fields = append(fields, zap.String("mend", d.result.Mend))
	}
	entry.Write(fields...)
}

// observe counts and logs what would have become of a call that is forwarded.
func (h *Handler) observe(d decision) {
	h.count(observed, d)
	entry := h.logger.Check(policy[observed].level, "observed a call")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.String("method", string(d.call.Method)),
		zap.String("outcome", string(observed)),
		zap.String("credentials", string(d.call.Credentials.Kind)),
	}
	if d.exchange != nil {
		fields = append(fields, zap.String("would", "exchange"), zap.String("grant_type", d.exchange.grantType))
	} else {
		fields = append(fields, zap.String("would", string(d.outcome)))
	}
	entry.Write(fields...)
}
