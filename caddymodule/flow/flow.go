// Package flow is what becomes of each SMAPI method: a file for each flow, and one table of outcomes.
//
// A call's way is read (package smapi), decide, ask (package exchange), conclude, answer. It knows no Caddy.
package flow

import (
	"context"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// flow is what becomes of the calls of one method.
type flow struct {
	method smapi.Method

	// inForce reports whether calls are answered by a configuration; hint says which option would have it so.
	inForce func(*Policy) bool
	hint    func(*Policy) string

	// decide says what becomes of a call, as far as that is known without asking.
	decide func(*Policy, *smapi.Call) *Decision

	// asks says of a call that is exchanged why it is, for whoever wants the whole sentence. Nil is as decide says.
	asks func(*Policy, *smapi.Call) string

	// ask finds out the rest. Nil is by exchanging the call's credentials.
	ask func(context.Context, *Policy, *exchange.Exchanger, *Decision, *exchange.Request)

	// issued is the outcome where tokens were issued, and rejected what is told where credentials were.
	issued   Outcome
	rejected func(*Policy) Reply
}

// flows are all of them.
var flows = [...]*flow{&upgrade, &session, &refresh, &appLink, &deviceLinkCode, &poll}

// OnRejected is what a player is told when its credentials were refused for good.
type OnRejected string

// The values of OnRejected.
const (
	Reauthorize OnRejected = "reauthorize"
	NotLinked   OnRejected = "not_linked"
)

// Mode is what becomes of the calls.
type Mode string

// The values of Mode.
const (
	ModeUpgrade     Mode = "upgrade"
	ModeReauthorize Mode = "reauthorize"
	ModeObserve     Mode = "observe"
)

// Policy is what a configuration says of calls. All fields are required, but for the flags and the fallback.
type Policy struct {
	Mode              Mode
	Households        households.Percent
	OnRejected        OnRejected
	ExpireSessionIDs  bool
	RefreshAuthTokens bool

	// Vault tells that there is one.
	Vault bool

	// OldService says how calls of upgraded homes are put to the old service, nil if they are forwarded. It needs a vault.
	OldService *OldService

	// Rules say how each kind of credentials is exchanged, Refresh how tokens are refreshed.
	Rules   map[smapi.Kind]*exchange.Rule
	Refresh *exchange.Rule

	// SignIn is how listeners sign in, nil where they do not do so here.
	SignIn *SignIn

	// AuthToken and PrivateKey are the fields of a token response that become the player's; PrivateKeyFallback is the
	// privateKey where there is none, blank for no fallback.
	AuthToken, PrivateKey, PrivateKeyFallback string

	// Timeout is how long a call may take in all.
	Timeout time.Duration
}

// Methods are those that are answered.
func (p *Policy) Methods() (methods []smapi.Method) {
	for _, f := range flows {
		if f.inForce(p) {
			methods = append(methods, f.method)
		}
	}
	return methods
}

// AllMethods are those that some configuration answers.
func AllMethods() (methods []smapi.Method) {
	for _, f := range flows {
		methods = append(methods, f.method)
	}
	return methods
}

// Decide says what becomes of a call, as far as that is known without asking the token endpoint. A call of a method that
// has no flow is forwarded.
func (p *Policy) Decide(call *smapi.Call) *Decision {
	for _, f := range flows {
		if f.method == call.Method && f.inForce(p) {
			d := f.decide(p, call)
			d.Call, d.flow = call, f
			return d
		}
	}
	return &Decision{Call: call, Outcome: Forwarded}
}

// Says is the whole sentence about a decision.
func (p *Policy) Says(d *Decision) string {
	if d.Rule != nil && d.flow.asks != nil {
		return d.flow.asks(p, d.Call)
	}
	return d.Reason.Says
}

// Hint says which option would have the calls of a method answered that are not, blank where none would.
func (p *Policy) Hint(method smapi.Method) string {
	for _, f := range flows {
		if f.method == method && !f.inForce(p) {
			return f.hint(p)
		}
	}
	return ""
}

// Conclude says what the result of the exchange means for the player.
func (p *Policy) Conclude(d *Decision, r *exchange.Result) {
	d.Result = *r
	if r.Class == token.Issued {
		p.takeTokens(d)
		return
	}
	d.Outcome = outcomeOf(r.Class)
	if d.Others && d.Outcome == Rejected {
		d.Outcome = Forwarded
	}
}

// outcomeOf is what a result without tokens becomes.
func outcomeOf(class token.Class) Outcome {
	switch class {
	case token.Rejected:
		return Rejected
	case token.Misconfigured:
		return Misconfigured
	case token.Pending:
		return LinkPending
	case exchange.NotSent:
		return Overloaded
	case exchange.InDoubt:
		return Doubted
	case exchange.AccountGuarded:
		return Guarded
	}
	return Unavailable
}

// Reply is what the player of a decided call gets.
func (p *Policy) Reply(d *Decision) Reply {
	if d.Outcome == Rejected && d.flow != nil {
		return d.flow.rejected(p)
	}
	if d.Outcome == Expired && d.Call.Bearing != nil { // it is upgraded already
		return signInAgain
	}
	return d.Outcome.Row().Reply
}
