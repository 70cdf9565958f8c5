package settings

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Memory is for how long something is remembered: a duration, or "off". The zero value is the default.
type Memory time.Duration

// off is no memory at all.
const off Memory = -1

// maxMemory bounds what the configuration can ask for. Players that ask again do so within minutes.
const maxMemory = Memory(10 * time.Minute)

var errMemory = errors.New("has to be off, or a duration of more than 0 and at most 10m, such as 60s")

func parseMemory(text string) (Memory, error) {
	if text == "off" {
		return off, nil
	}
	d, err := caddy.ParseDuration(text)
	if err != nil || d <= 0 || Memory(d) > maxMemory {
		return 0, errMemory
	}
	return Memory(d), nil
}

// UnmarshalJSON reads "off" or what caddy.Duration reads.
func (m *Memory) UnmarshalJSON(text []byte) error {
	var d caddy.Duration
	if string(text) == `"off"` {
		*m = off
		return nil
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return errMemory
	}
	*m = Memory(d)
	return nil
}

// MarshalJSON writes "off" or a number of nanoseconds, as caddy.Duration does.
func (m Memory) MarshalJSON() ([]byte, error) {
	if m == off {
		return []byte(`"off"`), nil
	}
	return json.Marshal(time.Duration(m))
}
