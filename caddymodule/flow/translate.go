package flow

import (
	"context"
	"errors"
	"time"

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
	causeServedOn    = "served on in grace, because the token cannot be refreshed now: "
	causeOldInDoubt  = "the old service refused the account, as it does most accounts lately"
	causeNotWritable = "the old credentials have characters that XML cannot carry"

	fixBefore = "wait until the home signs in again, or have old_service use {token.FIELD}, which a refresh fills"
	fixLacks  = "have the authorization server add that field to its token response, or change old_service"
	fixOld    = "see what has changed at the old service: its accounts, or who may sign in"
)

const (
	// graceWait is how long a call waits for a refresh while it can be served without, and graceAgain the time between two tries.
	graceWait  = 3 * time.Second
	graceAgain = 30 * time.Second
	maxTried   = 1 << 16
)

// OpenOld finds what a call with a token of ours is to the old service. Tokens that have run out are refreshed. Fresh is for
// what is known to be no longer right in memory. Without an account the decision says what becomes of the call.
func (x *Exchanger) OpenOld(ctx context.Context, p *Policy, call *smapi.Call, lookup Lookup, fresh bool) (*OldAccount, Decision) {
	d := Decision{Call: call}
	var o *vault.Opened
	if !fresh {
		o = x.Vault.Known(call.Credentials.Token)
	}
	if o == nil {
		if o = x.lookUp(ctx, p, &d, fresh); o == nil {
			return nil, d
		}
	}
	for range 2 {
		missing := p.OldService.missing(o.Fields)
		if o.Dead {
			d.Outcome, d.Reason.Cause = Expired, causeDead
			return nil, d
		}
		if missing != "" && !isOfResponse(missing) || missing == "" && o.Alive(x.now()) {
			break
		}
		var served bool
		if o, served = x.renew(ctx, p, &d, o, lookup, missing); o == nil {
			return nil, d
		}
		if served {
			break
		}
	}
	if missing := p.OldService.missing(o.Fields); missing != "" {
		x.lacking(p, &d, o, missing)
		return nil, d
	}
	d.Outcome = Translated
	return &OldAccount{Credentials: p.OldService.credentials(o.Fields), HouseholdID: o.Household, opened: o}, d
}

// lookUp opens the record of a call in the storage, if it has to. Without a record the decision is made.
func (x *Exchanger) lookUp(ctx context.Context, p *Policy, d *Decision, fresh bool) *vault.Opened {
	ctx, cancel := context.WithDeadline(ctx, d.Call.Arrived.Add(p.Timeout))
	defer cancel()
	reference := d.Call.Credentials.Token
	o, err := x.Vault.Open(ctx, reference, fresh)
	if errors.Is(err, vault.ErrMadeUp) && d.Call.Credentials.Key != "" { // of a home that was upgraded before there was an old_service
		reference = d.Call.Credentials.Key
		o, err = x.Vault.Open(ctx, reference, fresh)
	}
	if err != nil {
		x.unopened(p, d, reference, err)
		return nil
	}
	return o
}

func (x *Exchanger) now() time.Time {
	if x.Now == nil {
		return time.Now()
	}
	return x.Now()
}

