// Package trace has the spans of what is asked of others for a call. It knows no Caddy, whose tracing begins the span of a request.
package trace

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Span is that of one question. Without tracing it does nothing.
type Span struct{ trace.Span }

// Begin begins the span of a step under that of its request, and has who is asked go on with the trace by these headers of the
// question. Without tracing it does nothing.
func Begin(ctx context.Context, step string, header *http.Header) (context.Context, Span) {
	request := trace.SpanFromContext(ctx)
	if !request.SpanContext().IsValid() {
		return ctx, Span{}
	}
	ctx, span := request.TracerProvider().Tracer("github.com/smapi-tools/caddy-smapi-upgrade").Start(ctx, "smapi_upgrade "+step,
		trace.WithSpanKind(trace.SpanKindClient))
	if *header == nil {
		*header = make(http.Header)
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(*header))
	return ctx, Span{span}
}

// Recording reports whether somebody will see what End says.
func (s Span) Recording() bool { return s.Span != nil && s.IsRecording() }

// End ends it with what came of the step. Cause is why it failed, and blank if it did not.
func (s Span) End(cause string, attributes ...attribute.KeyValue) {
	if !s.Recording() {
		return
	}
	s.SetAttributes(attributes...)
	if cause != "" {
		s.SetStatus(codes.Error, cause)
	}
	s.Span.End()
}
