package exchange

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// guard keeps a login from reaching the token endpoint when its account has had its failed logins, or when the very same
// has just been refused. With a vault it counts those of all instances that share it. The zero guard keeps nothing.
type guard struct {
	budgets *pacing.Budgets
	budget  pacing.Budget
	account pacing.Account
	network pacing.Network
	passed  bool
	others  *elsewhere // nil without a vault
}

// elsewhere is what other instances know of a login.
type elsewhere struct {
	x *Exchanger
	q *Request

	failures      int
	networkFailed bool
}

// proof stands for the credentials and what an answer about them means, and from for where they come from. Most logins need neither,
// having no failures.
func (o *elsewhere) proof() string {
	return o.x.Vault.Digest("proof", fmt.Sprint(o.x.Name, "\x00", o.q.OnError, "\x00", strings.Join(o.q.rejection(), "\x00")))
}

func (o *elsewhere) from() string {
	return o.x.Vault.Digest("network", o.q.Account+"\x00"+o.q.From)
}

// protect has it guard the login of a request. Only names can be guessed at: whoever has a token or a session id has the account.
func (g *guard) protect(x *Exchanger, q *Request) {
	if !q.Guessable || x.Budgets == nil {
		return
	}
	g.budgets, g.budget, g.network = x.Budgets, x.Budget, q.Network
	if x.Vault != nil && (x.Budget.Failures > 0 || x.RememberRejected > 0) {
		g.others = &elsewhere{x: x, q: q}
	}
}

// maxLook is how long a storage may take that is looked at: who looks has a place at the token endpoint.
const maxLook = 2 * time.Second

// look looks at the failures of other instances. A failure says why the login is not sent.
func (g *guard) look(ctx context.Context) *token.Failure {
	o, budget := g.others, g.budget
	if o == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxLook)
	defer cancel()
	now, remember := time.Now(), o.x.RememberRejected
	failures, err := o.x.Vault.Failures(ctx, o.q.Account, now.Add(-max(budget.Window, remember)))
	if err != nil {
		return &token.Failure{Class: token.Unavailable, Cause: err.Error(), Fix: fixStorage}
	}
	if len(failures) == 0 {
		return nil
	}
	proof, from := o.proof(), o.from()
	slices.SortFunc(failures, func(a, b vault.Failure) int { return a.At.Compare(b.At) })
	counted := 0
	for _, f := range failures {
		if f.Proof == proof && now.Sub(f.At) < remember {
			return &token.Failure{Class: token.Rejected, Cause: "refused a moment ago, maybe at another instance"}
		}
		if now.Sub(f.At) >= budget.Window {
			continue
		}
		counted++
		if f.Elsewhere {
			o.failures++
			o.networkFailed = o.networkFailed || f.Network == from && counted >= budget.Failures-budget.Reserved()
		}
	}
	return nil
}

// guardedFor is for how long an account that has had its failed logins elsewhere is known to have had them, so that guesses at it do not
// hold places to find that out.
const guardedFor = 5 * time.Second

// open reports whether there is something left, so that it is worth waiting for a place.
func (g *guard) open() bool {
	if g.budgets == nil {
		return true
	}
	l := g.login()
	if o := g.others; o != nil {
		if _, guarded := o.x.State.guarded.Get(replay.Digest(l.Network)); guarded {
			return false
		}
	}
	return g.budgets.Left(l)
}

// login is what is guarded. It is made for each question, so that thousands who wait do not hold it.
func (g *guard) login() *pacing.Login {
	l := &pacing.Login{Budget: g.budget, Account: g.account, Network: g.account.From(g.network)}
	if g.others != nil {
		l.Elsewhere, l.NetworkFailed = g.others.failures, g.others.networkFailed
	}
	return l
}

// pass reports whether the login may be sent. If so, end has to be called.
func (g *guard) pass() bool {
	if g.budgets == nil {
		return true
	}
	l := g.login()
	if g.passed = g.budgets.Spend(l); !g.passed && l.Elsewhere > 0 {
		g.others.x.State.guarded.Put(replay.Digest(l.Network), struct{}{}, guardedFor)
	}
	return g.passed
}

func (g *guard) end(failed bool) {
	if g.passed {
		g.budgets.End(g.login(), failed)
	}
}

// noRejection begins a proof that is like no other.
const noRejection = "x"

// tell has the other instances know of a failed login. Where that fails, they count one less. What is told as no rejection here, being
// in doubt or by on_error, is not remembered there as one.
func (g *guard) tell(ctx context.Context, rejected bool) {
	if o := g.others; o != nil {
		now, proof := time.Now(), o.proof()
		if !rejected {
			proof = noRejection + proof
		}
		_ = o.x.Vault.Failed(ctx, o.q.Account, vault.Failure{At: now, Proof: proof, Network: o.from()},
			now.Add(-2*max(g.budget.Window, o.x.RememberRejected)))
	}
}
