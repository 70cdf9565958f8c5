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
	rejected:      {nil, zapcore.InfoLevel}, // or NotLinkedFailure, by on_rejected
	unavailable:   {&smapi.ServiceUnavailable, zapcore.WarnLevel},
	overloaded:    {&smapi.ServiceUnavailable, zapcore.WarnLevel},
	misconfigured: {&smapi.ServiceUnavailable, zapcore.ErrorLevel},
}

// outcomeOf is what an exchange without tokens comes to.
var outcomeOf = map[token.Class]outcome{
	token.Rejected:      rejected,
	token.Unavailable:   unavailable,
	token.Overloaded:    overloaded,
	token.Misconfigured: misconfigured,
}

// decision is what was found out about one call, and what its player gets.
type decision struct {
	outcome     outcome
	credentials smapi.Kind
	exchange    token.Result

	authToken, privateKey string
}

// pair takes the player's tokens from the answer, if they are there and fit.
func (d *decision) pair(s *settings) {
	authToken, privateKey := d.exchange.Field(s.authToken), d.exchange.Field(s.privateKey)
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
	d.outcome, d.authToken, d.privateKey = upgraded, authToken, privateKey
}

var mends = map[error]string{
	smapi.ErrTokenBlank:   "check auth_token and private_key against the fields of the token response",
	smapi.ErrTokenLong:    "have the authorization server issue opaque tokens, or tokens with fewer claims",
	smapi.ErrTokenNotText: "have the authorization server issue tokens of printable characters",
}

func (d *decision) misconfigured(cause, mend string) {
	d.outcome, d.exchange.Cause, d.exchange.Mend = misconfigured, cause, mend
}

// answer tells the player and the log, both with the same reference.
func (h *Handler) answer(w http.ResponseWriter, d decision) error {
	reference := rand.Text()[:8]
	fault := policy[d.outcome].fault
	if d.outcome == rejected && h.settings.onRejected == NotLinked {
		fault = &smapi.NotLinkedFailure
	}
	h.log(d, reference)

	status, body := http.StatusOK, []byte(nil)
	if fault != nil {
		status, body = http.StatusInternalServerError, fault.Envelope(reference)
	} else {
		body = smapi.DeviceAuthToken(d.authToken, d.privateKey)
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
	entry := h.logger.Check(policy[d.outcome].level, "answered an upgrade call")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.String("outcome", string(d.outcome)),
		zap.String("reference", reference),
		zap.String("credentials", string(d.credentials)),
	}
	if x := &d.exchange; x.Class != "" {
		fields = append(fields,
			zap.Int("status", x.Status),
			zap.String("oauth_error", x.Error),
			zap.Bool("replayed", x.Replayed),
			zap.Duration("waited", x.Waited),
			zap.Duration("duration", x.Took))
	}
	if d.exchange.Cause != "" {
		fields = append(fields, zap.String("cause", d.exchange.Cause))
	}
	if d.exchange.Mend != "" {
		fields = append(fields, zap.String("mend", d.exchange.Mend))
	}
	entry.Write(fields...)
}