// unopened says what becomes of a call whose record cannot be opened.
func (x *Exchanger) unopened(p *Policy, d *Decision, reference string, err error) {
	switch {
	case errors.Is(err, vault.ErrMadeUp):
		d.Outcome, d.Reason.Cause = Expired, causeForged
	case errors.Is(err, vault.ErrKey):
		d.Outcome, d.Result = Misconfigured, Result{Verdict: token.Verdict{Class: token.Misconfigured, Cause: causeKey, Fix: fixKeys}}
	case errors.Is(err, vault.ErrLost):
		r := x.lost(&Request{Grant: token.Grant{Type: token.Refresh}}, reference)
		d.Result = r
		d.Outcome = expiredBy(r.Class)
	default:
		d.Outcome, d.Result = Unavailable, storageFailed(err)
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
func (x *Exchanger) renew(ctx context.Context, p *Policy, d *Decision, o *vault.Opened, lookup Lookup, missing string) (now *vault.Opened, served bool) {
	grace := missing == "" && x.now().Before(o.Expires.Add(p.OldService.Grace))
	tried := replay.DigestOf(o.Reference())
	if _, lately := x.State.Renewals.Get(tried); lately && (grace || o.Alive(x.now())) {
		return o, true
	}
	asked := Decision{
		Call: &smapi.Call{
			Method: smapi.RefreshAuthToken, Arrived: d.Call.Arrived, HouseholdID: o.Household,
			Credentials: smapi.Credentials{Kind: smapi.LoginToken, Token: o.Reference(), Key: o.Handle()},
		},
		Exchange: p.Refresh, flow: &refresh,
	}
	q := p.Refresh.Request(asked.Call, lookup)
	refresh := func(ctx context.Context) Decision {
		x.Ask(ctx, p, &asked, &q)
		x.Learn(&q, &asked)
		return asked
	}
	if grace || o.Alive(x.now()) {
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
			x.unopened(p, d, o.Reference(), err)
			return nil, false
		}
		return now, false
	case Rejected:
		d.Result = got.Result
		return x.bury(ctx, d, o), false
	}
	if grace {
		d.Reason.Cause = causeServedOn + got.Outcome.String()
		return o, true
	}
	d.Outcome, d.Result = got.Outcome, got.Result
	return nil, false
}

// bury has an account sign in again, unless it just has: then it is returned.
func (x *Exchanger) bury(ctx context.Context, d *Decision, o *vault.Opened) *vault.Opened {
	now, err := x.Vault.Bury(ctx, o)
	switch {
	case errors.Is(err, vault.ErrUnavailable):
		d.Outcome, d.Result = Unavailable, storageFailed(err)
		return nil
	case err == nil && !now.Dead:
		return now
	}
	d.Outcome = Expired
	return nil
}

// lacking says what becomes of a call whose record lacks what the old service wants to know.
func (x *Exchanger) lacking(p *Policy, d *Decision, o *vault.Opened, missing string) {
	if isOfResponse(missing) {
		d.Outcome = Misconfigured
		d.Result = Result{Verdict: token.Verdict{Class: token.Misconfigured, Cause: causeLacks + missing, Fix: fixLacks}}
		return
	}
	// The home can do nothing but sign in again. That all can is more likely a mistake of the configuration's.
	r := Result{Verdict: token.Verdict{Class: token.Rejected, Cause: causeBefore + missing, Fix: fixBefore}}
	d.Result = x.weighOld(o.Reference(), r)
	d.Outcome = expiredBy(d.Result.Class)
}

// weighOld weighs a rejection of an account for the old service.
func (x *Exchanger) weighOld(reference string, r Result) Result {
	rejected := r.Class == token.Rejected
	if x.State.OldFuse.Weigh(x.Fuse, x.account(reference), rejected, "") {
		r.Class, r.Cause, r.Fix = InDoubt, causeOldInDoubt, fixOld
	}
	return r
}

// OldAccepted notes that the old service knows an account.
func (x *Exchanger) OldAccepted(a *OldAccount) {
	x.weighOld(a.opened.Reference(), Result{})
}

// OldRefused says what becomes of a call whose account the old service refuses by its password.
func (x *Exchanger) OldRefused(ctx context.Context, call *smapi.Call, a *OldAccount) Decision {
	d := Decision{Call: call}
	d.Result = x.weighOld(a.opened.Reference(), Result{Verdict: token.Verdict{Class: token.Rejected, Cause: causeOldRefused}})
	if d.Outcome = expiredBy(d.Result.Class); d.Outcome == Expired && x.bury(ctx, &d, a.opened) != nil {
		d.Outcome = Unavailable // it has just signed in again, and can call again
	}
	return d
}

// NotWritable says what becomes of a call whose old credentials XML cannot carry.
func NotWritable(call *smapi.Call) Decision {
	return Decision{Call: call, Outcome: Misconfigured, Result: Result{Verdict: token.Verdict{
		Class: token.Misconfigured, Cause: causeNotWritable, Fix: "see what old_service is made of",
	}}}
}

// Again answers a call for a pair that has a token of ours: its account is upgraded.
func (x *Exchanger) Again(d *Decision, a *OldAccount) {
	d.AuthToken, d.PrivateKey = a.opened.Reference(), a.opened.Handle()
	if d.Outcome = Upgraded; d.Call.Method == smapi.RefreshAuthToken {
		d.Outcome = Refreshed
	}
}
