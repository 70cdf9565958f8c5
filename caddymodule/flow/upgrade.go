package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// upgrade answers getDeviceAuthToken without a linkCode: an account that is to move to OAuth.
var upgrade = flow{
	method:  smapi.GetDeviceAuthToken,
	inForce: func(*Policy) bool { return true },
	hint:    func(*Policy) string { return "" },
	decide: func(p *Policy, call *smapi.Call) *Decision {
		kind := call.Credentials.Kind
		x := p.Rules[kind]
		switch {
		case !p.Households.Chooses(call.HouseholdID):
			return decided(Forwarded, "", "households "+p.Households.String()+": this home is not among them")
		case p.Mode == ModeReauthorize:
			return decided(Reauthorized, "mode reauthorize", "mode reauthorize: every account gets a blank pair, and nobody is asked")
		case waits(call):
			return decided(Reauthorized, causeWaits, saysWaits)
		case x == nil:
			return decided(Reauthorized, "no exchange for these credentials",
				"there is no exchange for "+string(kind)+", so that the account gets a blank pair")
		case !x.HasCredentials(call):
			// Something in front may have taken the Authorization header. That is no reason to sign a home out.
			return decided(Forwarded, "", x.Lacks())
		}
		return ask(x, "")
	},
	asks: func(p *Policy, call *smapi.Call) string {
		return "households " + p.Households.String() + ": this home is among them; exchange " + string(call.Credentials.Kind)
	},
	issued: Upgraded,
	rejected: func(p *Policy) Reply {
		if p.OnRejected == NotLinked {
			return linkAgain
		}
		return blankPair
	},
}
