// Package legacy has what it takes to make calls of an old service that stays as it is: sessions at it, and answers that are
// looked at before the player has them.
//
// It knows neither Caddy nor SOAP.
package legacy

import (
	"context"
	"errors"
	"hash/maphash"
	"math/bits"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Account tells an account at an old service from others. AccountAt makes one.
type Account struct {
	where  uint64 // by a hash, since players may make it long
	digest [16]byte
}

var seed = maphash.MakeSeed()

// AccountAt is the account with a digest, which is of the user name and the password and no secret, where the player has asked for it:
// two old services may stand behind one host, told apart by a path or a query.
func AccountAt(host, target string, digest [16]byte) Account {
	return Account{maphash.String(seed, host) ^ bits.RotateLeft64(maphash.String(seed, target), 32), digest}
}

// Sessions are those at old services, one for each account, in memory. They are left alone until the old service refuses
// them: URLs in its answers may hold them, and live on in queues. It is safe for concurrent use. NewSessions makes one.
type Sessions struct {
	now func() time.Time

	mu      sync.Mutex
	known   *simplelru.LRU[Account, known]
	flights map[Account]*flight
	begun   int
}

// MaxSessions is how many accounts sessions are kept of, those used last. Another one costs a session more when it comes
// again.
const MaxSessions = 1 << 17

// Session is one at an old service. Two with the same ID are not the same: an old service may give the one that it had forgotten.
// The zero value is none.
type Session struct {
	ID     string
	number int
}

// known is a session, or why there was none lately.
type known struct {
	session Session
	err     error
	until   time.Time // of err
}

type flight struct {
	done    chan struct{}
	session Session
	err     error
}

// NewSessions returns Sessions of so many accounts, at least 1. Now is the clock.
func NewSessions(accounts int, now func() time.Time) *Sessions {
	cache, err := simplelru.NewLRU[Account, known](accounts, nil)
	if err != nil {
		panic(err) // accounts is not positive
	}
	return &Sessions{now: now, known: cache, flights: make(map[Account]*flight)}
}

// Begin begins a session at the old service. Its error is that of all who wait for it, and hold is for how long it is also
// that of those who come later.
type Begin func() (id string, hold time.Duration, err error)

// ErrBroken is for those who wait for a Begin that panicked.
var ErrBroken = errors.New("the beginning of a session broke off")

// Remembered is why there was no session a moment ago. It was not asked for again.
type Remembered struct{ Err error }

func (r *Remembered) Error() string { return r.Err.Error() }

// Unwrap returns Err.
func (r *Remembered) Unwrap() error { return r.Err }

// Get returns the session of an account, other than the one that the old service has refused. If there is
// none, one caller begins it, in its own goroutine, and the others wait for it until their ctx ends.
func (s *Sessions) Get(ctx context.Context, account Account, refused Session, begin Begin) (Session, error) {
	s.mu.Lock()
	if k, ok := s.known.Get(account); ok {
		if k.err == nil && k.session != refused || k.err != nil && s.now().Before(k.until) {
			s.mu.Unlock()
			if k.err != nil {
				return Session{}, &Remembered{k.err}
			}
			return k.session, nil
		}
	}
	if f := s.flights[account]; f != nil {
		s.mu.Unlock()
		select {
		case <-f.done:
			return f.session, f.err
		case <-ctx.Done():
			return Session{}, ctx.Err()
		}
	}
	f := &flight{done: make(chan struct{}), err: ErrBroken}
	s.flights[account] = f
	s.begun++
	f.session.number = s.begun
	s.mu.Unlock()

	var hold time.Duration
	defer func() { // even if begin panics
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.flights, account)
		switch {
		case f.err == nil:
			s.known.Add(account, known{session: f.session})
		case hold > 0:
			s.known.Add(account, known{err: f.err, until: s.now().Add(hold)})
		}
		close(f.done)
	}()
	f.session.ID, hold, f.err = begin()
	return f.session, f.err
}

// Len is how many accounts have something that is known.
func (s *Sessions) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known.Len()
}

// Begun is how many sessions were begun, or tried to.
func (s *Sessions) Begun() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}
