package pacing

import (
	"sync"
	"time"
)

// recent keeps the last few accounts with the time when each was last seen.
type recent struct {
	mu   sync.Mutex
	seen [breakerAccounts]struct {
		account Account
		at      time.Time
	}
}

// add notes an account, in the place of the one that was not seen for longest.
func (r *recent) add(account Account, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := 0
	for i := range r.seen {
		if r.seen[i].account == account {
			oldest = i
			break
		}
		if r.seen[i].at.Before(r.seen[oldest].at) {
			oldest = i
		}
	}
	r.seen[oldest].account, r.seen[oldest].at = account, now
}

// distinct counts the accounts seen since then, as far as there is room for them.
func (r *recent) distinct(since time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.seen {
		if r.seen[i].at.After(since) {
			n++
		}
	}
	return n
}
