// Package pacing protects a token endpoint and those who wait for it: so many trials at once, the others in order of
// arrival, none while the endpoint fails or has asked to hold back.
//
// It knows neither HTTP nor OAuth, and what it keeps is of this process and never written down.
package pacing

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/bits"
	"time"
)

// Account stands for an account, as a digest that is keyed per process.
type Account [16]byte

// From stands for the account as it is tried from a network. Both are digests, so that no other sum of two can be found.
func (a Account) From(n Network) Account {
	binary.LittleEndian.PutUint64(a[:], bits.RotateLeft64(a.key(), 32)^uint64(n))
	return a
}

// key tells an account from others where one in 2^64 may be taken for another.
func (a *Account) key() uint64 { return binary.LittleEndian.Uint64(a[:]) }

// Network stands for where a trial comes from, as a digest that is keyed per process. 0 is not known.
type Network uint64

// Pacer paces the trials at one endpoint. It is safe for concurrent use, and outlives configurations, so that a new one
// in the middle of a storm neither doubles the load nor forgets an outage.
type Pacer struct {
	gate     *gate
	breaker  *breaker
	accounts accountHolds
	networks networks
}

// Watch is told when a Pacer changes, by a goroutine of its own. Each may be nil.
type Watch struct {
	// Breaker is "open" when the endpoint is left alone, "half-open" when it is tried, "closed" when all is well.
	Breaker func(state string)

	// Hold is until when the endpoint has asked to hold back.
	Hold func(until time.Time)
}

// New returns the Pacer of an endpoint that has not been used yet.
func New(w Watch) *Pacer {
	g := newGate(w.Hold)
	return &Pacer{gate: g, breaker: newBreaker(g.clear, w.Breaker), accounts: newAccountHolds(), networks: newNetworks()}
}

// Trial is one that wants to be let in.
type Trial struct {
	Account Account

	// Deadline is when an answer is of no use any more.
	Deadline time.Time

	// Places is how many may be in at once, as last configured; 1000 for each may wait, with 64 MiB in all.
	Places int

	// Size is how many bytes the trial holds while it waits.
	Size int

	// Network is where it comes from. Those of a network whose trials nearly all fail wait behind the others.
	Network Network

	// Fair is how much time the endpoint has to have had before no answer in time counts against it.
	Fair time.Duration

	// Leave is called once, by any goroutine, when Context ends or the deadline passes while the trial waits for its place. It
	// keeps the place until Abandoned is closed.
	Context   context.Context
	Leave     func()
	Abandoned <-chan struct{}
}

// Report is what came of a trial.
type Report struct {
	// Unsent is true where the endpoint was not asked, so that nothing is learned.
	Unsent bool

	// Failed is true where there was no definitive answer, Timeout where there was none in time.
	Failed, Timeout bool

	// Accepted is true where the credentials were.
	Accepted bool

	// Took is the time that the endpoint took, 0 for all of the trial.
	Took time.Duration

	// HoldBack is for how long the endpoint has asked to hold back, 0 where it has not. OfAccount is true where this may
	// be meant for the account alone: it holds the others only when several accounts are told so within seconds.
	HoldBack  time.Duration
	OfAccount bool

	alone bool // its network is, with not being accepted
}

// Pass calls send when there is a place, and learns from what it reports. Otherwise it returns why there is none.
// Waited is the time until then.
func (p *Pacer) Pass(t *Trial, send func() Report) (a Admission, waited time.Duration) {
	arrived := time.Now()
	a, rank := p.look(t, arrived)
	var w *waiting
	if a == In {
		a, w = p.gate.enter(t, rank)
	}
	if a == queued {
		a = p.gate.await(t, w)
		waited = time.Since(arrived)
	}
	if a == In {
		a = p.send(t, arrived.Add(waited), send)
	}
	return a, waited
}

// InTime reports whether a trial that is sent now can have an answer before the deadline, as far as is known. Who was let in may
// have spent its time since.
func (p *Pacer) InTime(deadline time.Time, fair time.Duration) bool {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	return p.gate.inTime(deadline, fair, time.Now())
}

// look tells of what rank a trial is, or what speaks against it.
func (p *Pacer) look(t *Trial, now time.Time) (against Admission, rank int) {
	if p.breaker.open() || p.breaker.halfOpen(now) && p.networks.inRow(t.Network) {
		return Failing, 0
	}
	if p.accounts.held(t.Account, now) {
		return Held, 0
	}
	return In, p.networks.rank(t.Network, now)
}

// send has one sent who was let in, and gives its place back.
func (p *Pacer) send(t *Trial, admitted time.Time, send func() Report) Admission {
	report := Report{Unsent: true} // until it returns
	defer func() { p.gate.leave(time.Since(admitted), &report) }()
	if !p.breaker.pass(t.Account, func() Report {
		r := send()
		if r.Timeout && cmp.Or(r.Took, t.Deadline.Sub(admitted)) < t.Fair {
			r.Unsent = true // it says nothing of the endpoint
		}
		if report = r; r.Unsent {
			return r
		}
		behind, alone := p.networks.note(t.Network, r, time.Now())
		if behind {
			p.gate.demote(t.Network)
		}
		p.holdBack(t, r, alone)
		r.alone = alone
		return r
	}) {
		return Failing
	}
	return In
}

// holdBack does as the endpoint has asked. What it says to a network that is alone with it is meant for nobody else.
func (p *Pacer) holdBack(t *Trial, r Report, alone bool) {
	if r.HoldBack <= 0 {
		return
	}
	now := time.Now()
	if alone || r.OfAccount {
		p.accounts.hold(t.Account, r.HoldBack, now)
		if alone || !p.accounts.tell(t.Account, now) {
			return
		}
	}
	p.gate.holdBack(r.HoldBack)
}

// Status is a Pacer at one moment.
type Status struct {
	InFlight, Waiting int

	// OldestWaiting is since when the one at the head of the queue waits, zero where nobody does.
	OldestWaiting time.Time

	// Breaker is "closed", "open" or "half-open".
	Breaker string

	// Hold is until when nobody is let in, zero or past where that is not so.
	Hold time.Time
}

// Status returns how it is now.
func (p *Pacer) Status() Status {
	status := Status{Breaker: p.breaker.State().String()}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	status.InFlight, status.Waiting, status.Hold = p.gate.inFlight, p.gate.waiting(), p.gate.hold
	for i := range p.gate.queues {
		if front := p.gate.queues[i].Front(); front != nil {
			since := front.Value.(*waiting).since
			if status.OldestWaiting.IsZero() || since.Before(status.OldestWaiting) {
				status.OldestWaiting = since
			}
		}
	}
	return status
}
