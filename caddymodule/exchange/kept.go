package exchange

import (
	"context"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

const (
	fixStorage = "check Caddy's storage: that it is there, writable, and not full"
	fixLost    = "if many are: restore the vault's storage; each home whose record is gone has to sign in again"
	fixOld     = "see what has changed at the old service: its accounts, or who may sign in"

	causeLost       = "the account's record in the vault is gone or damaged"
	causeOldInDoubt = "the old service refused the account, as it does most accounts lately"
)

// StorageFailed is the result where the vault's storage fails, with an error that is not nil.
func StorageFailed(err error) *Result {
	return &Result{Verdict: token.Verdict{Class: token.Unavailable, Cause: err.Error(), Fix: fixStorage}}
}

// Ready is why a request is not sent because the vault's storage fails, nil where it does not.
func (x *Exchanger) Ready(ctx context.Context, q *Request) *Result {
	if !x.Vault.Failing() {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, q.Deadline)
	defer cancel()
	if err := x.Vault.Ready(ctx); err != nil {
		return StorageFailed(err)
	}
	return nil
}

// Lost is what a record means that is gone: a rejection, which the fuse may doubt.
func (x *Exchanger) Lost(q *Request, handle string) *Result {
	r := &Result{Verdict: token.Verdict{Class: token.Rejected, Cause: causeLost, Fix: fixLost}}
	l := Landed{Doubted: x.fuse(q).Weigh(x.Fuse, x.account(handle), true, "")}
	known := *q
	known.Others = false
	x.doubt(&known, &l, r)
	return r
}

// OldSays notes for those who watch what the old service has said of an account, by the vault's reference.
func (x *Exchanger) OldSays(reference string, end pacing.End) {
	x.State.OldAccounts.Note(x.account(reference), end)
}

// WeighOld weighs whether the old service rejects an account, by the vault's reference, and makes r a doubt where it is one.
func (x *Exchanger) WeighOld(reference string, r *Result) {
	rejected := r.Class == token.Rejected
	if x.State.OldFuse.Weigh(x.Fuse, x.account(reference), rejected, "") {
		r.Class, r.Cause, r.Fix = InDoubt, causeOldInDoubt, fixOld
	}
}
