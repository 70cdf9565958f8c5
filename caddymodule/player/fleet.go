package player

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Fleet is players that upgrade their accounts at one service. Each account is one call, and with a lost answer
// another one.
type Fleet struct {
	Client *Client

	// Accounts are given their homes and players by Run, which changes them.
	Accounts []Account

	// Households is over how many homes the accounts are spread. A home has an account at least.
	Households int

	// Concurrency is how many calls are under way at once.
	Concurrency int

	// Rate is how many calls are sent per second, 0 for as many as Concurrency allows.
	Rate float64

	// Lost is the share of accounts, from 0 to 1, whose answer is thrown away and that ask again.
	Lost float64

	// After is how many everyday calls each account makes that was upgraded.
	After int

	// Seed decides what the homes are called, which accounts lose their answer, and with which spelling the calls
	// begin. With the same seed they are the same.
	Seed uint64

	next  atomic.Int64
	done  atomic.Int64
	tally tally

	pairs   []pair // that accounts were given
	browsed atomic.Int64
	after   tally
}

// Calls is how many answers there will be, without those that are lost.
func (f *Fleet) Calls() int { return len(f.Accounts) * (1 + f.After) }

// Done is how many of Calls are done with.
func (f *Fleet) Done() int { return int(f.done.Load() + f.browsed.Load()) }

// Run plays until every account has its answers, or ctx is done; calls under way are then given up. It is to be
// called once.
func (f *Fleet) Run(ctx context.Context) *Summary {
	f.Households = min(f.Households, len(f.Accounts))
	assignHomes(f.Accounts, f.Households, f.Seed)
	begin := time.Now()
	pace := pacer{}
	if f.Rate > 0 {
		pace.interval = time.Duration(float64(time.Second) / f.Rate)
	}
	lost := f.losers()
	f.pairs = make([]pair, len(f.Accounts))
	f.all(ctx, len(f.Accounts), func(i int) { f.play(ctx, i, lost[i], &pace) })
	s := f.tally.sum(f, time.Since(begin))
	if f.After > 0 {
		s.Browsed = f.browse(ctx, &pace)
		s.Ended = s.Ended || s.Browsed.GivenUp
	}
	return s
}

// all plays so many turns.
func (f *Fleet) all(ctx context.Context, n int, play func(i int)) {
	f.next.Store(0)
	var players sync.WaitGroup
	for range min(f.Concurrency, n) {
		players.Go(func() {
			for ctx.Err() == nil {
				i := int(f.next.Add(1)) - 1
				if i >= n {
					return
				}
				play(i)
			}
		})
	}
	players.Wait()
}

// play upgrades one account.
func (f *Fleet) play(ctx context.Context, i int, lost bool, pace *pacer) {
	turn := i + int(f.Seed%uint64(len(spellings)))
	if pace.wait(ctx) != nil {
		return
	}
	if lost {
		f.Client.Lose(ctx, f.Accounts[i], turn)
		if f.tally.lost.Add(1); pace.wait(ctx) != nil {
			return
		}
	}
	begin := time.Now()
	answer, got := f.Client.upgrade(ctx, f.Accounts[i], turn)
	took := time.Since(begin)
	if ctx.Err() != nil && answer.Outcome == NoAnswer {
		f.tally.givenUp.Add(1)
		return
	}
	if f.After > 0 {
		f.pairs[i] = got
	}
	f.tally.add(answer, took, lost)
	f.done.Add(1)
}

// losers are the accounts that lose their answer.
func (f *Fleet) losers() map[int]bool {
	n := int(f.Lost*float64(len(f.Accounts)) + 0.5)
	losers := make(map[int]bool, n)
	if n > 0 {
		for _, i := range rand.New(rand.NewPCG(f.Seed, 0)).Perm(len(f.Accounts))[:n] {
			losers[i] = true
		}
	}
	return losers
}

// pacer spaces calls in time. Time that was lost is not made up for.
type pacer struct {
	interval time.Duration

	mu   sync.Mutex
	next time.Time
}

// wait returns when the next call is due, or with an error when ctx is done.
func (p *pacer) wait(ctx context.Context) error {
	if p.interval == 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	due := p.next
	p.next = p.next.Add(p.interval)
	p.mu.Unlock()

	timer := time.NewTimer(due.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
