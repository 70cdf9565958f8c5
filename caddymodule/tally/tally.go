// Package tally counts what became of calls, for the status.
package tally

import (
	"maps"
	"sync"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

// What Sums takes for the recent past.
const (
	recently = 5 * time.Minute
	slotTime = 10 * time.Second
)

// Tally counts outcomes since the start and lately. The zero value has counted none.
type Tally struct {
	mu    sync.Mutex
	total map[flow.Outcome]uint64
	slots [recently / slotTime]struct {
		at     int64 // in slots
		counts map[flow.Outcome]uint64
	}
}

// Add counts one.
func (t *Tally) Add(o flow.Outcome, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total == nil {
		t.total = make(map[flow.Outcome]uint64)
	}
	t.total[o]++
	at := now.UnixNano() / int64(slotTime)
	slot := &t.slots[at%int64(len(t.slots))]
	if slot.at != at || slot.counts == nil {
		slot.at, slot.counts = at, make(map[flow.Outcome]uint64)
	}
	slot.counts[o]++
}

// Sums returns the outcomes since the start, over the last five minutes, and in each slot of those, the oldest first.
func (t *Tally) Sums(now time.Time) (total, lately map[flow.Outcome]uint64, history []map[flow.Outcome]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	total, lately = make(map[flow.Outcome]uint64), make(map[flow.Outcome]uint64)
	maps.Copy(total, t.total)
	history = make([]map[flow.Outcome]uint64, len(t.slots))
	first := now.UnixNano()/int64(slotTime) - int64(len(t.slots)) + 1
	for i := range history {
		history[i] = make(map[flow.Outcome]uint64)
		if slot := &t.slots[(first+int64(i))%int64(len(t.slots))]; slot.at == first+int64(i) {
			maps.Copy(history[i], slot.counts)
			for o, n := range slot.counts {
				lately[o] += n
			}
		}
	}
	return total, lately, history
}
