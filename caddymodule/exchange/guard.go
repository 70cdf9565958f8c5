package exchange

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// guard keeps a login from reaching the token endpoint when its account has had its failed logins, or when the very same
// has just been refused. With a vault it counts those of all instances that share it. The zero guard keeps nothing.
type guard struct {
	budgets *pacing.Budgets
	login   pacing.Login
	passed  bool

	vault       *vault.Vault
	name        string // of the account
	proof, from string // digests of the vault's
	remember    time.Duration
	looked      time.Time
}

// protect makes it that of a request. Only names can be guessed at: whoever has a token or a session id has the account.
func (g *guard) protect(x *Exchanger, q *Request, account *pacing.Account) {
	if !q.Guessable || x.Budgets == nil {
		return
	}
	g.budgets = x.Budgets
	g.login.Budget, g.login.Account, g.login.Network = x.Budget, *account, account.From(q.Network)
	if x.Vault != nil && (x.Budget.Failures > 0 || x.RememberRejected > 0) {
		proof := q.RejectionIdentity
		if proof == nil {
			proof = q.Identity
		}
		g.vault, g.name, g.remember = x.Vault, q.Account, x.RememberRejected
		g.proof = x.Vault.Digest("proof", x.Name+"\x00"+strings.Join(proof, "\x00"))
		g.from = x.Vault.Digest("network", q.Account+"\x00"+q.From)
	}
}

// lookAgain is for how long a look at the failures of other instances is good.
const lookAgain = time.Second

// look looks at the failures of other instances. A failure says why the login is not sent.
func (g *guard) look(ctx context.Context, deadline time.Time) *token.Failure {
	if g.vault == nil || time.Since(g.looked) < lookAgain {
		return nil
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	now, l := time.Now(), &g.login
	failures, err := g.vault.Failures(ctx, g.name, now.Add(-max(l.Budget.Window, g.remember)))
	if err != nil {
		return &token.Failure{Class: token.Unavailable, Cause: err.Error(), Fix: fixStorage}
	}
	g.looked, l.Elsewhere, l.NetworkFailed = now, 0, false
	slices.SortFunc(failures, func(a, b vault.Failure) int { return a.At.Compare(b.At) })
	counted := 0
	for _, f := range failures {
		if f.Proof == g.proof && now.Sub(f.At) < g.remember {
			return &token.Failure{Class: token.Rejected, Cause: "refused a moment ago, maybe at another instance"}
		}
		if now.Sub(f.At) >= l.Budget.Window {
			continue
		}
		counted++
		if f.Elsewhere {
			l.Elsewhere++
			l.NetworkFailed = l.NetworkFailed || f.Network == g.from && counted >= l.Budget.Failures-l.Budget.Reserved()
		}
	}
	return nil
}

// open reports whether there is something left, so that it is worth waiting for a place.
func (g *guard) open() bool {
	return g.budgets == nil || g.budgets.Left(&g.login)
}

// pass reports whether the login may be sent. If so, end has to be called.
func (g *guard) pass() bool {
	if g.budgets == nil {
		return true
	}
	g.passed = g.budgets.Spend(&g.login)
	return g.passed
}

func (g *guard) end(failed bool) {
	if g.passed {
		g.budgets.End(&g.login, failed)
	}
}

// inDoubt begins a proof that is like no other.
const inDoubt = "x"

// tell has the other instances know of a failed login. Where that fails, they count one less. What is in doubt here is not
// remembered there as a rejection.
func (g *guard) tell(ctx context.Context, doubted bool) {
	if g.vault != nil {
		now, proof := time.Now(), g.proof
		if doubted {
			proof = inDoubt + proof
		}
		_ = g.vault.Failed(ctx, g.name, vault.Failure{At: now, Proof: proof, Network: g.from},
			now.Add(-2*max(g.login.Budget.Window, g.remember)))
	}
}
