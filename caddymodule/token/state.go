package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// State is what is known of one token endpoint beyond a single exchange: who is in flight and who waits,
// whether to hold back, and the recent answers. It outlives an Endpoint, so that a new configuration in the
// middle of a storm neither doubles the load nor forgets an outage. Nothing of it is ever written down.
type State struct {
	gate    *gate
	breaker *breaker

	mu       sync.Mutex
	flights  map[digest]*flight
	issued   *memory
	rejected *memory
}

// Bounds of what is remembered. The players' next tries find an entry, or cost a login as they did before.
const (
	maxIssued   = 1 << 14
	maxRejected = 1 << 16
)

// Watch is told when the State of a token endpoint changes, by a goroutine of its own.
type Watch struct {
	// Breaker is "open" when the endpoint is left alone, "half-open" when it is tried, "closed" when all is well.
	Breaker func(state string)

	// Hold is until when the endpoint has asked to hold back.
	Hold func(until time.Time)
}

// NewState returns the State of a token endpoint that has not been used yet.
func NewState(watch Watch) *State {
	g := newGate(watch.Hold)
	return &State{
		gate:     g,
		breaker:  newBreaker(g.clear, watch.Breaker),
		flights:  make(map[digest]*flight),
		issued:   newMemory(maxIssued),
		rejected: newMemory(maxRejected),
	}
}

// Status is a State at one moment.
type Status struct {
	InFlight, Waiting int

	// OldestWaiting is since when the one at the head of the queue waits, zero where nobody does.
	OldestWaiting time.Time

	// Breaker is "closed", "open" or "half-open".
	Breaker string

	// Hold is until when nobody is let in, zero or past where that is not so.
	Hold time.Time
}

// Status returns how it is now.
func (s *State) Status() Status {
	status := Status{Breaker: s.breaker.State().String()}
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	status.InFlight, status.Waiting, status.Hold = s.gate.inFlight, s.gate.queue.Len(), s.gate.hold
	if front := s.gate.queue.Front(); front != nil {
		status.OldestWaiting = front.Value.(*waiting).since
	}
	return status
}

// digest stands for a call in memory. It is keyed by the process, so that none can be tried out elsewhere.
type digest [sha256.Size]byte

var digestKey = func() (key [sha256.Size]byte) {
	_, _ = rand.Read(key[:]) // which never fails
	return key
}()

func digestOf(a, b string, more ...string) digest {
	text := append(make([]byte, 0, 512), digestKey[:]...)
	text = appendPart(appendPart(text, a), b)
	for _, part := range more {
		text = appendPart(text, part)
	}
	return sha256.Sum256(text)
}

func appendPart(text []byte, part string) []byte {
	return append(binary.LittleEndian.AppendUint64(text, uint64(len(part))), part...)
}

// flight is one exchange and those who wait for its result.
type flight struct {
	done   chan struct{}
	result Result

	// Guarded by State.mu.
	waiters  int
	deadline time.Time // of the most patient one
	sent     bool

	// abandoned is closed when nobody waits for the result any more, and it has not been sent.
	abandoned chan struct{}
}

// board returns the result of the same call if it is known and such are wanted, or the flight that is to find it out; it is new
// if lead is true.
func (s *State) board(d digest, deadline time.Time, replay, rejected bool) (known *Result, f *flight, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if replay {
		known = s.issued.get(d)
	}
	if rejected && known == nil {
		known = s.rejected.get(d)
	}
	if known != nil {
		return known, nil, false
	}
	if f := s.flights[d]; f != nil {
		f.waiters++
		if deadline.After(f.deadline) {
			f.deadline = deadline
		}
		return nil, f, false
	}
	f = &flight{done: make(chan struct{}), abandoned: make(chan struct{}), waiters: 1, deadline: deadline}
	s.flights[d] = f
	return nil, f, true
}

// leave takes a waiter from a flight and tells whether it has been sent. One that has not and that nobody
// waits for any more never is; the next same call starts another.
func (s *State) leave(d digest, f *flight) (sent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiters--; f.waiters == 0 && !f.sent {
		close(f.abandoned)
		if s.flights[d] == f {
			delete(s.flights, d)
		}
	}
	return f.sent
}

// send marks a flight as one that is finished whoever waits, and returns its deadline. It is not sent if
// everybody has left.
func (s *State) send(f *flight) (deadline time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.sent = f.waiters > 0
	return f.deadline, f.sent
}

// land ends a flight and remembers what is definitive.
func (s *State) land(d digest, f *flight, r Result, replay, rejected time.Duration) {
	s.mu.Lock()
	switch r.Class {
	case Issued:
		s.issued.put(d, r.small(), replay)
	case Rejected:
		r.object = nil // which nobody looks at
		s.rejected.put(d, r, rejected)
	}
	if s.flights[d] == f {
		delete(s.flights, d)
	}
	s.mu.Unlock()
	f.result = r
	close(f.done)
}
