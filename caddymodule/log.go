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

// log writes one line about an answered call, and marks Caddy's access log.
func (h *Handler) log(r *http.Request, d decision, reference string) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.String("smapi_outcome", string(d.outcome)))
		extra.Add(zap.String("smapi_reference", reference))
	}
	entry := h.calls.Check(policy[d.outcome].level, "answered a call")
	if entry == nil {
		return
	}
	fields := append(d.fields(d.outcome), zap.String("reference", reference))
	if x := &d.result; x.Class != "" {
		fields = append(fields,
			zap.Int("status", x.Status),
			zap.String("oauth_error", x.Error),
			zap.Bool("replayed", x.Replayed),
			zap.Duration("waited", x.Waited),
			zap.Duration("duration", x.Took))
	}
	if cause := cmp.Or(d.result.Cause, causes[d.rule]); cause != "" {
		fields = append(fields, zap.String("cause", cause))
	}
	if d.result.Mend != "" {
		fields = append(fields, zap.String("mend", d.result.Mend))
	}
	entry.Write(fields...)
}

// observe counts and logs what would have become of a call that is forwarded.
func (h *Handler) observe(d decision) {
	h.record(observed, d)
	entry := h.calls.Check(policy[observed].level, "observed a call")
	if entry == nil {
		return
	}
	fields := d.fields(observed)
	if d.exchange != nil {
		fields = append(fields, zap.String("would", "exchange"), zap.String("grant_type", d.exchange.grantType))
	} else {
		fields = append(fields, zap.String("would", string(d.outcome)))
	}
	entry.Write(fields...)
}

// fields are what every line about a call has.
func (d *decision) fields(o outcome) []zap.Field {
	return append(make([]zap.Field, 0, 12),
		zap.String("method", string(d.call.Method)),
		zap.String("outcome", string(o)),
		zap.String("credentials", string(d.call.Credentials.Kind)),
		household(d.call.HouseholdID),
	)
}

// householdKey makes digests of homes that lead back to none, and that no other process has.
var householdKey = func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // which never fails
	return key
}()

// household follows one home through the log without naming it.
func household(id string) zap.Field {
	if id == "" {
		return zap.Skip()
	}
	mac := hmac.New(sha256.New, householdKey)
	mac.Write([]byte(id))
	return zap.String("household", hex.EncodeToString(mac.Sum(nil)[:8]))
}
