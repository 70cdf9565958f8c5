package pacing

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Accounts counts distinct accounts by what their last trial of the last five minutes was. It is safe for concurrent use.
//
// One account that is tried again and again counts once, and there is room for each kind of end apart, so that made-up
// accounts, however many, displace none that was accepted.
type Accounts struct {
	mu    sync.Mutex
	ended [ends]*simplelru.LRU[Account, time.Time] // when, the oldest first
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

const (
	accountsWindow = 5 * time.Minute
	accountsMost   = 512 // of each end
)

// NewAccounts returns Accounts of which none was tried.
func NewAccounts() *Accounts {
	a := new(Accounts)
	for end := range a.ended {
		a.ended[end], _ = simplelru.NewLRU[Account, time.Time](accountsMost, nil) // whose only error is a size of 0
	}
	return a
}

// Note takes down how a trial of an account ended, in the place of how its last one did.
func (a *Accounts) Note(account Account, end End) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for other := range a.ended {
		if End(other) != end {
			a.ended[other].Remove(account)
		}
	}
	a.ended[end].Add(account, time.Now())
}

// Count returns how many accounts there are of each End, 512 at most.
func (a *Accounts) Count() (n [ends]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for end, accounts := range a.ended {
		for {
			if _, at, ok := accounts.GetOldest(); !ok || now.Sub(at) < accountsWindow {
				break
			}
			accounts.RemoveOldest()
		}
		n[end] = accounts.Len()
	}
	return n
}
