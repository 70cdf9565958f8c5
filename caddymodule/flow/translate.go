package flow

import (
	"context"
	"errors"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

const (
	causeForged      = "the token is none that a key of the vault has made"
	causeDead        = "the account has to sign in again: its tokens, or its old credentials, were refused"
	causeBefore      = "the account was upgraded before old_service was on: its record lacks "
	causeLacks       = "what the authorization server issues lacks "
	causeOldRefused  = "the old service refuses the account's user name and password"
	causeRefusedNow  = "the old service refused the account's user name and password a moment ago"
	causeServedOn    = "served on in grace, because the token cannot be refreshed now: "
	causeNotWritable = "the old credentials have characters that XML cannot carry"
	fixBefore        = "wait until the home signs in again, or have old_service use {token.FIELD}, which a refresh fills"
	fixLacks         = "have the authorization server add that field to its token response, or change old_service"

	// graceWait is how long a call waits for a refresh while it can be served without, and graceAgain the time between two tries.
	graceWait  = 3 * time.Second
	graceAgain = 30 * time.Second
)

// OpenOld finds what a call with a token of ours is to the old service. Tokens that have run out are refreshed. Fresh is for
// what is known to be no longer right in memory. Without an account the decision says what becomes of the call.
func (p *Policy) OpenOld(ctx context.Context, x *exchange.Exchanger, call *smapi.Call, lookup exchange.Lookup, fresh bool) (*OldAccount, Decision) {
	d := Decision{Call: call}
	var o *vault.Opened
	if !fresh {
		o = x.Vault.Known(call.Bearing.Token)
	}
	if o == nil {
		if o = p.lookUp(ctx, x, &d, fresh); o == nil {
			return nil, d
		}
	}
	account := p.OldService.account(o)
	for range 2 {
		missing := account.missing
		if o.Dead {
			d.Outcome, d.Reason.Cause = Expired, causeDead
			return nil, d
		}
		if missing != "" && !isOfResponse(missing) || missing == "" && o.Alive(x.Time()) {
			break
		}
		var served bool
		if o, served = p.renew(ctx, x, &d, o, lookup, missing); o == nil {
			return nil, d
		}
		if served {
			break
		}
		account = p.OldService.account(o)
	}
	if account.missing != "" {
		p.lacking(x, &d, o, account.missing)
		return nil, d
	}
	d.Outcome = Translated
	if d.Differs = households.Compare(o.Household, call.HouseholdID); d.Differs != households.None {
		d.TokenOf = o.Household
	}
	return account, d
}

// lookUp opens the record of a call in the storage, if it has to. Without a record the decision is made.
func (p *Policy) lookUp(ctx context.Context, x *exchange.Exchanger, d *Decision, fresh bool) *vault.Opened {
	ctx, cancel := context.WithDeadline(ctx, d.Call.Arrived.Add(p.Timeout))
	defer cancel()
	reference := d.Call.Bearing.Token
	o, err := x.Vault.Open(ctx, reference, fresh)
	if errors.Is(err, vault.ErrMadeUp) && d.Call.Bearing.Key != "" { // of a home that was upgraded before there was an old_service
		reference = d.Call.Bearing.Key
		o, err = x.Vault.Open(ctx, reference, fresh)
	}
	if err != nil {
		unopened(x, d, reference, err)
		return nil
	}
	return o
}

// unopened says what becomes of a call whose record cannot be opened.
func unopened(x *exchange.Exchanger, d *Decision, reference string, err error) {
	switch {
	case errors.Is(err, vault.ErrMadeUp):
		d.Outcome, d.Reason.Cause = Expired, causeForged
	case errors.Is(err, vault.ErrKey):
		d.Outcome, d.Result = Misconfigured, exchange.Result{Verdict: token.Verdict{Class: token.Misconfigured, Cause: causeKey, Fix: fixKeys}}
	case errors.Is(err, vault.ErrLost):
		d.Result = *x.Lost(&exchange.Request{Grant: token.Grant{Type: token.Refresh}}, reference)
		d.Outcome = expiredBy(d.Result.Class)
	default:
		d.Outcome, d.Result = Unavailable, *exchange.StorageFailed(err)
	}
}

// expiredBy is what a rejection means for a home that is upgraded.
func expiredBy(class token.Class) Outcome {
	if o := outcomeOf(class); o != Rejected {
		return o
	}
	return Expired
}

// renew refreshes a record, once for all instances, and returns it as it is then. Served tells that it was not refreshed, and serves
// as it is for some time. Without a record the decision is made.
func (p *Policy) renew(ctx context.Context, x *exchange.Exchanger, d *Decision, o *vault.Opened, lookup exchange.Lookup, missing string) (now *vault.Opened, served bool) {
	grace := missing == "" && x.Time().Before(o.Expires.Add(p.OldService.Grace))
	tried := replay.DigestOf(o.Reference())
	if _, lately := x.State.Renewals.Get(tried); lately && (grace || o.Alive(x.Time())) {
		return o, true
	}
	asked := Decision{
		Call: &smapi.Call{
			Method: smapi.RefreshAuthToken, Arrived: d.Call.Arrived, HouseholdID: o.Household,
			Credentials: smapi.Credentials{Kind: smapi.LoginToken, Token: o.Reference(), Key: o.Handle()},
		},
		Rule: p.Refresh, flow: &refresh,
	}
	q := p.Refresh.Request(asked.Call, lookup)
	refresh := func(ctx context.Context) Decision {
		p.Ask(ctx, x, &asked, &q)
		Learn(x, &q, &asked)
		return asked
	}
	if grace || o.Alive(x.Time()) {
		x.State.Renewals.Put(tried, struct{}{}, graceAgain)
	}
	var got Decision
	if grace {
		done := make(chan Decision, 1)
		go func() { done <- refresh(context.WithoutCancel(ctx)) }()
		wait := time.NewTimer(graceWait)
		defer wait.Stop()
		select {
		case got = <-done:
		case <-wait.C:
			d.Reason.Cause = causeServedOn + token.CauseTimeout
			return o, true
		}
	} else {
		got = refresh(ctx)
	}
	switch got.Outcome {
	case Refreshed:
		x.State.Renewals.Forget(tried)
		now, err := x.Vault.Open(ctx, o.Reference(), false)
		if err != nil {
			unopened(x, d, o.Reference(), err)
			return nil, false
		}
		return now, false
	case Rejected:
		d.Result = got.Result
		return bury(ctx, x, d, o), false
	}
	if grace {
		d.Reason.Cause = causeServedOn + got.Outcome.String()
		return o, true
	}
	d.Outcome, d.Result = got.Outcome, got.Result
	return nil, false
}

// bury has an account sign in again, unless it just has: then it is returned.
func bury(ctx context.Context, x *exchange.Exchanger, d *Decision, o *vault.Opened) *vault.Opened {
	now, err := x.Vault.Bury(ctx, o)
	switch {
	case errors.Is(err, vault.ErrUnavailable):
		d.Outcome, d.Result = Unavailable, *exchange.StorageFailed(err)
		return nil
	case err == nil && !now.Dead:
		return now
	}
	d.Outcome = Expired
	return nil
}

// lacking says what becomes of a call whose record lacks what the old service wants to know.
func (p *Policy) lacking(x *exchange.Exchanger, d *Decision, o *vault.Opened, missing string) {
	if isOfResponse(missing) {
		d.Outcome = Misconfigured
		d.Result = exchange.Result{Verdict: token.Verdict{Class: token.Misconfigured, Cause: causeLacks + missing, Fix: fixLacks}}
		return
	}
	// The home can do nothing but sign in again. That all can is more likely a mistake of the configuration's.
	d.Result = exchange.Result{Verdict: token.Verdict{Class: token.Rejected, Cause: causeBefore + missing, Fix: fixBefore}}
	x.WeighOld(o.Reference(), &d.Result)
	d.Outcome = expiredBy(d.Result.Class)
}

// OldSays notes what the old service says of an account. That it refuses the password is OldRefused.
func OldSays(x *exchange.Exchanger, a *OldAccount, end pacing.End) {
	x.OldSays(a.opened.Reference(), end)
	if end == pacing.Accepted {
		x.WeighOld(a.opened.Reference(), new(exchange.Result))
	}
}

// OldRefused says what becomes of a call whose account the old service refuses by its password.
func OldRefused(ctx context.Context, x *exchange.Exchanger, call *smapi.Call, a *OldAccount) Decision {
	d := Decision{Call: call, Result: exchange.Result{Verdict: token.Verdict{Class: token.Rejected, Cause: causeOldRefused}}}
	OldSays(x, a, pacing.Rejected)
	x.WeighOld(a.opened.Reference(), &d.Result)
	if d.Outcome = expiredBy(d.Result.Class); d.Outcome == Expired && bury(ctx, x, &d, a.opened) != nil {
		d.Outcome = Unavailable // it has just signed in again, and can call again
	}
	return d
}

// OldRefusedBefore says what becomes of a call whose account the old service has refused by its password in the last seconds, so that
// it is not asked again. The account may be another home's, or upgraded anew since.
func OldRefusedBefore(call *smapi.Call) Decision {
	v := token.Verdict{Class: token.Unavailable, Cause: causeRefusedNow}
	return Decision{Call: call, Outcome: Unavailable, Result: exchange.Result{Verdict: v}}
}

// NotWritable says what becomes of a call whose old credentials XML cannot carry.
func NotWritable(call *smapi.Call) Decision {
	v := token.Verdict{Class: token.Misconfigured, Cause: causeNotWritable, Fix: "see what old_service is made of"}
	return Decision{Call: call, Outcome: Misconfigured, Result: exchange.Result{Verdict: v}}
}

// Again answers a call for a pair that has a token of ours: its account is upgraded.
func Again(d *Decision, a *OldAccount) {
	d.AuthToken, d.PrivateKey = a.opened.Reference(), a.opened.Handle()
	if d.Outcome = Upgraded; d.Call.Method == smapi.RefreshAuthToken {
		d.Outcome = Refreshed
	}
}
