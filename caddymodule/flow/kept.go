package flow

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/trace"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// Ask finds out what becomes of a call by the token endpoint and, where there is one, the vault. A call that shares the
// exchange of another has a span of its own, but is not what the endpoint goes on with.
func (p *Policy) Ask(ctx context.Context, x *exchange.Exchanger, d *Decision, q *exchange.Request) {
	ctx, span := trace.Begin(ctx, "exchange", &q.Header)
	defer func() { d.endTrace(span, q.Type) }()
	q.Deadline = d.Call.Arrived.Add(p.Timeout)
	if !x.State.Hold(q.Held) {
		d.Outcome, d.Result.Class, d.Result.Cause = Overloaded, exchange.NotSent, causeFull
		return
	}
	defer x.State.Release(q.Held)
	switch {
	case d.flow.ask != nil:
		d.flow.ask(ctx, p, x, d, q)
	case x.Vault == nil:
		p.Conclude(d, x.Exchange(ctx, q))
	case q.Type == token.Refresh:
		p.refreshKept(ctx, x, d, q)
	default:
		p.upgradeKept(ctx, x, d, q)
	}
}

const (
	fixKeys = "give this instance the key file of the others, with all keys that have sealed"

	causeNewer  = "not asked, because the vault has newer tokens"
	causeMadeUp = "the key is a handle that no key of the vault has made"
	causeFull   = "too many large calls wait"
	causeKey    = "the account's record was sealed by a key that is not in the vault's key file"
)

// upgradeKept asks, and has the vault keep the tokens. Where the storage fails before, nobody is asked.
func (p *Policy) upgradeKept(ctx context.Context, x *exchange.Exchanger, d *Decision, q *exchange.Request) {
	if failed := x.Ready(ctx, q); failed != nil {
		p.Conclude(d, failed)
		return
	}
	p.Conclude(d, x.Exchange(ctx, q))
	if d.Outcome == d.flow.issued {
		p.keepIssued(ctx, x, d, q, q.Account)
	}
}

// keepIssued has the vault keep the tokens of an account that were just issued. A fallback for privateKey refreshes nothing
// and is not kept.
func (p *Policy) keepIssued(ctx context.Context, x *exchange.Exchanger, d *Decision, q *exchange.Request, account string) {
	ctx, cancel := context.WithDeadline(ctx, q.Deadline)
	defer cancel()
	refreshToken := d.Result.Fields.Get(p.PrivateKey)
	if refreshToken == "" {
		return
	}
	t := vault.Tokens{Access: d.AuthToken, Refresh: refreshToken, Life: d.Result.Life, Obtained: d.Result.At, UserIDHash: d.UserIDHash,
		SignedIn: d.Outcome == Linked}
	if o := p.OldService; o != nil {
		t.Fields = o.kept(d.Call, d.Result.Fields)
		if missing := o.missing(t.Fields); missing != "" {
			d.misconfigured("old_service needs "+missing+", which neither the call nor the answer has", fixLacks)
			return
		}
	}
	if d.Call.Credentials.Kind == smapi.Login {
		account = d.Call.Credentials.Username // as it is spelled: a server may tell Ella from ella
	}
	p.keep(d, x.Vault.Upgraded(ctx, d.Call.HouseholdID, account, t))
}

// keep gives the player what the vault has for it.
func (p *Policy) keep(d *Decision, got vault.Result) {
	d.Outcome, d.AuthToken, d.PrivateKey = d.flow.issued, got.AuthToken, got.PrivateKey
	d.Unsaved, d.Kept = got.Unsaved, got.Kept
	if p.OldService != nil {
		if !got.Kept { // a home that held the tokens themselves could not call the old service any more
			d.AuthToken, d.PrivateKey = "", ""
			failed := exchange.StorageFailed(got.Unsaved)
			d.Outcome, d.Result.Cause, d.Result.Fix = Unavailable, failed.Cause, failed.Fix
			return
		}
		d.AuthToken = got.Reference
	}
	if err := smapi.CheckToken(d.PrivateKey); err != nil { // a refresh token that went out after all
		d.misconfigured("the answer's field for privateKey: "+err.Error(), fixes[err])
	}
}

// refused is what a refresh came to that brought no tokens, for all who waited for it.
type refused struct {
	outcome Outcome
	result  exchange.Result
}

func (r *refused) Error() string { return r.outcome.String() }

func (p *Policy) refreshKept(ctx context.Context, x *exchange.Exchanger, d *Decision, q *exchange.Request) {
	ctx, cancel := context.WithDeadline(ctx, q.Deadline)
	defer cancel()
	key, presented := d.Call.Credentials.Key, d.Call.Credentials.Token
	q.Account = key
	var mine atomic.Pointer[exchange.Result] // if it was this call that asked
	got, err := x.Vault.RefreshFor(ctx, d.Call.HouseholdID, key, presented, p.OldService.ofResponse(),
		func(ctx context.Context, refreshToken string, ready func() bool) (vault.Tokens, error) {
			tried := Decision{Call: d.Call, Rule: d.Rule, Others: ready != nil, flow: d.flow}
			p.Conclude(&tried, x.Exchange(ctx, q.With(refreshToken, ready)))
			mine.Store(&tried.Result)
			if tried.Outcome != d.flow.issued {
				return vault.Tokens{}, &refused{tried.Outcome, tried.Result}
			}
			t := vault.Tokens{
				Access: tried.AuthToken, Refresh: tried.Result.Fields.Get(p.PrivateKey), Life: tried.Result.Life, Obtained: tried.Result.At,
			}
			if p.OldService != nil {
				t.Fields = p.OldService.kept(nil, tried.Result.Fields)
			}
			return t, nil
		})
	d.Others, q.Others = false, !got.Known
	if err == nil {
		d.Result = exchange.Result{Verdict: token.Verdict{Class: token.Issued}, Replayed: true}
		switch r := mine.Load(); {
		case r != nil && got.Asked:
			d.Result = *r
		case !got.Asked:
			d.Result.Cause = causeNewer
		}
		p.keep(d, got)
		return
	}
	if r, ok := errors.AsType[*refused](err); ok {
		d.Outcome, d.Result = r.outcome, r.result
		d.Result.Replayed = d.Result.Replayed || mine.Load() == nil
		return
	}
	switch {
	case errors.Is(err, vault.ErrMadeUp):
		d.Outcome, d.Reason.Cause = Forwarded, causeMadeUp
	case errors.Is(err, vault.ErrKey):
		p.Conclude(d, &exchange.Result{Verdict: token.Verdict{Class: token.Misconfigured, Cause: causeKey, Fix: fixKeys}})
	case errors.Is(err, vault.ErrLost):
		p.Conclude(d, x.Lost(q, key))
	default:
		p.Conclude(d, exchange.StorageFailed(err))
	}
}
