package pacing

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// accountHolds are the accounts that an endpoint has asked to hold back. One that is forgotten is asked for, and told
// again.
type accountHolds struct {
	until *lru.Cache[Account, time.Time]
	told  *recent // lately
}

// How many accounts have to be told within which time before all are held, and how many are remembered.
const (
	holdAccounts    = 3
	holdWindow      = 10 * time.Second
	maxAccountHolds = 1 << 14
)

func newAccountHolds() accountHolds {
	until, _ := lru.New[Account, time.Time](maxAccountHolds) // the size is positive
	return accountHolds{until, new(recent)}
}

func (h *accountHolds) held(a Account, now time.Time) bool {
	until, ok := h.until.Get(a)
	return ok && until.After(now)
}

// hold holds an account.
func (h *accountHolds) hold(a Account, pause time.Duration, now time.Time) {
	h.until.Add(a, now.Add(pause))
}

// tell notes that an account was told to hold back, and reports whether so many were lately that the endpoint means all.
func (h *accountHolds) tell(a Account, now time.Time) (all bool) {
	h.told.add(a, now)
	return h.told.distinct(now.Add(-holdWindow)) >= holdAccounts
}
