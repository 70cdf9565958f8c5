package history

import (
	"slices"
	"sync"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

// Fault is an answer that was not what its player hoped for, as its line in the log has it. It holds no text of a caller.
type Fault struct {
	At        time.Time    `json:"at"`
	Reference string       `json:"reference"`
	Method    string       `json:"method"`
	Outcome   flow.Outcome `json:"outcome"`
	Cause     string       `json:"cause,omitempty"`
	Fix       string       `json:"fix,omitempty"`
}

// faultsOfEach are kept of each outcome, so that however many of one hide no other.
const faultsOfEach = 4

// Faults are the last ones. The zero value has none, and it is safe for concurrent use.
type Faults struct {
	mu   sync.Mutex
	last [flow.NumOutcomes]struct {
		next   int
		faults [faultsOfEach]Fault
	}
}

// Add takes one down. What is no outcome is none.
func (f *Faults) Add(fault Fault) {
	if int(fault.Outcome) >= flow.NumOutcomes {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(fault)
}

func (f *Faults) add(fault Fault) {
	last := &f.last[fault.Outcome]
	last.faults[last.next] = fault
	last.next = (last.next + 1) % faultsOfEach
}

// resume takes in those of before, of which none takes the place of a later one.
func (f *Faults) resume(before []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all()
	for _, fault := range before {
		if int(fault.Outcome) < flow.NumOutcomes && fault.Reference != "" {
			all = append(all, fault)
		}
	}
	slices.SortStableFunc(all, func(a, b Fault) int { return a.At.Compare(b.At) })
	for _, fault := range all {
		f.add(fault)
	}
}

// Last returns them, the latest first.
func (f *Faults) Last() []Fault {
	f.mu.Lock()
	all := f.all()
	f.mu.Unlock()
	slices.SortStableFunc(all, func(a, b Fault) int { return b.At.Compare(a.At) })
	return all
}

func (f *Faults) all() []Fault {
	all := []Fault{}
	for _, o := range flow.Outcomes() {
		all = append(all, f.of(o)...)
	}
	return all
}

// Of returns those of an outcome, the latest first.
func (f *Faults) Of(o flow.Outcome) []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of(o)
}

func (f *Faults) of(o flow.Outcome) (all []Fault) {
	last := &f.last[o]
	for i := range faultsOfEach {
		if fault := last.faults[(last.next+2*faultsOfEach-1-i)%faultsOfEach]; fault.Reference != "" {
			all = append(all, fault)
		}
	}
	return all
}
