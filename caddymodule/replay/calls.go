// Package replay gives the same call the same answer: calls that are under way at the same time share one exchange, a
// flight, and for a while after it they get what came of it.
//
// It knows neither what a call is nor what its answers are. Answers are kept in Stores, whose values can be written down.
package replay

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// Store keeps values for a while. One that loses them costs a login, as it does without.
type Store[V any] interface {
	Get(Digest) (value V, ok bool)
	Put(d Digest, value V, keep time.Duration)
}

// Digest stands for a call: 16 bytes of a SHA-256. It is keyed per process, so that none can be tried out elsewhere.
type Digest [16]byte

var digestKey = func() (key [sha256.Size]byte) {
	_, _ = rand.Read(key[:]) // which never fails
	return key
}()

// texts are kept for reuse, and off the stacks of those who wait for what they have digested.
var texts = sync.Pool{New: func() any { return new([512]byte) }}

// DigestOf returns the digest of what a call is told from others by.
func DigestOf(first string, parts ...string) (d Digest) {
	d.Set(first, parts)
	return d
}

// Set makes d what DigestOf returns, in place: thousands wait with less than that much left of their stacks.
func (d *Digest) Set(first string, parts []string) {
	room := texts.Get().(*[512]byte)
	text := textOf(room, first, parts)
	sum := sha256.Sum256(text)
	copy(d[:], sum[:])
	clear(room[:]) // of passwords
	clear(text)    // which may be elsewhere
	texts.Put(room)
}

// textOf is apart from Set so that what it has on the stack is not there while the text is hashed.
//
//go:noinline
func textOf(room *[512]byte, first string, parts []string) []byte {
	text := appendPart(append(room[:0], digestKey[:]...), first)
	for _, part := range parts {
		text = appendPart(text, part)
	}
	return text
}

func appendPart(text []byte, part string) []byte {
	return append(binary.LittleEndian.AppendUint64(text, uint64(len(part))), part...)
}

// Calls are the flights that are under way and the answers that are remembered. It is safe for concurrent use.
type Calls[V any] struct {
	mu       sync.Mutex
	flights  map[Digest]*Flight[V]
	accepted Store[V]
	rejected Store[V]
}

// New returns Calls that remember in these stores.
func New[V any](accepted, rejected Store[V]) *Calls[V] {
	return &Calls[V]{flights: make(map[Digest]*Flight[V]), accepted: accepted, rejected: rejected}
}

// Flight is one exchange and those who wait for its result.
type Flight[V any] struct {
	// Done is closed when the flight has landed. Result is set then. It is nil for who leads.
	Done   chan struct{}
	Result V

	// Abandoned is closed when nobody waits for the result any more and it has not been sent.
	Abandoned chan struct{}

	// Guarded by Calls.mu.
	waiters  int
	deadline time.Time // of the most patient one
	sent     bool
}

// Wanted are the kinds of remembered answers that a call takes. Rejected is the digest by which a rejection is known, nil
// for none: the same wrong password is wrong for every home.
type Wanted struct {
	Accepted bool
	Rejected *Digest
}

// Board returns the answer of the same call if one that is wanted is known, or else the flight that is to find it out.
// The caller leads the flight if lead is true, and has to Land it then.
func (c *Calls[V]) Board(d Digest, deadline time.Time, want Wanted) (known V, f *Flight[V], lead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.known(d, want); ok {
		return known, nil, false
	}
	if f := c.flights[d]; f != nil {
		if f.waiters++; f.Done == nil {
			f.Done = make(chan struct{})
		}
		if deadline.After(f.deadline) {
			f.deadline = deadline
		}
		return known, f, false
	}
	f = &Flight[V]{Abandoned: make(chan struct{}), waiters: 1, deadline: deadline}
	c.flights[d] = f
	return known, f, true
}

// Known returns the answer of the same call if one that is wanted is remembered.
func (c *Calls[V]) Known(d Digest, want Wanted) (known V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known(d, want)
}

func (c *Calls[V]) known(d Digest, want Wanted) (known V, ok bool) {
	if want.Accepted {
		if known, ok = c.accepted.Get(d); ok {
			return known, true
		}
	}
	if want.Rejected != nil {
		return c.rejected.Get(*want.Rejected)
	}
	return known, false
}

// Leave takes a waiter from a flight and reports whether it has been sent. One that has not and that nobody
// waits for any more never is; the next same call starts another.
func (c *Calls[V]) Leave(d Digest, f *Flight[V]) (sent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters == 0 && !f.sent {
		close(f.Abandoned)
		if c.flights[d] == f {
			delete(c.flights, d)
		}
	}
	return f.sent
}

// Send marks a flight as one that is finished whoever waits, and returns its deadline. It is not sent if
// everybody has left.
func (c *Calls[V]) Send(f *Flight[V]) (deadline time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.sent = f.waiters > 0
	return f.deadline, f.sent
}

// Keep says for how long a result is remembered, and as what; 0 is not at all.
type Keep struct{ Accepted, Rejected time.Duration }

// Land ends a flight with its result. A rejection is known by a digest of its own.
func (c *Calls[V]) Land(d, rejected Digest, f *Flight[V], result V, keep Keep) {
	c.mu.Lock()
	c.accepted.Put(d, result, keep.Accepted)
	c.rejected.Put(rejected, result, keep.Rejected)
	if c.flights[d] == f {
		delete(c.flights, d)
	}
	f.Result = result
	if f.Done != nil {
		close(f.Done)
	}
	c.mu.Unlock()
}
