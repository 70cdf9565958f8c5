package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// session refuses getSessionId, upon which the players of a Session ID service upgrade.
var session = flow{
	method: smapi.GetSessionID,
	// A getSessionId does not say which home it is from: while some homes are to stay, all do.
	inForce: func(p *Policy) bool { return p.ExpireSessionIDs && p.Households == households.All },
	hint: func(p *Policy) string {
		if p.ExpireSessionIDs {
			return "It is a getSessionId, and expire_session_ids has no effect before households 100%."
		}
		return "It is a getSessionId, which only expire_session_ids answers."
	},
	decide: func(*Policy, *smapi.Call) *Decision {
		return decided(Expired, "", "expire_session_ids: sessions are refused, so that players upgrade")
	},
	issued:   Expired, // nothing is
	rejected: func(*Policy) Reply { return startUpgrade },
}
