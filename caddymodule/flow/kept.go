package flow

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// Ask finds out what becomes of a call by the token endpoint and, where there is one, the vault.
func (x *Exchanger) Ask(ctx context.Context, p *Policy, d *Decision, q *Request) {
	deadline := d.Call.Arrived.Add(p.Timeout)
	if q.Held > 0 {
		if !x.State.hold(q.Held) {
			p.Conclude(d, notSent(causeFull))
			return
		}
		defer x.State.held.Add(int64(-q.Held))
	}
	switch {
	case d.flow.ask != nil:
		d.flow.ask(x, ctx, p, d, q)
	case x.Vault == nil:
		p.Conclude(d, x.Exchange(ctx, deadline, q))
	case q.Type == token.Refresh:
		x.refreshKept(ctx, deadline, p, d, q)
	default:
		x.upgradeKept(ctx, deadline, p, d, q)
	}
}

const (
	fixStorage = "check Caddy's storage: that it is there, writable, and not full"
	fixKeys    = "give this instance the key file of the others, with all keys that have sealed"
	fixLost    = "if many are: restore the vault's storage; each home whose record is gone has to sign in again"

	causeNewer  = "not asked, because the vault has newer tokens"
	causeMadeUp = "the key is a handle that no key of the vault has made"
	causeLost   = "the account's record in the vault is gone or damaged"
	causeKey    = "the account's record was sealed by a key that is not in the vault's key file"
)

// upgradeKept asks, and has the vault keep the tokens. Where the storage fails before, nobody is asked.
func (x *Exchanger) upgradeKept(ctx context.Context, deadline time.Time, p *Policy, d *Decision, q *Request) {
	within, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := x.Vault.Ready(within); err != nil {
		p.Conclude(d, storageFailed(err))
		return
	}
	p.Conclude(d, x.Exchange(ctx, deadline, q))
	if d.Outcome == d.flow.issued {
		x.keepIssued(within, p, d, q.Account)
	}
}

// keepIssued has the vault keep the tokens of an account that were just issued. A fallback for privateKey refreshes nothing
// and is not kept.
func (x *Exchanger) keepIssued(ctx context.Context, p *Policy, d *Decision, account string) {
	refreshToken := d.Result.Fields[p.PrivateKey]
	if refreshToken == "" {
		return
	}
	t := vault.Tokens{Access: d.AuthToken, Refresh: refreshToken, Life: d.Result.Life, Obtained: d.Result.At}
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
			d.Outcome, d.Result.Cause, d.Result.Fix = Unavailable, got.Unsaved.Error(), fixStorage
			return
		}
		d.AuthToken = got.Reference
	}
	if err := smapi.CheckToken(d.PrivateKey); err != nil { // a refresh token that went out after all
		d.misconfigured("the answer's field for privateKey: "+err.Error(), fixes[err])
	}
}

func storageFailed(err error) Result {
	return Result{Verdict: token.Verdict{Class: token.Unavailable, Cause: err.Error(), Fix: fixStorage}}
}

// refused is what a refresh came to that brought no tokens, for all who waited for it.
type refused struct {
	outcome Outcome
	result  Result
}

func (r *refused) Error() string { return r.outcome.String() }

func (x *Exchanger) refreshKept(ctx context.Context, deadline time.Time, p *Policy, d *Decision, q *Request) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	key, presented := d.Call.Credentials.Key, d.Call.Credentials.Token
	q.Account = key
	var mine atomic.Pointer[Result] // if it was this call that asked
	got, err := x.Vault.RefreshFor(ctx, d.Call.HouseholdID, key, presented, p.OldService.ofResponse(),
		func(ctx context.Context, refreshToken string, ready func() bool) (vault.Tokens, error) {
			tried := Decision{Call: d.Call, Exchange: d.Exchange, Others: ready != nil, flow: d.flow}
			p.Conclude(&tried, x.Exchange(ctx, deadline, q.with(refreshToken, ready)))
			mine.Store(&tried.Result)
			if tried.Outcome != d.flow.issued {
				return vault.Tokens{}, &refused{tried.Outcome, tried.Result}
			}
			t := vault.Tokens{
				Access: tried.AuthToken, Refresh: tried.Result.Fields[p.PrivateKey], Life: tried.Result.Life, Obtained: tried.Result.At,
			}
			if p.OldService != nil {
				t.Fields = p.OldService.kept(nil, tried.Result.Fields)
			}
			return t, nil
		})
	d.Others, q.Others = false, !got.Known
	if err == nil {
		d.Result = Result{Verdict: token.Verdict{Class: token.Issued}, Replayed: true}
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
		p.Conclude(d, Result{Verdict: token.Verdict{Class: token.Misconfigured, Cause: causeKey, Fix: fixKeys}})
	case errors.Is(err, vault.ErrLost):
		p.Conclude(d, x.lost(q, key))
	default:
		p.Conclude(d, storageFailed(err))
	}
}

// with is the request for a refresh token that the vault has, or that a player presents.
func (q *Request) with(refreshToken string, ready func() bool) *Request {
	asked := *q
	asked.Params = slices.Clone(q.Params)
	for i := range asked.Params {
		if asked.Params[i].Name == token.Refresh {
			asked.Params[i].Value = refreshToken
		}
	}
	asked.Identity = []string{refreshToken}
	asked.Others, asked.Ready = ready != nil, ready
	return &asked
}

// lost is what a record means that is gone: a rejection, which the fuse may doubt.
func (x *Exchanger) lost(q *Request, handle string) Result {
	r := Result{Verdict: token.Verdict{Class: token.Rejected, Cause: causeLost, Fix: fixLost}}
	l := Landed{Doubted: x.fuse(q).Weigh(x.Fuse, x.account(handle), true, "")}
	known := *q
	known.Others = false
	return x.doubt(&known, &l, r)
}
