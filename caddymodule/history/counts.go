// Package history keeps what became of calls over time: counts, distinct accounts, and the last faults. Its memory is the same
// whatever comes. It knows no Caddy.
package history

import (
	"sync"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

// The steps in which outcomes are counted.
const (
	RecentStep, recentSteps = 10 * time.Second, 30 // five minutes
	DayStep, daySteps       = 10 * time.Minute, 144
)

// History is what there is to remember of one token endpoint. It is safe for concurrent use.
type History struct {
	Accounts  Accounts
	Faults    Faults
	Exchanges Durations

	mu      sync.Mutex
	since   time.Time
	total   [flow.NumOutcomes]uint64
	calls   uint64 // that this process has counted
	recent  ring
	day     ring
	resumed bool
}

// New returns a History of nothing that begins now.
func New(now time.Time) *History {
	return &History{since: now.UTC(), recent: ring{RecentStep, make([]slot, recentSteps)}, day: ring{DayStep, make([]slot, daySteps)}}
}

// Since is when counting began.
func (h *History) Since() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since
}

func (h *History) added() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

// ring has a slot for each step of time, in the place of the oldest.
type ring struct {
	step  time.Duration
	slots []slot
}

type slot struct {
	at     int64 // in steps
	counts [flow.NumOutcomes]uint32
}

// number is that of the step of a moment. None is before 1970, whatever a clock says.
func (r *ring) number(now time.Time) int64 { return max(0, now.UnixNano()) / int64(r.step) }

func (r *ring) slot(at int64) *slot { return &r.slots[at%int64(len(r.slots))] }

// slotOf is the slot of a step, empty where it had another one.
func (r *ring) slotOf(at int64) *slot {
	s := r.slot(at)
	if s.at != at {
		*s = slot{at: at}
	}
	return s
}

// Add counts one. What is no outcome is not counted.
func (h *History) Add(o flow.Outcome, now time.Time) {
	if int(o) >= flow.NumOutcomes {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total[o]++
	h.calls++
	h.recent.slotOf(h.recent.number(now)).counts[o]++
	h.day.slotOf(h.day.number(now)).counts[o]++
}

// Sums returns the outcomes in all, over the last five minutes, and in each step of those, the oldest first.
func (h *History) Sums(now time.Time) (total, lately map[flow.Outcome]uint64, steps []map[flow.Outcome]uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	total, lately = make(map[flow.Outcome]uint64), make(map[flow.Outcome]uint64)
	for o, n := range h.total {
		if n > 0 {
			total[flow.Outcome(o)] = n
		}
	}
	steps = make([]map[flow.Outcome]uint64, recentSteps)
	first := h.recent.number(now) - recentSteps + 1
	for i := range steps {
		steps[i] = make(map[flow.Outcome]uint64)
		s := h.recent.slot(max(0, first+int64(i)))
		if s.at != first+int64(i) {
			continue
		}
		for o, n := range s.counts {
			if n > 0 {
				steps[i][flow.Outcome(o)] = uint64(n)
				lately[flow.Outcome(o)] += uint64(n)
			}
		}
	}
	return total, lately, steps
}

// resume adds what another ring had, unless it is too long ago.
func (r *ring) resume(s *Series, now time.Time) {
	last, begins := r.number(now), r.number(s.Begins)
	for _, o := range flow.Outcomes() {
		for i, n := range s.Counts[o] {
			if at := begins + int64(i); n > 0 && at <= last && at > last-int64(len(r.slots)) {
				r.slotOf(at).counts[o] += n
			}
		}
	}
}

// Series are counts in steps of time, the oldest first. An outcome that did not happen is missing.
type Series struct {
	StepSeconds int64                     `json:"step_seconds"`
	Begins      time.Time                 `json:"begins"`
	Counts      map[flow.Outcome][]uint32 `json:"counts"`
}

// Day returns the last 24 hours in steps of ten minutes, the one that lasts yet the last.
func (h *History) Day(now time.Time) Series {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.day.series(now)
}

// lately is Day for the last five minutes, in steps of ten seconds.
func (h *History) lately(now time.Time) Series {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.recent.series(now)
}

func (r *ring) series(now time.Time) Series {
	steps := int64(len(r.slots))
	first := r.number(now) - steps + 1
	s := Series{int64(r.step / time.Second), time.Unix(0, first*int64(r.step)).UTC(), make(map[flow.Outcome][]uint32)}
	for i := range steps {
		from := r.slot(max(0, first+i))
		if from.at != first+i {
			continue
		}
		for o, n := range from.counts {
			if n == 0 {
				continue
			}
			of := s.Counts[flow.Outcome(o)]
			if of == nil {
				of = make([]uint32, steps)
				s.Counts[flow.Outcome(o)] = of
			}
			of[i] = n
		}
	}
	return s
}
