package token

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxHold bounds for how long a token endpoint can have us hold back.
const maxHold = 5 * time.Minute

// largeSeconds are too many for a duration: it is a time then, in seconds of the epoch.
const largeSeconds = 1e8

// resetHeaders say in seconds, or in seconds of the epoch, when a limit ends.
var resetHeaders = [...]string{"X-Rate-Limit-Reset", "X-Ratelimit-Reset", "Ratelimit-Reset"}

// holdBack is for how long an answer asks to hold back, with a 429, a 503 or an OAuth error that says so: by Retry-After
// (RFC 9110 section 10.2.3, seconds or a date) or by a header that says when the limit ends. It is 0 where it does not ask.
func holdBack(answer *http.Response, code string, now func() time.Time) time.Duration {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable &&
		!slices.Contains(errorsPassing, code) {
		return 0
	}
	for _, value := range answer.Header["Retry-After"] {
		if hold, ok := retryAfter(value, now()); ok {
			return hold
		}
	}
	for _, name := range resetHeaders {
		if seconds, ok := readSeconds(answer.Header.Get(name)); ok {
			if seconds >= largeSeconds {
				seconds -= float64(now().Unix())
			}
			return bounded(seconds)
		}
	}
	return 0
}

// dates are those of RFC 9110 section 5.6.7, also in UTC or with a day of one digit, and what else is in use.
var dates = [...]string{"Mon, 2 Jan 2006 15:04:05 MST", time.RFC1123Z, time.RFC850, time.ANSIC, time.RFC3339}

func retryAfter(value string, now time.Time) (time.Duration, bool) {
	if seconds, ok := readSeconds(value); ok {
		return bounded(seconds), true
	}
	if parts := strings.SplitN(value, ",", 3); len(parts) == 3 { // a proxy has added a second date
		value = parts[0] + "," + parts[1]
	}
	for _, layout := range dates {
		if date, err := time.Parse(layout, strings.TrimSpace(value)); err == nil {
			return bounded(date.Sub(now).Seconds()), true
		}
	}
	return 0, false
}

// readSeconds reads a number, also one with a fraction or with parameters, and the first where a proxy has added a second.
func readSeconds(value string) (float64, bool) {
	if end := strings.IndexAny(value, ",;"); end >= 0 {
		value = value[:end]
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	return seconds, err == nil && seconds >= 0 && !math.IsInf(seconds, 0)
}

func bounded(seconds float64) time.Duration {
	return time.Duration(max(0, min(seconds, maxHold.Seconds())) * float64(time.Second))
}
