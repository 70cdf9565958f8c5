package pacing

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// networks know of each network how its trials ended lately. It gives an order and never a limit: the trials of a cloud
// that calls for many homes succeed, and so keep their place.
type networks struct {
	mu       sync.Mutex
	known    *lru.Cache[Network, *tally]
	accepted [2]struct { // the last trials that were, of two networks
		network Network
		at      time.Time
	}
}

type tally struct {
	since              time.Time
	accepted, rejected int

	row      int // of trials up to the last one that were not accepted
	rowSince time.Time
}

// A network waits behind others when of so many trials within that time fewer than this share were accepted.
const (
	networkTrials = 10
	networkShare  = 0.1
	networkWindow = 10 * time.Minute
	maxNetworks   = 1 << 14
)

// networkRow is how many trials of a network in a row are not accepted before it matters whether others are.
const networkRow = 5

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

// inRow reports whether the last few trials of a network were not accepted, and there are others that may be.
func (n *networks) inRow(network Network) bool {
	if network == 0 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.known.Peek(network)
	return ok && t.row >= networkRow && n.known.Len() > 1
}

// note takes down how a trial ended. Behind tells that its network waits behind the others from now on, alone that
// its trials are not accepted, one after the other, while another network's are: rather something is wrong with them
// than with the endpoint.
func (n *networks) note(network Network, r Report, now time.Time) (behind, alone bool) {
	if network == 0 {
		return false, false
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
	if r.Accepted {
		t.accepted++
		t.row = 0
		n.accept(network, now)
		return false, false
	}
	if !r.Failed {
		t.rejected++
	}
	if t.row++; t.row == 1 {
		t.rowSince = now
	}
	return t.rank() > was, t.row >= networkRow && n.othersSince(network, t.rowSince)
}

func (n *networks) accept(network Network, now time.Time) {
	if n.accepted[0].network != network {
		n.accepted[1] = n.accepted[0]
	}
	n.accepted[0].network, n.accepted[0].at = network, now
}

// othersSince reports whether another network was accepted since then.
func (n *networks) othersSince(network Network, since time.Time) bool {
	for _, a := range n.accepted {
		if a.network != network && a.at.After(since) {
			return true
		}
	}
	return false
}
