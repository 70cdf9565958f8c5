package pacing

import (
	"cmp"
	"container/list"
	"sync"
	"time"
)

// queuePerPlace bounds the queue: so many may wait for each place. At 20 ms an exchange it is what can be
// served in the players' 20 s.
const queuePerPlace = 1000

// sweepInterval is how often the queue is searched for those who cannot make it.
const sweepInterval = 200 * time.Millisecond

// patience is the part of its time, one in so many, that one waits before it can be turned away for being too late. The beginning
// of a wave says too little of the pace, and who is turned away soon asks again, which costs more than to wait. Those of the second
// rank are turned away at once: who guesses is to hold no memory.
const patience = 2

// gate lets so many exchanges be in flight at once, the others in order of arrival, and turns away early
// who cannot make it in time.
type gate struct {
	mu       sync.Mutex
	places   int // as last configured
	inFlight int
	queues   [2]list.List // of *waiting, by rank: nobody of the second is let in while somebody of the first waits
	bytes    [2]int       // of those who wait, by rank
	usual    time.Duration
	pace     pace
	hold     time.Time // nobody is let in before
	resume   *time.Timer
	swept    time.Time
	held     func(until time.Time)
}

// waiting is one in the queue.
type waiting struct {
	trial    *Trial
	since    time.Time
	rank     int
	admitted chan Admission
	place    *list.Element
}

// maxBytes bounds what those who wait hold.
const maxBytes = 64 << 20

// Admission is what becomes of one who wants to be let in.
type Admission int

const (
	// In: there was a place.
	In Admission = iota
	// Late: there is no place in time, or nobody waits for it any more.
	Late
	// Held: the endpoint has asked to hold back for longer than there is time.
	Held
	// Failing: the breaker is open.
	Failing

	queued
)

// newGate returns an open gate, which calls held when it is to hold back.
func newGate(held func(until time.Time)) *gate { return &gate{held: held} }

// enter asks for a place, which leave gives back. Who has to wait for it is queued.
func (g *gate) enter(t *Trial, rank int) (Admission, *waiting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.places = t.Places
	holding := g.hold.After(now)
	ahead := g.queues[0].Len() + rank*g.queues[1].Len()
	switch {
	case holding && g.hold.After(t.Deadline):
		return Held, nil
	case !g.inTime(t.Deadline, t.Fair, now):
		return Late, nil
	case !holding && g.inFlight < g.places && ahead == 0:
		g.inFlight++
		return In, nil
	case ahead >= g.places*queuePerPlace, g.bytes[0]+rank*g.bytes[1]+t.Size > maxBytes, // who comes behind fills no room of theirs
		rank > 0 && g.tooLate(g.pace.atBest(g.places, now), ahead, now, t.Deadline):
		return Late, nil
	}
	w := &waiting{trial: t, since: now, rank: rank, admitted: make(chan Admission, 1)}
	g.add(w)
	if !holding { // when everybody in the queue would be looked at, for each who comes
		g.admit(now) // a place may be free if the limit was raised
	}
	return queued, w
}

// leastTime is what an exchange takes as long as nothing is known of it.
const leastTime = 100 * time.Millisecond

// inTime reports whether one that is sent now can have an answer before the deadline, by what an exchange usually takes. If not, it
// would only cost the endpoint a login.
func (g *gate) inTime(deadline time.Time, fair time.Duration, now time.Time) bool {
	return !now.Add(min(cmp.Or(g.usual, leastTime), fair)).After(deadline)
}

func (g *gate) waiting() int { return g.queues[0].Len() + g.queues[1].Len() }

// first is who is next, nil where nobody waits.
func (g *gate) first() *waiting {
	for i := range g.queues {
		if front := g.queues[i].Front(); front != nil {
			return front.Value.(*waiting)
		}
	}
	return nil
}

// add puts one at the end of the queue of its rank.
func (g *gate) add(w *waiting) {
	w.place = g.queues[w.rank].PushBack(w)
	g.bytes[w.rank] += w.trial.Size
}

// remove takes one out of its queue.
func (g *gate) remove(w *waiting) {
	g.queues[w.rank].Remove(w.place)
	g.bytes[w.rank] -= w.trial.Size
}

// demote puts those of a network behind the others. What it sent before it was known for failing is in nobody's way
// either.
func (g *gate) demote(network Network) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for el := g.queues[0].Front(); el != nil; {
		next := el.Next()
		if w := el.Value.(*waiting); w.trial.Network == network {
			g.remove(w)
			w.rank = 1
			g.add(w)
		}
		el = next
	}
}

// await waits for a place until the deadline, and longer where the trial is not abandoned then.
func (g *gate) await(t *Trial, w *waiting) Admission {
	late := time.AfterFunc(time.Until(t.Deadline), t.Leave)
	defer late.Stop()
	for gone := t.Context.Done(); ; gone = nil { // who has left may only wait for others
		select {
		case a := <-w.admitted:
			return a
		case <-t.Abandoned:
			return g.giveUp(w)
		case <-gone:
			if late.Stop() {
				t.Leave()
			}
		}
	}
}

// giveUp takes one out of the queue for whom nobody waits any more.
func (g *gate) giveUp(w *waiting) Admission {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case a := <-w.admitted: // at the same moment
		return a
	default:
		g.remove(w)
		return Late
	}
}

