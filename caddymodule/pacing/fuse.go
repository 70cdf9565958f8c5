package pacing

import (
	"container/list"
	"math"
	"sync"
	"time"
)

// Fuse doubts rejections while most of the accounts that were tried lately were rejected: then rather something is wrong
// with the endpoint, or with what it is asked, than with all these accounts. It is safe for concurrent use, and begins
// whole.
type Fuse struct {
	changed func(FuseStatus)
	now     func() time.Time

	mu       sync.Mutex
	blown    bool
	percent  float64   // as last weighed with
	blew     FuseTries // upon which it did
	tries    list.List // of *try, of distinct accounts, the oldest first
	known    map[uint64]*list.Element
	rejected int // of tries
}

type try struct {
	account  uint64
	at       time.Time
	rejected bool
	reason   string
}

const (
	fuseAccounts = 20 // that have to be tried before it can blow
	fuseRecovers = 10 // that have to be tried before it can recover
	fuseWindow   = 10 * time.Minute
	fuseMost     = 512 // that are looked at
	// fuseSlack is how many percent points below its share a service can be for good: it does not blow by chance there, and
	// below that it recovers, so that it does not flutter.
	fuseSlack = 10
	// fuseDeviations is how many standard deviations above that are no chance.
	fuseDeviations = 3.5
)

// FuseStatus is a Fuse at one moment.
type FuseStatus struct {
	Blown bool

	// Percent is the share above which it blows, as last weighed with. 0 is not yet.
	Percent float64

	// FuseTries are those since it has last blown or recovered, while it is whole of the last ten minutes.
	FuseTries

	// Blew are those upon which it has blown, zero while it is whole.
	Blew FuseTries
}

// FuseTries are distinct accounts that were tried, 512 at most. Reason is the most frequent one of the rejections, blank
// where there is none.
type FuseTries struct {
	Tried, Rejected int
	Reason          string
}

// NewFuse returns a whole Fuse. Changed is told when it blows and when it is whole again, by a goroutine of its own; it
// may be nil. Now is the clock.
func NewFuse(changed func(FuseStatus), now func() time.Time) *Fuse {
	return &Fuse{changed: changed, now: now, known: make(map[uint64]*list.Element)}
}

// Weigh notes that an account was accepted or rejected, and reports whether a rejection is in doubt. The fuse blows when of
// at least 20 accounts more than percent were rejected, and more than may be by chance where 10 percent points less are; when
// of at least 20 none was accepted; and when of the last 20 at most one was, or of some more where many were rejected
// before them. At 0 and at 100 it never blows.
func (f *Fuse) Weigh(percent float64, a Account, rejected bool, reason string) (doubted bool) {
	if percent <= 0 || percent >= 100 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.percent = percent
	f.note(try{a.key(), f.now(), rejected, reason})
	change, row := false, 0
	if f.blown {
		tried, refused := f.last(fuseAccounts)
		change = tried >= fuseRecovers && share(refused, tried) <= f.usual()
	} else if change = f.over(); !change {
		row = f.row()
		change = row > 0
	}
	if change {
		f.blown, f.blew = !f.blown, FuseTries{}
		if f.blown {
			if f.blew = f.status().FuseTries; row > 0 {
				f.blew.Tried, f.blew.Rejected = f.last(row)
			}
		}
		if f.changed != nil {
			go f.changed(f.status()) // not under the lock
		}
		f.tries.Init() // it recovers, or blows again, by what comes from here on
		clear(f.known)
		f.rejected = 0
	}
	return rejected && f.blown
}

// note puts a try in the place of an earlier one of the same account, or else of the oldest one where there are enough,
// and forgets what is too old. While it is blown nothing is: a service of which few accounts are tried recovers, too.
func (f *Fuse) note(t try) {
	e := f.known[t.account]
	if e == nil && f.tries.Len() == fuseMost {
		e = f.tries.Front()
	}
	if e == nil {
		e = f.tries.PushBack(new(try))
	}
	f.uncount(e)
	*e.Value.(*try) = t
	f.tries.MoveToBack(e)
	f.known[t.account] = e
	if t.rejected {
		f.rejected++
	}
	for oldest := f.tries.Front(); !f.blown && t.at.Sub(oldest.Value.(*try).at) > fuseWindow; oldest = f.tries.Front() {
		f.uncount(oldest)
		f.tries.Remove(oldest)
	}
}

func (f *Fuse) uncount(e *list.Element) {
	t := e.Value.(*try)
	delete(f.known, t.account)
	if t.rejected {
		f.rejected--
	}
}

// last returns how many of the last n accounts there are, and how many of these were rejected.
func (f *Fuse) last(n int) (tried, rejected int) {
	for e := f.tries.Back(); e != nil && tried < n; e = e.Prev() {
		if tried++; e.Value.(*try).rejected {
			rejected++
		}
	}
	return tried, rejected
}

// usual is the share in percent up to which rejections are usual.
func (f *Fuse) usual() float64 { return max(0, f.percent-fuseSlack) }

// over reports whether too many were rejected. A share by itself is not enough: of 20 accounts, 11 are rejected once in
// eight times where 40 percent are.
func (f *Fuse) over() bool {
	tried := f.tries.Len()
	if tried < fuseAccounts || share(f.rejected, tried) <= f.percent {
		return false
	}
	n, usual := float64(tried), f.usual()/100
	return f.rejected == tried || float64(f.rejected)-n*usual > fuseDeviations*math.Sqrt(n*usual*(1-usual))
}

// row returns how many there are at the end of whom hardly anybody was accepted, 0 where that is not so. They are 20, or as
// many as are as unlikely where more than half of those before them were rejected.
func (f *Fuse) row() int {
	if f.rejected < fuseAccounts-1 {
		return 0
	}
	tried, rejected := f.last(fuseAccounts)
	if tried < fuseAccounts || rejected < fuseAccounts-1 {
		return 0
	}
	const few = 2 // accounts before them say little
	before := (float64(f.rejected-rejected) + few*f.usual()/100) / (float64(f.tries.Len()-tried) + few)
	row := fuseAccounts
	if before = min(before, f.percent/100); before > 0.5 {
		row = int(math.Ceil(fuseAccounts * math.Log(0.5) / math.Log(before)))
	}
	if tried, rejected = f.last(row); tried < row || rejected < row-1 {
		return 0
	}
	return row
}

// Blown reports whether rejections are in doubt.
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
	s := FuseStatus{Blown: f.blown, Percent: f.percent, Blew: f.blew}
	s.Tried, s.Rejected = f.tries.Len(), f.rejected
	reasons := map[string]int{}
	for e := f.tries.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*try); t.rejected {
			if reasons[t.reason]++; reasons[t.reason] > reasons[s.Reason] {
				s.Reason = t.reason
			}
		}
	}
	return s
}

// share is how many percent were rejected.
func share(rejected, tried int) float64 { return 100 * float64(rejected) / float64(tried) }
