package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// Learn notes for those who watch how a call of an account ended, if the endpoint was asked for it and had a fair time. A
// caller that was slow is not the endpoint's failure, and who signs in is no account yet.
//
// Of credentials that may be others' to judge, and that anybody can make up, no more is noted than that they were good.
func (x *Exchanger) Learn(q *Request, d *Decision) {
	r := &d.Result
	if q.Type == token.DeviceCode || r.Replayed || r.Took == 0 || r.Cause == token.CauseTimeout && r.Took < x.Fair {
		return
	}
	accounts := x.State.UpgradeAccounts
	if q.Type == token.Refresh {
		accounts = x.State.RefreshAccounts
	}
	end := pacing.Failed
	switch d.Outcome {
	case Upgraded, Refreshed:
		end = pacing.Accepted
	case Rejected, Doubted:
		end = pacing.Rejected
	}
	if q.Others && end != pacing.Accepted {
		return
	}
	accounts.Note(x.account(q.Account), end)
}
