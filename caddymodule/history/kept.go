package history

import (
	"errors"
	"fmt"
	"time"

	"github.com/axiomhq/hyperloglog"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

const version = 1 // of what is kept

// kept is a History as an instance keeps it. It is written as JSON and sealed, and has counts and sketches of keyed digests alone.
// Members are added and never taken away, since instances of two versions share a storage while a fleet is updated.
type kept struct {
	Version  int                     `json:"version"`
	Since    time.Time               `json:"since"`
	Total    map[flow.Outcome]uint64 `json:"total"`
	Day      Series                  `json:"day"`
	Accounts map[string][]byte       `json:"accounts"`
	Lately   Series                  `json:"lately"`
	Times    []durations             `json:"times"`
	Faults   []Fault                 `json:"faults"`

	// Written is when, by the clock of the instance: that of the storage may be another. Zero is an earlier version.
	Written time.Time `json:"written,omitzero"`
}

var errLater = errors.New("a later version of this module wrote it")

// keep is what there is to keep, and how many calls it has counted in this process.
func (h *History) keep(now time.Time) (kept, uint64, error) {
	added := h.added() // of what is counted meanwhile, the next one tells
	total, _, _ := h.Sums(now)
	sketches, err := h.Accounts.sketched()
	return kept{version, h.Since(), total, h.Day(now), sketches, h.lately(now), h.Exchanges.keep(now), h.Faults.Last(), now.UTC()}, added, err
}

// merge takes in the accounts that an instance has seen. Whoever takes in the same ones twice has them once.
func (h *History) merge(k *kept) error {
	if k.Version > version {
		return errLater
	}
	return h.Accounts.merge(k.Accounts)
}

// resume goes on where the last process of this instance stopped. Only the first call counts, with nil where there was none.
func (h *History) resume(k *kept, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.resumed {
		return
	}
	h.resumed = true
	if k == nil {
		return
	}
	if !k.Since.IsZero() && k.Since.Before(h.since) {
		h.since = k.Since
	}
	for _, o := range flow.Outcomes() {
		h.total[o] += k.Total[o]
	}
	h.day.resume(&k.Day, now)
	h.recent.resume(&k.Lately, now)
	h.Exchanges.resume(k.Times, now)
	h.Faults.resume(k.Faults)
}

var cameNames = [came]string{"upgraded", "signed_in", "refused", "doubted"}

func (a *Accounts) sketched() (map[string][]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string][]byte)
	for c, s := range a.sketches {
		if s == nil {
			continue
		}
		text, err := s.MarshalBinary()
		if err != nil {
			return nil, err
		}
		all[cameNames[c]] = text
	}
	return all, nil
}

func (a *Accounts) merge(all map[string][]byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.sketches {
		text, there := all[cameNames[c]]
		if !there {
			continue
		}
		other, merged := new(hyperloglog.Sketch), hyperloglog.New14()
		if err := other.UnmarshalBinary(text); err != nil {
			return fmt.Errorf("the accounts %s: %w", cameNames[c], err)
		}
		if a.sketches[c] != nil {
			merged = a.sketches[c]
		}
		if err := merged.Merge(other); err != nil {
			return fmt.Errorf("the accounts %s: %w", cameNames[c], err)
		}
		a.sketches[c] = merged
	}
	return nil
}
