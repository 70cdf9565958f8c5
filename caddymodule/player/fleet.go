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

	// Seed decides what the homes are called, which accounts lose their answer, and with which spelling the calls
	// begin. With the same seed they are the same.
	Seed uint64

	next  atomic.Int64
	done  atomic.Int64
	tally tally
}

// Done is how many accounts have their answer.
func (f *Fleet) Done() int { return int(f.done.Load()) }

// Run plays until every account has its answer, or ctx is done; calls under way are then given up. It is to be
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
	var players sync.WaitGroup
	for range min(f.Concurrency, len(f.Accounts)) {
		players.Go(func() {
			for ctx.Err() == nil {
				i := int(f.next.Add(1)) - 1
				if i >= len(f.Accounts) {
					return
				}
				f.play(ctx, i, lost[i], &pace)
			}
		})
	}
	players.Wait()
	return f.tally.sum(f, time.Since(begin))
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
	answer := f.Client.Upgrade(ctx, f.Accounts[i], turn)
	took := time.Since(begin)
	if ctx.Err() != nil && answer.Outcome == NoAnswer {
		f.tally.givenUp.Add(1)
		return
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
