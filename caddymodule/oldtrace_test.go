package caddymodule_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func TestWhatATranslatedCallAsksOthersIsASpanOfItsRequest(t *testing.T) {
	received, step := collect(t), stepClock(t)
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	s := caddytest.Run(t, "tracing {\nspan request\n}\n"+withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key)) // with a session
	step(time.Hour)
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key)) // with a refresh
	old.With(func() { clear(old.Sessions) })
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key)) // with another session
	old.With(func() { clear(old.Sessions); old.Faults["getSessionId"] = caddytest.Fault("Client.marker-code") })
	s.Browse(t, "getLastUpdate", authToken, key)
	heard := old.Asked()
	if err := caddy.Stop(); err != nil { // which sends what is left
		t.Fatal(err)
	}
	requests, steps := map[string]bool{}, map[string][]*trace.Span{}
	for _, span := range received.all {
		if span.Name == "request" {
			requests[string(span.TraceId)+string(span.SpanId)] = true
		} else {
			steps[span.Name] = append(steps[span.Name], span)
		}
	}
	exchanges, sessions := steps["smapi_upgrade exchange"], steps["smapi_upgrade session"]
	if len(exchanges) != 2 || len(sessions) != 3 {
		t.Fatalf("the spans are %v", received.all)
	}
	results := map[string]int{}
	for _, span := range append(exchanges, sessions...) {
		if !requests[string(span.TraceId)+string(span.ParentSpanId)] {
			t.Errorf("it is under no request: %v", span)
		}
		for _, a := range span.Attributes {
			switch a.Key {
			case "smapi.session", "smapi.outcome", "oauth.grant_type":
				results[a.Value.GetStringValue()]++
			}
		}
		if failed := span.Status.GetCode() == trace.Status_STATUS_CODE_ERROR; failed != (span.Status.GetMessage() == "refused") {
			t.Errorf("the status is %v", span.Status)
		}
	}
	for want, n := range map[string]int{"upgraded": 1, "refreshed": 1, "refresh_token": 1, "begun": 1, "renewed": 1, "refused": 1} {
		if results[want] != n {
			t.Errorf("%d spans are %s, want %d", results[want], want, n)
		}
	}
	for _, r := range heard { // the old service goes on with the trace
		if !strings.Contains(r.Header.Get("SOAPAction"), "#getSessionId") {
			continue
		}
		of := func(span *trace.Span) bool {
			return r.Header.Get("Traceparent") == fmt.Sprintf("00-%x-%x-01", span.TraceId, span.SpanId)
		}
		if !of(sessions[0]) && !of(sessions[1]) && !of(sessions[2]) {
			t.Errorf("a getSessionId has %q", r.Header.Get("Traceparent"))
		}
	}
	for _, secret := range []string{"marker-", "smv1", "testuser", "12345", "Sonos_abc123"} {
		if bytes.Contains(received.raw.Bytes(), []byte(secret)) {
			t.Errorf("a span has %s", secret)
		}
	}
}
