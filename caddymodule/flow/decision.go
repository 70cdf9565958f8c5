package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Decision is what was found out about one call, and what its player gets.
type Decision struct {
	Call    *smapi.Call
	Outcome Outcome
	Reason  Reason

	// Rule is how to find out, nil where the outcome is known without asking, and Result what came of it.
	Rule   *exchange.Rule
	Result exchange.Result

	// Others tells that the credentials may be others' to judge: where the token endpoint refuses them, the call is forwarded.
	Others bool

	// AuthToken and PrivateKey are the player's new tokens, blank where it gets none. They are secrets.
	AuthToken, PrivateKey string

	// Unsaved is why tokens that were issued are not written to the vault, nil if they are. Kept tells that they are in
	// memory until they can be, and were not handed out as without a vault.
	Unsaved error
	Kept    bool

	// Link is where the player's listener signs in, nil where that was not asked. UserIDHash stands for who has signed in,
	// blank for nobody.
	Link       *smapi.Link
	UserIDHash string

	// TokenOf is the home of the token of ours that the call has, where it is another than the call says. Differs is how.
	TokenOf string
	Differs households.Difference

	link *link // that a poll is about

	flow *flow
}

// Answer is the answer to a decided call whose Reply has no fault.
func (p *Policy) Answer(d *Decision) []byte {
	switch {
	case d.Link == nil && d.Call.Method == smapi.Poll:
		return smapi.SignedIn(d.AuthToken, d.PrivateKey, d.UserIDHash)
	case d.Link == nil:
		return smapi.Pair(d.Call.Method, d.AuthToken, d.PrivateKey)
	case d.Call.Method == smapi.GetAppLink:
		return smapi.AppLink(d.Link, p.SignIn.AppURLStringID)
	}
	return smapi.DeviceLinkCode(d.Link)
}

// Reason is why something was decided without asking.
type Reason struct {
	// Cause is for the log, blank where the outcome says it all.
	Cause string

	// Says is the whole sentence, which Policy.Says has for every decision.
	Says string
}

// decided is a decision that needs no exchange.
func decided(o Outcome, cause, says string) *Decision {
	return &Decision{Outcome: o, Reason: Reason{cause, says}}
}

// ask is a decision that an exchange has to find out.
func ask(x *exchange.Rule, says string) *Decision {
	return &Decision{Rule: x, Reason: Reason{Says: says}}
}

// waits tells of a call that its account waits for its listener to sign in again.
func waits(call *smapi.Call) bool {
	return call.Credentials.Kind == smapi.LoginToken && call.Credentials.Token == smapi.NeedsReauth
}

const (
	causeWaits = "the account waits for its listener"
	saysWaits  = "the token is the literal needs_reauth, which is no credential: the account waits for its listener"
)
