package token

import (
	"net/http"
	"strconv"
	"time"
)

// maxHold bounds for how long a token endpoint can have us hold back.
const maxHold = 5 * time.Minute

// holdUntil is until when an answer of no definite kind asks to hold back: by Retry-After (RFC 9110 section
// 10.2.3, seconds or a date) or by X-Rate-Limit-Reset, which is in seconds of the epoch, with a 429 or a 503.
// It is zero where it does not ask.
func holdUntil(answer *http.Response, now time.Time) (until time.Time) {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable {
		return until
	}
	after := answer.Header.Get("Retry-After")
	reset := answer.Header.Get("X-Rate-Limit-Reset")
	if seconds, err := strconv.ParseUint(after, 10, 31); err == nil {
		until = now.Add(time.Duration(seconds) * time.Second)
	} else if date, err := http.ParseTime(after); err == nil {
		until = date
	} else if epoch, err := strconv.ParseInt(reset, 10, 64); err == nil {
		until = time.Unix(epoch, 0)
	}
	if latest := now.Add(maxHold); until.After(latest) {
		return latest
	}
	return until
}
