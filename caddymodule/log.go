package caddymodule

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

// Of the lines about calls, each second the first ones of a level are written, and then one of so many: a storm is
// thousands a second.
const (
	sampleFirst = 100
	sampleThen  = 100
)

func sampled(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, sampleFirst, sampleThen)
	}))
}

// logCall writes one line about a call, and marks Caddy's access log. The reference is blank where the call is not answered.
func logCall(logger *zap.Logger, r *http.Request, d *flow.Decision, reference string) {
	logAccess(r, d, reference)
	says := "answered a call"
	switch {
	case d.Outcome == flow.Translated:
		says = "put a call to the old service in its own terms"
	case d.Outcome == flow.Forwarded && d.Result.Class == "":
		says = "forwarded a call, as its key was not made by the vault"
	case d.Outcome == flow.Forwarded:
		says = "forwarded a call, as the token endpoint refused it"
	}
	entry := logger.Check(d.Outcome.Row().Level, says)
	if entry == nil {
		return
	}
	fields := fieldsOf(d)
	if reference != "" {
		fields = append(fields, zap.String("reference", reference))
	}
	if x := &d.Result; x.Class != "" {
		fields = append(fields,
			zap.Int("status", x.Status),
			zap.String("oauth_error", x.Error),
			zap.Bool("replayed", x.Replayed),
			zap.Duration("waited", x.Waited),
			zap.Duration("duration", x.Took))
	}
	if d.TokenOf != "" {
		of := digest("household", d.TokenOf)
		of.Key = "household_of_token"
		fields = append(fields, of, zap.String("differs", string(d.Differs)))
	}
	if cause := cmp.Or(d.Result.Cause, d.Reason.Cause); cause != "" {
		fields = append(fields, zap.String("cause", cause))
	}
	if d.Result.Fix != "" {
		fields = append(fields, zap.String("fix", d.Result.Fix))
	}
	entry.Write(fields...)
}

// logAccess marks Caddy's access log, where the server has one: a field costs an allocation of its own.
func logAccess(r *http.Request, d *flow.Decision, reference string) {
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs == nil {
		return
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.String("smapi_outcome", d.Outcome.String()))
		if reference != "" {
			extra.Add(zap.String("smapi_reference", reference))
		}
	}
}

// logObserved writes one line about what would have become of a call that is forwarded.
func logObserved(logger *zap.Logger, d *flow.Decision, would ...zap.Field) {
	if entry := logger.Check(d.Outcome.Row().Level, "observed a call"); entry != nil {
		entry.Write(append(fieldsOf(d), would...)...)
	}
}

// fieldsOf are what every line about a call has.
func fieldsOf(d *flow.Decision) []zap.Field {
	return append(make([]zap.Field, 0, 14),
		zap.String("method", string(d.Call.Method)),
		zap.String("outcome", d.Outcome.String()),
		zap.String("credentials", string(d.Call.Credentials.Kind)),
		digest("household", d.Call.HouseholdID),
		digest("account", exchange.Account(d.Call)),
	)
}

// digestKey makes digests that lead back to nobody, and that no other process has.
var digestKey = func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // which never fails
	return key
}()

// digest follows one home or account through the log without naming it.
func digest(field, text string) zap.Field {
	if text == "" {
		return zap.Skip()
	}
	mac := hmac.New(sha256.New, digestKey)
	mac.Write([]byte(field + " " + text))
	return zap.String(field, hex.EncodeToString(mac.Sum(nil)[:8]))
}

// logUnsaved tells of tokens that are not in the vault as they should be.
func logUnsaved(logger *zap.Logger, d *flow.Decision) {
	says := "tokens could not be written to the vault, and the player got them as without a vault"
	if d.Kept {
		says = "tokens could not be written to the vault yet, and are in memory until they can be"
	}
	logger.Error(says, append(fieldsOf(d), zap.NamedError("cause", d.Unsaved),
		zap.String("fix", "check Caddy's storage: that it is there, writable, and not full"))...)
}
