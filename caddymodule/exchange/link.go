package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// LinkReplay is for how long the same poll gets the same pair again: servers give it once, and an answer can be lost.
const LinkReplay = 60 * time.Second

const (
	causeManyLinks = "the home has begun to sign in too often"
	causeEarly     = "not asked, because the code was asked for a moment ago"
)

// Authorize asks for a link, for a home and before the deadline of q. It costs the server a code, and nobody has to be anybody
// for it: so there are places of its own, and so many for each home. The authorization
// counts only where the result is token.Issued.
func (x *Exchanger) Authorize(ctx context.Context, home string, q *Request) (authorization token.Authorization, r *Result) {
	if !x.State.links.begin(x.account(home), time.Now()) {
		return authorization, Unsent(causeManyLinks)
	}
	gone, leave := make(chan struct{}), sync.Once{}
	trial := pacing.Trial{
		Account:   x.account(home),
		Deadline:  q.Deadline,
		Places:    max(1, x.Places/4),
		Size:      q.Size(),
		Fair:      x.Fair,
		Context:   ctx,
		Leave:     func() { leave.Do(func() { close(gone) }) },
		Abandoned: gone,
	}
	var answer token.Answer
	r = Unsent(causeGone)
	admission, waited := x.State.Links.Pass(&trial, func() pacing.Report {
		authorization, answer, r.Verdict = x.SignIn.Authorize(q.Deadline, &q.Grant)
		r.Status, r.Took = answer.Status, answer.Took
		return report(&r.Verdict, &answer)
	})
	if unsent := turnedAway(admission); unsent != nil {
		r.Verdict = token.Verdict{Class: unsent.Class, Cause: unsent.Cause}
	}
	r.Waited = waited
	return authorization, r
}

// Poll asks for the tokens of a device code, of which q is by OfCode, unless it is earlier than an interval after the last
// question.
func (x *Exchanger) Poll(ctx context.Context, q *Request, code string, interval time.Duration) *Result {
	if known := x.known(q); known != nil {
		return known
	}
	if x.Vault != nil { // where the storage fails, the tokens would be lost, which are given once
		if failed := x.Ready(ctx, q); failed != nil {
			return failed
		}
	}
	digest := replay.DigestOf(x.Name, code)
	if !x.State.links.ask(digest, interval, time.Now()) {
		return &Result{Verdict: token.Verdict{Class: token.Pending, Cause: causeEarly}}
	}
	r := x.Exchange(ctx, q)
	if r.Error == "slow_down" {
		x.State.links.slower(digest)
	}
	return r
}

// known is the answer to the same poll a moment ago, nil where there is none.
func (x *Exchanger) known(q *Request) *Result {
	call := x.digest(q.Identity)
	l, ok := x.State.Calls.Known(call, replay.Wanted{Accepted: true, Rejected: &call})
	if !ok {
		return nil
	}
	return x.again(q, l, false)
}
