package token

import (
	"net/http"
	"strconv"
	"time"
)

// maxHold bounds for how long a token endpoint can have us hold back.
const maxHold = 5 * time.Minute

// holdBack is for how long an answer asks to hold back, with a 429 or a 503: by Retry-After (RFC 9110 section 10.2.3,
// seconds or a date) or by X-Rate-Limit-Reset, which is in seconds of the epoch. It is 0 where it does not ask.
func holdBack(answer *http.Response, now time.Time) (hold time.Duration) {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	after := answer.Header.Get("Retry-After")
	reset := answer.Header.Get("X-Rate-Limit-Reset")
	if seconds, err := strconv.ParseUint(after, 10, 31); err == nil {
		hold = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(after); err == nil {
		hold = date.Sub(now)
	} else if epoch, err := strconv.ParseInt(reset, 10, 64); err == nil {
		hold = time.Unix(epoch, 0).Sub(now)
	}
	return max(0, min(hold, maxHold))
}
