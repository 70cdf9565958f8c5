package pacing

import (
	"encoding/binary"
	"sync"
	"time"
)

// Budgets bound how many failed logins of one account reach an endpoint, whoever tries, so that nobody can have an
// account locked there. It is safe for concurrent use.
//
// Failures are counted in a count-min sketch: its size is fixed however many accounts are made up, and it never counts
// too few, so that filling it up frees none. It counts too many for one account in a thousand at 2000 failures a second
// without an end.
type Budgets struct {
	mu     sync.Mutex
	slots  [budgetSlots]budgetSlot
	trying map[uint64]int // trials under way, which may fail, by account and by network
	now    func() time.Time
	epoch  time.Time // with a monotonic clock, so that nobody is freed by a step of the wall clock
}

// budgetSlots are what the window is divided into, and one more: a failure counts for the window at least, and for a
// third of it longer at most.
const budgetSlots = 4

type budgetSlot struct {
	at     int64
	blocks []block // nil until the first failure
}

// block has the cells of an account, one of each row. It is a line of the processor's cache, since each account is
// somewhere else.
type block [sketchRows][sketchRow]uint8

const (
	sketchRows   = 4
	sketchRow    = 16
	sketchBlocks = 1 << 16
)

// NewBudgets returns Budgets of which nothing is spent. Now is the clock, which has to be monotonic.
func NewBudgets(now func() time.Time) *Budgets {
	return &Budgets{trying: make(map[uint64]int), now: now, epoch: now()}
}

// Budget is how many failures of an account may reach the endpoint within a window. 0 failures are no bound.
type Budget struct {
	Failures int
	Window   time.Duration
}

// Reserved is the part of a budget that is kept for a network that has not failed with the account yet, so that its owner
// gets through while somebody guesses elsewhere.
func (b Budget) Reserved() int {
	if b.Failures < 2 {
		return 0
	}
	return max(1, b.Failures/4)
}

// Login is one that may fail.
type Login struct {
	Budget  Budget
	Account Account
	Network Account // from which it comes, as a digest for this account

	// Elsewhere is how many failures of the account there were that the Budgets were not told, and NetworkFailed tells
	// that the network had some of them.
	Elsewhere     int
	NetworkFailed bool
}

// Spend reports whether a login may be sent. If so the caller has to call End with what came of it.
func (b *Budgets) Spend(l *Login) bool {
	if l.Budget.Failures <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.left(l) {
		return false
	}
	b.trying[l.Account.key()]++
	b.trying[l.Network.key()]++
	return true
}

// End ends a login that Spend let through.
func (b *Budgets) End(l *Login, failed bool) {
	if l.Budget.Failures <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, of := range [...]uint64{l.Account.key(), l.Network.key()} {
		if b.trying[of]--; b.trying[of] == 0 {
			delete(b.trying, of)
		}
	}
	if failed {
		at := b.slot(l)
		b.add(&l.Account, at)
		if b.count(&l.Account, at) >= l.Budget.Failures-l.Budget.Reserved() { // from here on it matters who has failed
			b.add(&l.Network, at)
		}
	}
}

// Left reports whether Spend would be true now.
func (b *Budgets) Left(l *Login) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.Budget.Failures <= 0 || b.left(l)
}

func (b *Budgets) left(l *Login) bool {
	at, bound := b.slot(l), l.Budget.Failures-l.Elsewhere
	if l.NetworkFailed || b.count(&l.Network, at)+b.trying[l.Network.key()] > 0 { // what is under way may fail
		bound -= l.Budget.Reserved()
	}
	return b.count(&l.Account, at)+b.trying[l.Account.key()] < bound
}

// slot is the number of the part of a window that is now.
func (b *Budgets) slot(l *Login) int64 {
	return int64(b.now().Sub(b.epoch) / (l.Budget.Window / (budgetSlots - 1)))
}

func (b *Budgets) count(a *Account, at int64) (n int) {
	for i := range b.slots {
		if s := &b.slots[i]; s.blocks != nil && s.at > at-budgetSlots && s.at <= at {
			n += s.least(a)
		}
	}
	return n
}

func (b *Budgets) add(a *Account, at int64) {
	s := &b.slots[at%budgetSlots]
	if s.blocks == nil {
		s.blocks = make([]block, sketchBlocks)
	} else if s.at != at {
		clear(s.blocks)
	}
	s.at = at
	// Only the cells that say the least are raised, which makes others count too many less often.
	least := s.least(a)
	for row := range sketchRows {
		if cell := s.cell(a, row); int(*cell) == least && *cell < 255 {
			*cell++
		}
	}
}

func (s *budgetSlot) least(a *Account) int {
	n := 255
	for row := range sketchRows {
		n = min(n, int(*s.cell(a, row)))
	}
	return n
}

// cell is where an account counts in a row. An Account is a digest, whose parts are independent.
func (s *budgetSlot) cell(a *Account, row int) *uint8 {
	return &s.blocks[binary.LittleEndian.Uint32(a[:])%sketchBlocks][row][a[4+row]%sketchRow]
}
