package pacing

import (
	"sync"
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

// hold holds an account, and reports whether so many are held lately that the endpoint means all.
func (h *accountHolds) hold(a Account, pause time.Duration, now time.Time) (all bool) {
	h.until.Add(a, now.Add(pause))
	h.told.add(a, now)
	return h.told.distinct(now.Add(-holdWindow)) >= holdAccounts
}

// networks know of each network how its trials ended lately. It gives an order and never a limit: the trials of a cloud
// that calls for many homes succeed, and so keep their place.
type networks struct {
	mu    sync.Mutex
	known *lru.Cache[Network, *tally]
}

type tally struct {
	since              time.Time
	accepted, rejected int
}

// A network waits behind others when of so many trials within that time fewer than this share were accepted.
const (
	networkTrials = 10
	networkShare  = 0.1
	networkWindow = 10 * time.Minute
	maxNetworks   = 1 << 14
)

func newNetworks() networks {
	known, _ := lru.New[Network, *tally](maxNetworks) // the size is positive
	return networks{known: known}
}

func (n *networks) rank(network Network, now time.Time) int {
	if network == 0 {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if t, ok := n.known.Get(network); ok && now.Sub(t.since) <= networkWindow {
		return t.rank()
	}
	return 0
}

func (t *tally) rank() int {
	if all := t.accepted + t.rejected; all >= networkTrials && float64(t.accepted) < networkShare*float64(all) {
		return 1
	}
	return 0
}

// note takes down how a trial ended, and tells whether its network waits behind the others from now on.
func (n *networks) note(network Network, accepted bool, now time.Time) (behind bool) {
	if network == 0 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.known.Get(network)
	if !ok {
		t = &tally{since: now}
		n.known.Add(network, t)
	}
	was := t.rank()
	if now.Sub(t.since) > networkWindow { // what was before counts half
		t.since, t.accepted, t.rejected, was = now, t.accepted/2, t.rejected/2, 0
	}
	if accepted {
		t.accepted++
	} else {
		t.rejected++
	}
	return t.rank() > was
}
