package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
)

// Learn notes for those who watch how a call of an account ended, and reports whether it did: the endpoint was asked for it
// and had a fair time.
func Learn(x *exchange.Exchanger, q *exchange.Request, d *Decision) bool {
	end := pacing.Failed
	switch d.Outcome {
	case Upgraded, Refreshed:
		end = pacing.Accepted
	case Rejected, Doubted:
		end = pacing.Rejected
	}
	return x.Note(q, &d.Result, end)
}
