package exchange

import (
	"context"
	"net/http"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// trip is the request of one caller, who leads its flight or follows. Thousands wait for a place: what a trip needs is in it, and not on
// their stacks, which would be twice as large.
type trip struct {
	x   *Exchanger
	q   *Request
	ctx context.Context

	// By what the call is known, and by what a rejection of it, and what answers from before it takes.
	call, rejection replay.Digest
	want            replay.Wanted

	flight *replay.Flight[*Landed]
	result *Result

	// Of who leads.
	guard   guard
	refused bool           // the credentials were, whatever is made of that
	unsent  *token.Failure // why nothing is sent, nil where something is
	waited  time.Duration
	landed  *Landed // nil until it is known
	keep    replay.Keep
}

// identify finds out by what the call is known, and its account. That is before anything else, because a digest needs much of the stack.
func (t *trip) identify() {
	t.call.Set(t.x.Name, t.q.Identity)
	t.want.Accepted = t.x.replayFor(t.q.Type) > 0
	t.rejection = t.call
	if t.x.RememberRejected > 0 {
		if t.q.RejectedAnywhere {
			t.rejection.Set(t.x.Name, t.q.rejection())
		}
		t.want.Rejected = &t.rejection
	}
	t.q.setDigest(t.x)
}

// attribute finds out whose login it is: a refresh is of the account whose refresh token came before its own.
func (t *trip) attribute() {
	t.guard.account = t.x.Digest(t.q)
	if t.q.Type == token.Refresh {
		if before, known := t.x.State.chains.Get(t.call); known {
			t.guard.account = before
		}
	}
}

// board takes the answer of the same call if one is known, and otherwise leads its flight or follows. It reports whether that was all.
func (t *trip) board() (over bool) {
	switch lead := t.find(); {
	case t.result != nil:
	case lead:
		t.lead()
	default:
		return t.follow()
	}
	return true
}

// find finds the answer of the same call if one is known, and otherwise its flight, and whether to lead it.
func (t *trip) find() (lead bool) {
	known, flight, lead := t.x.State.Calls.Board(t.call, t.q.Deadline, t.want)
	if t.flight, t.result = flight, nil; known != nil {
		t.result = t.x.again(t.q, known, false)
	}
	return lead
}

// follow waits for the result of a flight that another caller leads. It reports whether that is the result of this one, too:
// where it is only that who led had no time left, this one may have.
func (t *trip) follow() (over bool) {
	timer := time.NewTimer(time.Until(t.q.Deadline))
	defer timer.Stop()
	select {
	case <-t.flight.Done:
		t.result = t.x.again(t.q, t.flight.Result, true)
		return t.result.Class != NotSent || time.Now().After(t.q.Deadline)
	case <-t.ctx.Done():
		t.x.State.Calls.Leave(t.call, t.flight)
		t.result = Unsent(causeGone)
	case <-timer.C:
		t.result = Unsent(causeLate)
		if t.x.State.Calls.Leave(t.call, t.flight) {
			t.result.Verdict = token.Verdict{Class: token.Unavailable, Cause: token.CauseTimeout}
		}
	}
	return true
}

// lead flies, and lands even if the transport panics, since others follow.
func (t *trip) lead() {
	defer t.land()
	if t.prepare(); t.unsent == nil {
		t.fly()
	}
	if t.landed == nil {
		t.landed = &Landed{Unsent: t.unsent}
	}
	t.landed.Waited = t.waited
	t.conclude()
}

// prepare finds out whose login it is, and what speaks against waiting for a place.
func (t *trip) prepare() {
	t.attribute()
	t.guard.protect(t.x, t.q)
	if !t.guard.open() {
		t.unsent = overBudget
	}
}

// conclude says what came of it, and what is remembered.
func (t *trip) conclude() {
	x, q := t.x, t.q
	r := x.judged(q, t.landed)
	accepted := r.Class == token.Issued && len(r.Fields) > 0 // and not an answer to something else
	// Weighed before it is told, also where another instance was.
	if fuse := x.fuse(q); fuse != nil && (accepted || r.Class == token.Rejected && !q.Others) {
		t.landed.Doubted = fuse.Weigh(x.Fuse, t.guard.account, r.Class == token.Rejected, r.Error)
	}
	switch r.Class {
	case token.Issued:
		t.keep.Accepted = x.replayFor(q.Type)
		if next := r.Fields.Get(token.Refresh); q.Type == token.Refresh && next != "" {
			x.State.chains.Put(x.digest([]string{token.Refresh, next}), t.guard.account, chained)
		}
	case token.Rejected:
		t.keep.Rejected = x.RememberRejected
	}
	x.doubt(q, t.landed, r)
	t.result = r
	if t.landed.Doubted = r.Class == InDoubt; t.refused {
		t.guard.tell(t.ctx, r.Class == token.Rejected)
	}
}

// land gives what came of it to those who follow.
func (t *trip) land() {
	if t.landed == nil {
		t.landed = &Landed{Answer: token.Answer{Failure: &token.Failure{Class: token.Unavailable, Cause: "the exchange broke off"}}}
	}
	if t.keep.Rejected > 0 {
		t.landed.Answer.Fields = nil // which nobody looks at
	}
	t.x.State.Calls.Land(t.call, t.rejection, t.flight, t.landed, t.keep)
}

// fly takes the request to the token endpoint when there is a place. A leader who leaves the queue keeps its place
// for those who follow.
func (t *trip) fly() {
	t.unsent = gone
	pacer, trial := t.trial()
	admission, waited := pacer.Pass(trial, t.send)
	t.waited = waited
	if unsent := turnedAway(admission); unsent != nil {
		t.unsent = unsent
	}
}

// trial is what asks for a place, and who gives it.
func (t *trip) trial() (*pacing.Pacer, *pacing.Trial) {
	pacer, places := t.x.pacer(t.q)
	return pacer, &pacing.Trial{
		Account:   t.guard.account,
		Deadline:  t.q.Deadline,
		Places:    places,
		Size:      t.q.Size() + t.q.Held,
		Network:   t.q.Network,
		Fair:      t.x.Fair,
		Context:   t.ctx,
		Leave:     func() { t.x.State.Calls.Leave(t.call, t.flight) },
		Abandoned: t.flight.Abandoned,
	}
}

// send sends the request, unless something speaks against it at the last moment.
func (t *trip) send() pacing.Report {
	defer func() { t.guard.end(t.refused) }() // even if the transport panics
	endpoint := t.x.endpoint(t.q)
	answer, sent := endpoint.Exchange(t.q.Deadline, &t.q.Grant, func() (time.Time, bool) {
		if unsent := t.against(); unsent != nil {
			t.unsent = unsent
			return t.q.Deadline, false
		}
		deadline, ok := t.x.State.Calls.Send(t.flight)
		if pacer, _ := t.x.pacer(t.q); ok && !pacer.InTime(deadline, t.x.Fair) { // what spoke against it took long to find out
			t.unsent, ok = outOfTime, false
		}
		return deadline, ok
	})
	v := endpoint.Judge(&t.q.Grant, &answer)
	if t.refused = sent && v.Refused; !sent {
		return pacing.Report{Unsent: true}
	}
	t.landed, t.unsent = &Landed{Answer: answer, At: t.x.Time()}, nil
	return report(&v, &answer)
}

// against is what speaks against sending the request, nil for nothing. What other instances know is looked for only now: who waits
// would need twice the stack for it, and more looks than there are places would be under way at once.
func (t *trip) against() *token.Failure {
	if unsent := t.guard.look(t.ctx); unsent != nil {
		return unsent
	}
	if !t.guard.pass() {
		return overBudget
	}
	if t.q.Ready != nil && !t.q.Ready() {
		return unready
	}
	return nil
}

const (
	causeGone    = "the player has gone while it waited"
	causeLate    = "no place at the token endpoint in time"
	causeHeld    = "the token endpoint is rate-limiting"
	causeFailing = "not asked, because the token endpoint has been failing"
	causeUnready = "not asked, because the vault was not ready"
	causeGuarded = "not asked, because the account has had too many failed logins"
)

// Why nothing was sent. Gone is so unless something else is known.
var (
	gone       = &token.Failure{Class: NotSent, Cause: causeGone}
	overBudget = &token.Failure{Class: AccountGuarded, Cause: causeGuarded}
	outOfTime  = &token.Failure{Class: NotSent, Cause: causeLate}
	unready    = &token.Failure{Class: token.Unavailable, Cause: causeUnready}
)

// report is what the pacing learns from an answer.
func report(v *token.Verdict, a *token.Answer) pacing.Report {
	r := pacing.Report{
		Failed:   v.Class == token.Unavailable && !v.ByOnError, // it answers, whatever the operator takes that for
		Timeout:  v.Cause == token.CauseTimeout,
		Accepted: v.Class == token.Issued,
		Took:     a.Took,
	}
	if v.Class == token.Unavailable {
		r.HoldBack = a.HoldBack
		r.OfAccount = a.Status != http.StatusServiceUnavailable
	}
	return r
}

// turnedAway is why one that was not let in is not sent, nil where it was.
func turnedAway(a pacing.Admission) *token.Failure {
	switch a {
	case pacing.Late:
		return outOfTime
	case pacing.Held:
		return &token.Failure{Class: token.Unavailable, Cause: causeHeld}
	case pacing.Failing:
		return &token.Failure{Class: token.Unavailable, Cause: causeFailing}
	}
	return nil
}
