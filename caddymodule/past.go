package caddymodule

import (
	"encoding/binary"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/history"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// remember notes for those who watch what came of the account of a call. It is by what the token endpoint has said: who makes
// up accounts is counted among those that it refused.
func (h *Handler) remember(q *exchange.Request, d *flow.Decision) {
	fair := flow.Learn(h.exchanger, q, d)
	accounts := &h.shared.history.Accounts
	switch {
	case d.Outcome == flow.Linked && !d.Result.Replayed:
		accounts.Note(history.SignedIn, h.standsFor(d.Call.HouseholdID, replay.DigestOf("history", d.Call.HouseholdID)))
	case !fair || q.Type == token.Refresh:
	case d.Outcome == flow.Upgraded:
		accounts.Note(history.Upgraded, h.standsFor(q.Account, h.exchanger.Digest(q)))
	case d.Outcome == flow.Rejected:
		accounts.Note(history.Refused, h.standsFor(q.Account, h.exchanger.Digest(q)))
	case d.Outcome == flow.Doubted:
		accounts.Note(history.Doubted, h.standsFor(q.Account, h.exchanger.Digest(q)))
	}
}

// standsFor is a number for an account: by the vault's key where there is one, since it outlives the process, or else of a digest.
func (h *Handler) standsFor(account string, digest [16]byte) uint64 {
	if h.vault != nil {
		return h.vault.Number("account of the history", account)
	}
	return binary.LittleEndian.Uint64(digest[:])
}

// fault keeps an answer that was not what its player hoped for.
func (e *sharedEndpoint) fault(d *flow.Decision, reference string) {
	switch row := d.Outcome.Row(); {
	case d.Outcome == flow.Rejected, d.Outcome == flow.LinkFailed, row.Level >= zapcore.WarnLevel:
	default:
		return
	}
	cause := d.Result.Cause
	if cause == "" {
		cause = d.Reason.Cause
	}
	e.history.Faults.Add(history.Fault{
		At: time.Now().UTC(), Reference: reference, Method: string(d.Call.Method), Outcome: d.Outcome, Cause: cause, Fix: d.Result.Fix,
	})
}
