package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Decision is what was found out about one call, and what its player gets.
type Decision struct {
	Call    *smapi.Call
	Outcome Outcome
	Reason  Reason

	// Exchange is how to find out, nil where the outcome is known without asking, and Result what came of it.
	Exchange *Exchange
	Result   Result

	// Others tells that the credentials may be others' to judge: where the token endpoint refuses them, the call is forwarded.
	Others bool

	// AuthToken and PrivateKey are the player's new tokens, blank where it gets none. They are secrets.
	AuthToken, PrivateKey string

	// Unsaved is why tokens that were issued are not written to the vault, nil if they are. Kept tells that they are in
	// memory until they can be, and were not handed out as without a vault.
	Unsaved error
	Kept    bool

	flow *flow
}

// Reason is why something was decided without asking.
type Reason struct {
	// Cause is for the log, blank where the outcome says it all.
	Cause string

	// Says is for whoever wants the whole sentence.
	Says string
}

// decided is a decision that needs no exchange.
func decided(o Outcome, cause, says string) Decision {
	return Decision{Outcome: o, Reason: Reason{cause, says}}
}

// ask is a decision that an exchange has to find out.
func ask(x *Exchange, says string) Decision { return Decision{Exchange: x, Reason: Reason{Says: says}} }

// waits tells of a call that its account waits for its listener to sign in again.
func waits(call *smapi.Call) bool {
	return call.Credentials.Kind == smapi.LoginToken && call.Credentials.Token == smapi.NeedsReauth
}

const (
	causeWaits = "the account waits for its listener"
	saysWaits  = "the token is the literal needs_reauth, which is no credential: the account waits for its listener"
)
