// Package value has the values of options that are written in a way of their own, in JSON and in the Caddyfile alike.
package value

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Retention is for how long something is remembered: a duration, or "off". The zero value is the default.
type Retention time.Duration

// Off is that nothing is remembered.
const Off Retention = -1

// MaxRetention bounds what the configuration can ask for. Players that ask again do so within minutes.
const MaxRetention = Retention(10 * time.Minute)

// ErrRetention is a text or a duration that is no Retention.
var ErrRetention = errors.New("has to be off, or a duration of more than 0 and at most 10m, such as 60s")

// ParseRetention reads "off" or a duration of at most MaxRetention. It fails with ErrRetention.
func ParseRetention(text string) (Retention, error) {
	if text == "off" {
		return Off, nil
	}
	d, err := caddy.ParseDuration(text)
	if err != nil || d <= 0 || Retention(d) > MaxRetention {
		return 0, ErrRetention
	}
	return Retention(d), nil
}

// UnmarshalJSON reads "off" or what caddy.Duration reads.
func (m *Retention) UnmarshalJSON(text []byte) error {
	var d caddy.Duration
	if string(text) == `"off"` {
		*m = Off
		return nil
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return ErrRetention
	}
	*m = Retention(d)
	return nil
}

// MarshalJSON writes "off" or a number of nanoseconds, as caddy.Duration does.
func (m Retention) MarshalJSON() ([]byte, error) {
	if m == Off {
		return []byte(`"off"`), nil
	}
	return json.Marshal(time.Duration(m))
}
