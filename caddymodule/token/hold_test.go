package token

import (
	"net/http"
	"testing"
	"time"
)

func TestHoldingBackIsBounded(t *testing.T) {
	clock := func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	for after, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, "86400": maxHold, "-1": 0, "soon": 0, "": 0, "99999999999999999999": maxHold, "7.5": 7500 * time.Millisecond, "30, 30": 30 * time.Second,
		"Thu, 01 Jan 2026 00:00:09 UTC": 9 * time.Second, "NaN": 0, "Inf": 0,
		"Thu, 01 Jan 2026 00:00:09 GMT": 9 * time.Second, "Fri, 01 Jan 2027 00:00:00 GMT": maxHold,
		"Thu, 01 Jan 1970 00:00:00 GMT": 0, "9;comment": 9 * time.Second, "2026-01-01T00:00:09Z": 9 * time.Second,
		"Thu, 1 Jan 2026 00:00:09 GMT": 9 * time.Second, "Thursday, 01-Jan-26 00:00:09 GMT": 9 * time.Second,
		"Thu, 01 Jan 2026 00:00:09 GMT, Thu, 01 Jan 2026 00:00:08 GMT": 9 * time.Second, "Thu, 01 Jan 2026 01:00:09 +0100": 9 * time.Second,
	} {
		if got := holdBack(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {after}}}, "", clock); got != want {
			t.Errorf("%q: for %v", after, got)
		}
	}
	for _, values := range [][]string{{"9", "30"}, {"", "9"}, {"soon", "9"}} {
		a := newAnswer(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": values}}, nil, nil)
		if a.HoldBack != 9*time.Second || !a.RetryAfter {
			t.Errorf("%q: for %v", values, a.HoldBack)
		}
	}
	for name, value := range map[string]string{
		"X-Rate-Limit-Reset": "1767225607", "X-Ratelimit-Reset": "7", "Ratelimit-Reset": "7;w=60",
	} {
		if got := holdBack(&http.Response{StatusCode: 429, Header: http.Header{name: {value}}}, "", clock); got != 7*time.Second {
			t.Errorf("%s %s: for %v", name, value, got)
		}
	}
	if got := holdBack(&http.Response{StatusCode: 500, Header: http.Header{"Retry-After": {"5"}}}, "server_error", clock); got != 0 {
		t.Errorf("a 500 holds back for %v", got)
	}
	for _, code := range errorsPassing {
		if got := holdBack(&http.Response{StatusCode: 400, Header: http.Header{"Retry-After": {"5"}}}, code, clock); got != 5*time.Second {
			t.Errorf("%s holds back for %v", code, got)
		}
	}
}
