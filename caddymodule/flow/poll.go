package flow

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// poll answers getDeviceAuthToken with a linkCode: whether a listener has signed in. Of a linkDeviceId that was not made
// here, the old service has to know.
var poll = flow{
	method:  smapi.Poll,
	inForce: func(p *Policy) bool { return p.SignIn != nil },
	hint: func(*Policy) string {
		return "It is a getDeviceAuthToken with a linkCode, of a listener who is signing in, which only sign_in answers."
	},
	decide: func(p *Policy, call *smapi.Call) Decision {
		if p.SignIn.Seals == nil {
			return decided(Forwarded, "", "sign_in answers a poll whose linkDeviceId it has made; that is not known here, and any other is forwarded")
		}
		l, err := p.SignIn.openLink(call)
		switch {
		case errors.Is(err, vault.ErrKey): // instances read a new key file within a second or two of each other
			return decided(LinkPending, "the linkDeviceId was sealed by a key that is not in the vault's key file",
				"the linkDeviceId was sealed by a key that is not in the vault's key file, and may be in another instance's")
		case err != nil:
			return decided(Forwarded, "", "its linkDeviceId was not made by this sign_in, so that the old service has to know it")
		case !l.of(call.HouseholdID):
			return decided(LinkFailed, "the linkDeviceId is another home's", "the linkDeviceId was made for another home")
		case l.over(time.Now()):
			return decided(LinkFailed, "the code has expired", "the code has expired: the listener has to begin again")
		}
		d := ask(p.SignIn.Poll, "sign_in: the token endpoint says whether the listener has signed in, at most once in the interval that it wants")
		d.link = l
		return d
	},
	ask:      (*Exchanger).askPoll,
	issued:   Linked,
	rejected: func(*Policy) Reply { return linkFailed },
}

// linkReplay is for how long the same poll gets the same pair again: servers give it once, and an answer can be lost.
const linkReplay = 60 * time.Second

const causeEarly = "not asked, because the code was asked for a moment ago"

// askPoll asks for the tokens of a link, unless it is too early for that. What is no definitive answer is asked for again.
func (x *Exchanger) askPoll(ctx context.Context, p *Policy, d *Decision, q *Request) {
	ctx, cancel := context.WithDeadline(ctx, d.Call.Arrived.Add(p.Timeout))
	defer cancel()
	q.Params = append(q.Params, token.Param{Name: "device_code", Value: d.link.Code})
	q.Identity, q.RejectionIdentity, q.Account = []string{d.Exchange.variant, d.link.Code}, nil, d.link.Code
	p.Conclude(d, x.pollOnce(ctx, p, d, q))
	switch d.Outcome {
	case Rejected:
		d.Outcome = LinkFailed
		if x.Vault == nil {
			break
		}
		// The answer was lost, and another instance has it.
		if got, ok := x.Vault.Recent(ctx, d.Call.HouseholdID, linkAccount(d.link), time.Now().Add(-linkReplay)); ok {
			d.Result = Result{Verdict: token.Verdict{Class: token.Issued}, Replayed: true}
			p.keep(d, got)
		}
	case Linked:
		d.UserIDHash = p.SignIn.hashUser(d)
		if x.Vault != nil {
			x.keepIssued(ctx, p, d, linkAccount(d.link))
		}
	}
	if d.Outcome == Unavailable || d.Outcome == Overloaded {
		d.Outcome = LinkPending // until the code has expired
	}
}

// linkAccount is the account that a vault has for a link. No name of an account is the same: XML has no NUL.
func linkAccount(l *link) string { return "\x00device_code:" + l.Code }

func (x *Exchanger) pollOnce(ctx context.Context, p *Policy, d *Decision, q *Request) Result {
	if known := x.known(q); known != nil {
		return *known
	}
	if x.Vault != nil { // where the storage fails, the tokens would be lost, which are given once
		if err := x.Vault.Ready(ctx); err != nil {
			return storageFailed(err)
		}
	}
	code := replay.DigestOf(x.Name, d.link.Code)
	if !x.State.links.ask(code, d.link.interval(), time.Now()) {
		return Result{Verdict: token.Verdict{Class: token.Pending, Cause: causeEarly}}
	}
	r := x.Exchange(ctx, d.Call.Arrived.Add(p.Timeout), q)
	if r.Error == "slow_down" {
		x.State.links.slower(code)
	}
	return r
}

// known is the answer to the same poll a moment ago, nil where there is none.
func (x *Exchanger) known(q *Request) *Result {
	call := x.digest(q.Type, q.Identity)
	l, ok := x.State.Calls.Known(call, replay.Wanted{Accepted: true, Rejected: &call})
	if !ok {
		return nil
	}
	r := x.again(q, l, false)
	return &r
}

const causeNoUser = "neither the answer nor its id_token has the user_id, so that the player gets none"

// hashUser returns what stands for the user, blank where the answer has nobody.
func (s *SignIn) hashUser(d *Decision) string {
	if s.UserID == "" || s.HashUser == nil {
		return ""
	}
	user := cmp.Or(d.Result.Fields[s.UserID], token.Claim(d.Result.Fields[IDToken], s.UserID))
	if user == "" {
		d.Result.Cause = causeNoUser
		return ""
	}
	return s.HashUser(user)
}

// IDToken is the field of OpenID Connect's.
const IDToken = "id_token"
