package flow

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
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
	decide: func(p *Policy, call *smapi.Call) *Decision {
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
	ask:      askPoll,
	issued:   Linked,
	rejected: func(*Policy) Reply { return linkFailed },
}

// askPoll asks for the tokens of a link, unless it is too early for that. What is no definitive answer is asked for again.
func askPoll(ctx context.Context, p *Policy, x *exchange.Exchanger, d *Decision, q *exchange.Request) {
	ctx, cancel := context.WithDeadline(ctx, q.Deadline)
	defer cancel()
	d.Rule.OfCode(q, d.link.Code)
	p.Conclude(d, x.Poll(ctx, q, d.link.Code, d.link.interval()))
	switch d.Outcome {
	case Rejected:
		d.Outcome = LinkFailed
		if x.Vault == nil {
			break
		}
		// The answer was lost, and another instance has it.
		if got, ok := x.Vault.Recent(ctx, d.Call.HouseholdID, linkAccount(d.link), time.Now().Add(-exchange.LinkReplay)); ok {
			d.Result = exchange.Result{Verdict: token.Verdict{Class: token.Issued}, Replayed: true}
			d.UserIDHash = got.UserIDHash
			p.keep(d, got)
		}
	case Linked:
		d.UserIDHash = p.SignIn.hashUser(d)
		if x.Vault != nil {
			p.keepIssued(ctx, x, d, q, linkAccount(d.link))
		}
	}
	if d.Outcome == Unavailable || d.Outcome == Overloaded {
		d.Outcome = LinkPending // until the code has expired
	}
}

// linkAccount is the account that a vault has for a link. No name of an account is the same: XML has no NUL.
func linkAccount(l *link) string { return "\x00device_code:" + l.Code }

const causeNoUser = "neither the answer nor its id_token has the user_id, so that the player gets none"

// hashUser returns what stands for the user, blank where the answer has nobody.
func (s *SignIn) hashUser(d *Decision) string {
	if s.UserID == "" || s.HashUser == nil {
		return ""
	}
	user := cmp.Or(d.Result.Fields.Get(s.UserID), token.Claim(d.Result.Fields.Get(IDToken), s.UserID))
	if user == "" {
		d.Result.Cause = causeNoUser
		return ""
	}
	return s.HashUser(user)
}

// IDToken is the field of OpenID Connect's.
const IDToken = "id_token"