// leave gives a place back, which was held for so long. A definitive answer says what an exchange usually takes.
func (g *gate) leave(held time.Duration, r *Report) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if !r.Unsent && !r.Failed {
		g.usual += (cmp.Or(r.Took, held) - g.usual) / 8
	}
	now := time.Now()
	switch {
	case g.waiting() == 0:
		g.pace.reset() // without a queue it says nothing of what the endpoint can bear
	case !r.Unsent:
		g.pace.mark(now, held)
	}
	g.admit(now)
}

// holdBack lets nobody in for so long. A hold is never shortened.
func (g *gate) holdBack(pause time.Duration) {
	if pause <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	until := now.Add(pause)
	if !until.After(g.hold) {
		return
	}
	if g.held != nil && !g.hold.After(now) {
		go g.held(until) // not under the lock
	}
	g.hold = until
	if g.resume != nil {
		g.resume.Stop()
	}
	g.resume = time.AfterFunc(time.Until(until), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.admit(time.Now())
	})
	g.admit(time.Now())
}

// clear sends away who waits, because the endpoint fails.
func (g *gate) clear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turnAway(func(*waiting, int) verdict { return away }, Failing)
}

// admit lets in who is next, and sends away who would be too late.
func (g *gate) admit(now time.Time) {
	if g.hold.After(now) {
		g.turnAway(func(w *waiting, _ int) verdict {
			if g.hold.After(w.trial.Deadline) {
				return away
			}
			return stay
		}, Held)
		return
	}
	for g.inFlight < g.places {
		w := g.first()
		if w == nil {
			return
		}
		g.remove(w)
		// Who is next but would hardly get an answer in time would only cost the endpoint a login.
		if now.Add(g.pace.lately(now) * time.Duration(g.places) * 5 / 4).After(w.trial.Deadline) {
			w.admitted <- Late
			continue
		}
		g.inFlight++
		w.admitted <- In
	}
	if now.Sub(g.swept) >= sweepInterval {
		g.swept = now
		each := g.pace.atBest(g.places, now)
		g.turnAway(func(w *waiting, ahead int) verdict {
			switch {
			case w.rank == 0 && now.Sub(w.since) <= w.trial.Deadline.Sub(w.since)/patience:
				return allStay // who is behind has come later
			case g.tooLate(each, ahead, now, w.trial.Deadline):
				return away
			}
			return stay
		}, Late)
	}
}

// verdict is what is to become of one who waits.
type verdict int

const (
	stay    verdict = iota
	away            // it is sent away
	allStay         // so do those behind it of the same rank
)

// turnAway sends away whom it is told to, given how many stay ahead of each.
func (g *gate) turnAway(whom func(w *waiting, ahead int) verdict, why Admission) {
	before := 0 // in the queues before
	for i := range g.queues {
		ahead := before
		for el := g.queues[i].Front(); el != nil; {
			w, next := el.Value.(*waiting), el.Next()
			switch whom(w, ahead) {
			case away:
				g.remove(w)
				w.admitted <- why
			case stay:
				ahead++
			case allStay:
				next = nil
			}
			el = next
		}
		before += g.queues[i].Len()
	}
}

// tooLate reports whether one with so many ahead in the queue cannot have an answer by the deadline even at best,
// with one exchange done in each such time. A place that stays empty is a listener who could have been served;
// what this promises too much is taken back as the time goes by.
func (g *gate) tooLate(each time.Duration, ahead int, now, deadline time.Time) bool {
	return now.Add(each * time.Duration(ahead+g.places) * 9 / 10).After(deadline)
}

// pace is how fast exchanges have been done lately while others waited for their places.
type pace struct {
	done [1024]struct { // the last ones, the oldest at next once it is full
		at   time.Time
		took time.Duration
	}
	next int
	full bool
}

// How many have to be done, and for how long, before the pace is known: more than the first ones over fresh
// connections.
const (
	minPace     = 64
	minPaceTime = 500 * time.Millisecond
)

func (p *pace) mark(now time.Time, took time.Duration) {
	p.done[p.next].at, p.done[p.next].took = now, took
	if p.next++; p.next == len(p.done) {
		p.next, p.full = 0, true
	}
}

func (p *pace) reset() { p.next, p.full = 0, false }

// lately is the time from one done to the next, 0 while it is not known.
func (p *pace) lately(now time.Time) time.Duration {
	n, oldest := p.next, p.done[0].at
	if p.full {
		n, oldest = len(p.done), p.done[p.next].at
	}
	passed := now.Sub(oldest)
	if n < minPace || passed < minPaceTime {
		return 0
	}
	return passed / time.Duration(n)
}

// atBest is that time if all places are as fast as the fastest lately. The beginning of a wave is slow for
// reasons of its own.
func (p *pace) atBest(places int, now time.Time) time.Duration {
	lately := p.lately(now)
	if lately == 0 {
		return 0
	}
	fastest := p.done[0].took
	for i := range p.done {
		if p.full || i < p.next {
			fastest = min(fastest, p.done[i].took)
		}
	}
	return min(lately, fastest/time.Duration(places))
}
