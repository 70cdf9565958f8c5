package pacing

import (
	"container/list"
	"sync"
	"time"
)

// Accounts counts distinct accounts by what their last trial of the last five minutes was. It is safe for concurrent use.
//
// One account that is tried again and again counts once, and there is room for each kind of end apart, so that made-up
// accounts, however many, displace none that was accepted.
type Accounts struct {
	mu    sync.Mutex
	known map[Account]*list.Element
	ended [ends]list.List // of *ended, the oldest first
}

// End is how a trial ended.
type End uint8

// The ends of a trial: the endpoint accepted or rejected the credentials, or had a fair time and said neither.
const (
	Accepted End = iota
	Rejected
	Failed

	ends
)

type ended struct {
	account Account
	at      time.Time
	end     End
}

const (
	accountsWindow = 5 * time.Minute
	accountsMost   = 512 // of each end
)

// NewAccounts returns Accounts of which none was tried.
func NewAccounts() *Accounts { return &Accounts{known: make(map[Account]*list.Element)} }

// Note takes down how a trial of an account ended, in the place of how its last one did.
func (a *Accounts) Note(account Account, end End) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if earlier := a.known[account]; earlier != nil {
		if one := earlier.Value.(*ended); one.end == end {
			one.at = now
			a.ended[end].MoveToBack(earlier)
			a.expire(now)
			return
		}
		a.forget(earlier)
	}
	a.known[account] = a.ended[end].PushBack(&ended{account, now, end})
	a.expire(now)
}

// Count returns how many accounts there are of each End, 512 at most.
func (a *Accounts) Count() (n [ends]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire(time.Now())
	for end := range n {
		n[end] = a.ended[end].Len()
	}
	return n
}

func (a *Accounts) expire(now time.Time) {
	for end := range a.ended {
		for l := &a.ended[end]; l.Len() > 0; {
			oldest := l.Front()
			if l.Len() <= accountsMost && now.Sub(oldest.Value.(*ended).at) < accountsWindow {
				break
			}
			a.forget(oldest)
		}
	}
}

func (a *Accounts) forget(e *list.Element) {
	one := e.Value.(*ended)
	a.ended[one.end].Remove(e)
	delete(a.known, one.account)
}
