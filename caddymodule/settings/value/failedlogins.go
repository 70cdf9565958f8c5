package value

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
)

// FailedLogins is how many failed logins within which time: a text such as "4 30m", or "off".
type FailedLogins struct {
	// Failures is how many, 0 for off.
	Failures int

	// Within is the time.
	Within time.Duration
}

// DefaultFailedLogins is "4 30m".
var DefaultFailedLogins = FailedLogins{4, 30 * time.Minute}

var errFailedLogins = errors.New("must be off, or a number from 1 to 100 and a duration from 1m to 24h, such as 4 30m")

// ParseFailedLogins reads such a text: from 1 to 100 within 1m to 24h, or "off".
func ParseFailedLogins(text string) (FailedLogins, error) {
	if text == "off" {
		return FailedLogins{}, nil
	}
	words := strings.Fields(text)
	if len(words) != 2 {
		return FailedLogins{}, errFailedLogins
	}
	n, err := strconv.Atoi(words[0])
	within, errWithin := caddy.ParseDuration(words[1])
	if err != nil || errWithin != nil || n < 1 || n > 100 || within < time.Minute || within > 24*time.Hour {
		return FailedLogins{}, errFailedLogins
	}
	return FailedLogins{n, within}, nil
}

// String is such a text.
func (f FailedLogins) String() string {
	if f.Failures == 0 {
		return "off"
	}
	return fmt.Sprint(f.Failures, " ", f.Within)
}

// Budget is that of each account.
func (f FailedLogins) Budget() pacing.Budget {
	return pacing.Budget{Failures: f.Failures, Window: f.Within}
}

// UnmarshalJSON reads a text such as "4 30m", or "off".
func (f *FailedLogins) UnmarshalJSON(text []byte) (err error) {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return errFailedLogins
	}
	*f, err = ParseFailedLogins(s)
	return err
}

// MarshalJSON writes such a text.
func (f FailedLogins) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }
