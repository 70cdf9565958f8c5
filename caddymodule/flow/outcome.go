package flow

import (
	"go.uber.org/zap/zapcore"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Outcome is what happened to a call.
type Outcome uint8

// The outcomes, in the order in which an operator looks for them.
const (
	undecided Outcome = iota
	Upgraded
	Refreshed
	Translated
	Expired
	LinkStarted
	LinkPending
	Linked
	LinkFailed
	Observed
	Reauthorized
	Rejected
	Doubted
	Guarded
	Unavailable
	Overloaded
	Misconfigured
	Refused
	Forwarded

	outcomes
)

// NumOutcomes is greater than every Outcome.
const NumOutcomes = int(outcomes)

// Row is all that there is to say of an outcome.
type Row struct {
	Name string

	// Reply is what the player gets. A rejection is told by its flow.
	Reply Reply

	// Level is that of its line in the log.
	Level zapcore.Level

	// Asked is true where the token endpoint may have been asked, so that it is timed.
	Asked bool

	// When and Gets say for the documents when it happens and what the player gets.
	When, Gets string
}

// table is the whole policy. A blank pair, NOT_LINKED_FAILURE and AuthTokenExpired cannot be taken back, so nothing but a
// definitive answer may lead to one.
var table = [outcomes]Row{
	undecided: {},
	Upgraded: {"upgraded", pairOfTokens, zapcore.InfoLevel, true,
		"tokens were issued, and fit",
		"200, the pair of tokens"},
	Refreshed: {"refreshed", pairOfTokens, zapcore.InfoLevel, true,
		"`refreshAuthToken` with `refresh_auth_tokens`",
		"200, the new pair; with the old `privateKey` where there is no new one"},
	Translated: {"translated", upstream, zapcore.DebugLevel, false,
		"a call of an upgraded home with `old_service`, put to the old service in its own terms",
		"what the old service answers"},
	Expired: {"expired", startUpgrade, zapcore.InfoLevel, false,
		"`getSessionId` with `expire_session_ids`; with `old_service` a call of a home whose tokens or old credentials are refused",
		"the fault `Client.AuthTokenExpired`"},
	LinkStarted: {"link_started", whereToSignIn, zapcore.InfoLevel, true,
		"`getAppLink` or `getDeviceLinkCode` with `sign_in`, and the server gave a code",
		"200, the address and the code"},
	LinkPending: {"link_pending", askAgain, zapcore.DebugLevel, true,
		"a poll with `sign_in`: the listener has not signed in yet, it is too early to ask, or the token endpoint has no answer now",
		"the fault `Client.NOT_LINKED_RETRY`"},
	Linked: {"linked", pairOfTokens, zapcore.InfoLevel, true,
		"a poll with `sign_in` that brought tokens, and they fit",
		"200, the pair of tokens"},
	LinkFailed: {"link_failed", linkFailed, zapcore.InfoLevel, true,
		"a poll with `sign_in`: the listener refused, the code has expired or was used, or it is another home's",
		"the fault `Client.NOT_LINKED_FAILURE`"},
	Observed: {"observed", upstream, zapcore.InfoLevel, false,
		"`mode observe`",
		"what the old service answers"},
	Reauthorized: {"reauthorize", blankPair, zapcore.InfoLevel, false,
		"no `exchange` for these credentials, a token that waits for its listener (`needs_reauth`), or `mode reauthorize`",
		"200, a blank pair: sign in again"},
	Rejected: {"rejected", blankPair, zapcore.InfoLevel, true,
		"the token endpoint refused the credentials for good (`invalid_grant`, `mfa_required`, ...), and the `fuse` is whole",
		"by `on_rejected`: 200 with a blank pair, or the fault `Client.NOT_LINKED_FAILURE`; for a refresh the fault `Client.AuthTokenExpired`"},
	Doubted: {"doubted", tryLater, zapcore.ErrorLevel, true,
		"the token endpoint refused the credentials for good, while the `fuse` is blown: most accounts are refused",
		"the fault `Server.ServiceUnavailable`"},
	Guarded: {"guarded", tryLater, zapcore.WarnLevel, false,
		"the account has had its `failed_logins`, and the token endpoint is not asked",
		"the fault `Server.ServiceUnavailable`"},
	Unavailable: {"unavailable", tryLater, zapcore.WarnLevel, true,
		"no connection, timeout, 5xx, 429, an answer that is no token response",
		"the fault `Server.ServiceUnavailable`"},
	Overloaded: {"overloaded", tryLater, zapcore.WarnLevel, true,
		"no place at the token endpoint within `timeout`",
		"the fault `Server.ServiceUnavailable`"},
	Misconfigured: {"misconfigured", tryLater, zapcore.ErrorLevel, true,
		"the client was refused, a redirect, 404, a missing field, a token that no player can take",
		"the fault `Server.ServiceUnavailable`"},
	Refused: {"refused", tryLater, zapcore.WarnLevel, false,
		"with `old_service` a request with a token of ours that is ambiguous, or no call of at most 64 KiB",
		"the fault `Server.ServiceUnavailable`"},
	Forwarded: {"forwarded", upstream, zapcore.DebugLevel, false,
		"everything else",
		"what the old service answers"},
}

// Row returns what there is to say of an outcome, which is nothing for one that is none.
func (o Outcome) Row() *Row {
	if o >= outcomes {
		o = undecided
	}
	return &table[o]
}

func (o Outcome) String() string { return o.Row().Name }

// MarshalText writes the name of an outcome, for JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads it. A name that is not known is no outcome.
func (o *Outcome) UnmarshalText(text []byte) error {
	*o = undecided
	for _, known := range Outcomes() {
		if known.String() == string(text) {
			*o = known
		}
	}
	return nil
}

// Outcomes are all of them, in their order.
func Outcomes() []Outcome {
	all := make([]Outcome, 0, outcomes)
	for o := undecided + 1; o < outcomes; o++ {
		all = append(all, o)
	}
	return all
}

// Reply is what a player gets.
type Reply struct {
	// Player says it in a few words, Then what a player does upon it.
	Player, Then string

	// Fault is the SOAP fault, nil for a pair of tokens.
	Fault *smapi.Fault
}

var (
	pairOfTokens  = Reply{"the pair of tokens", "plays on with them", nil}
	blankPair     = Reply{"a blank pair", "its listener signs in again", nil}
	whereToSignIn = Reply{"the address and the code", "has its listener sign in there, and polls", nil}
	upstream      = Reply{"what the old service answers", "goes on as before", nil}
	tryLater      = faulty(&smapi.ServiceUnavailable, "keeps what it has, and may ask again")
	startUpgrade  = faulty(&smapi.AuthTokenExpired, "upgrades, if it knows the new version")
	signInAgain   = faulty(&smapi.AuthTokenExpired, "its listener signs in again")
	askAgain      = faulty(&smapi.NotLinkedRetry, "asks again in some seconds, for seven minutes")
	linkFailed    = faulty(&smapi.LinkFailed, "stops asking; its listener begins again")
	linkAgain     = faulty(&smapi.NotLinkedFailure, "stops asking, until it is linked again")
)

func faulty(f *smapi.Fault, then string) Reply { return Reply{f.Code, then, f} }
