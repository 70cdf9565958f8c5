package caddymodule

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// traceExchange begins the span of an exchange under that of its request, which Caddy's tracing has begun, and has
// the token endpoint go on with the trace. Without tracing it does nothing. A call that shares the exchange of
// another has a span of its own, but is not what the endpoint goes on with.
func traceExchange(ctx context.Context, g *token.Grant) (context.Context, trace.Span) {
	request := trace.SpanFromContext(ctx)
	if !request.SpanContext().IsValid() {
		return ctx, request
	}
	ctx, span := request.TracerProvider().Tracer("github.com/smapi-tools/caddy-smapi-upgrade").Start(ctx, "smapi_upgrade exchange",
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("oauth.grant_type", g.Type)))
	if g.Header == nil {
		g.Header = make(http.Header)
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(g.Header))
	return ctx, span
}

// endTrace says in the span what the exchange came to. One that does not record, as without tracing, is nobody's.
func endTrace(span trace.Span, d *flow.Decision) {
	if !span.IsRecording() {
		return
	}
	defer span.End()
	span.SetAttributes(
		attribute.String("smapi.outcome", d.Outcome.String()),
		attribute.String("smapi.credentials", string(d.Call.Credentials.Kind)),
		attribute.Int("http.response.status_code", d.Result.Status),
		attribute.String("oauth.error", d.Result.Error),
		attribute.Bool("smapi.replayed", d.Result.Replayed),
	)
	if d.Outcome.Row().Reply.Fault != nil {
		span.SetStatus(codes.Error, d.Result.Cause)
	}
}
