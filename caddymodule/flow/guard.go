package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
)

// guard keeps a login from reaching the token endpoint when its account has had its failed logins. The zero guard keeps
// nothing.
type guard struct {
	budgets          *pacing.Budgets
	budget           pacing.Budget
	account, network pacing.Account
	done             func(failed bool)
}

// guard returns that of a request. Only names can be guessed at: whoever has a token or a session id has the account.
func (x *Exchanger) guard(q *Request, account pacing.Account) guard {
	if !q.Guessable || x.Budgets == nil {
		return guard{}
	}
	return guard{budgets: x.Budgets, budget: x.Budget, account: account, network: account.From(q.Network)}
}

// open reports whether there is something left, so that it is worth waiting for a place.
func (g *guard) open() bool {
	return g.budgets == nil || g.budgets.Left(g.budget, g.account, g.network)
}

// pass reports whether the login may be sent. If so, end has to be called.
func (g *guard) pass() (ok bool) {
	if g.budgets == nil {
		return true
	}
	g.done, ok = g.budgets.Spend(g.budget, g.account, g.network)
	return ok
}

func (g *guard) end(failed bool) {
	if g.done != nil {
		g.done(failed)
	}
}
