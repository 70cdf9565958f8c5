package pacing

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Fuse doubts rejections while most of the accounts that were tried lately were rejected: then rather something is wrong
// with the endpoint, or with what it is asked, than with all these accounts. It is safe for concurrent use, and begins
// whole.
type Fuse struct {
	changed func(FuseStatus)

	mu    sync.Mutex
	blown bool
	tried []try // of distinct accounts, the oldest first
}

type try struct {
	account  Account
	at       time.Time
	rejected bool
	reason   string
}

const (
	fuseAccounts = 20 // that have to be tried before it can blow
	fuseRecovers = 10 // that have to be tried before it can recover
	fuseWindow   = 10 * time.Minute
	fuseMost     = 512 // that are looked at
	// fuseSlack is how many percent points below its share it recovers, so that it does not flutter.
	fuseSlack = 10
)

// FuseStatus is a Fuse at one moment.
type FuseStatus struct {
	Blown bool

	// Tried and Rejected are distinct accounts of the last ten minutes, 512 at most.
	Tried, Rejected int

	// Reason is the most frequent one of the rejections, blank where there is none.
	Reason string
}

// NewFuse returns a whole Fuse. Changed is told when it blows and when it is whole again, by a goroutine of its own; it
// may be nil.
func NewFuse(changed func(FuseStatus)) *Fuse { return &Fuse{changed: changed} }

// Weigh notes that an account was accepted or rejected, and tells whether a rejection is in doubt. The fuse blows when of
// at least 20 accounts more than percent were rejected, or of the last 20 at most one was accepted; with more than 50
// percent it takes a longer row of them. At 0 and at 100 it never blows.
func (f *Fuse) Weigh(percent float64, a Account, rejected bool, reason string) (doubted bool) {
	if percent <= 0 || percent >= 100 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.tried = slices.DeleteFunc(f.tried, func(t try) bool { return t.account == a || now.Sub(t.at) > fuseWindow })
	f.tried = append(f.tried, try{a, now, rejected, reason})
	if len(f.tried) > fuseMost {
		f.tried = slices.Delete(f.tried, 0, len(f.tried)-fuseMost)
	}
	was, before := f.blown, f.status()
	if f.blown {
		last := f.tried[max(0, len(f.tried)-fuseAccounts):]
		if len(last) >= fuseRecovers && share(last) <= max(0, percent-fuseSlack) {
			f.blown, f.tried = false, nil
		}
	} else if f.blown = len(f.tried) >= fuseAccounts && share(f.tried) > percent || f.row(percent); f.blown {
		f.tried = nil // it recovers by what comes from here on
	}
	if before.Blown = f.blown; f.blown != was && f.changed != nil {
		go f.changed(before) // not under the lock
	}
	return rejected && f.blown
}

// row tells whether at the end hardly anybody was accepted, which would be less than one in ten thousand by chance.
func (f *Fuse) row(percent float64) bool {
	n := fuseAccounts
	if percent > 50 {
		n = int(math.Ceil(fuseAccounts * math.Log(0.5) / math.Log(percent/100)))
	}
	if len(f.tried) < n {
		return false
	}
	accepted := 0
	for _, t := range f.tried[len(f.tried)-n:] {
		if !t.rejected {
			accepted++
		}
	}
	return accepted <= 1
}

// Blown tells whether rejections are in doubt.
func (f *Fuse) Blown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blown
}

// Status returns how it is now.
func (f *Fuse) Status() FuseStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status()
}

func (f *Fuse) status() FuseStatus {
	s := FuseStatus{Blown: f.blown, Tried: len(f.tried)}
	reasons := map[string]int{}
	for _, t := range f.tried {
		if t.rejected {
			s.Rejected++
			if reasons[t.reason]++; reasons[t.reason] > reasons[s.Reason] {
				s.Reason = t.reason
			}
		}
	}
	return s
}

// share is how many percent were rejected.
func share(tried []try) float64 {
	n := 0
	for _, t := range tried {
		if t.rejected {
			n++
		}
	}
	return 100 * float64(n) / float64(len(tried))
}
