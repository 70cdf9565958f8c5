package settings

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Retention is for how long something is remembered: a duration, or "off". The zero value is the default.
type Retention time.Duration

// off is nothing is remembered.
const off Retention = -1

// maxRetention bounds what the configuration can ask for. Players that ask again do so within minutes.
const maxRetention = Retention(10 * time.Minute)

var errRetention = errors.New("has to be off, or a duration of more than 0 and at most 10m, such as 60s")

func parseRetention(text string) (Retention, error) {
	if text == "off" {
		return off, nil
	}
	d, err := caddy.ParseDuration(text)
	if err != nil || d <= 0 || Retention(d) > maxRetention {
		return 0, errRetention
	}
	return Retention(d), nil
}

// UnmarshalJSON reads "off" or what caddy.Duration reads.
func (m *Retention) UnmarshalJSON(text []byte) error {
	var d caddy.Duration
	if string(text) == `"off"` {
		*m = off
		return nil
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return errRetention
	}
	*m = Retention(d)
	return nil
}

// MarshalJSON writes "off" or a number of nanoseconds, as caddy.Duration does.
func (m Retention) MarshalJSON() ([]byte, error) {
	if m == off {
		return []byte(`"off"`), nil
	}
	return json.Marshal(time.Duration(m))
}
