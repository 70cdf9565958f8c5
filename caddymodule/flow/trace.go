package flow

import (
	"cmp"

	"go.opentelemetry.io/otel/attribute"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/trace"
)

// endTrace says in a span what its exchange came to.
func (d *Decision) endTrace(span trace.Span, grantType string) {
	if !span.Recording() {
		return
	}
	cause := ""
	if d.Outcome.Row().Reply.Fault != nil {
		cause = cmp.Or(d.Result.Cause, d.Outcome.String())
	}
	span.End(cause,
		attribute.String("oauth.grant_type", grantType),
		attribute.String("smapi.outcome", d.Outcome.String()),
		attribute.String("smapi.credentials", string(d.Call.Credentials.Kind)),
		attribute.Int("http.response.status_code", d.Result.Status),
		attribute.String("oauth.error", d.Result.Error),
		attribute.Bool("smapi.replayed", d.Result.Replayed),
	)
}
