package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// refresh answers refreshAuthToken by the refresh grant, for every home: one that has been upgraded stays so. The key of a
// home that households does not choose may be the old service's, so that one which is refused goes there.
var refresh = flow{
	method:  smapi.RefreshAuthToken,
	inForce: func(p *Policy) bool { return p.RefreshAuthTokens && (p.Mode != ModeReauthorize || p.SignIn != nil) },
	hint: func(p *Policy) string {
		if p.RefreshAuthTokens {
			return "It is a refreshAuthToken, which refresh_auth_tokens does not answer in mode reauthorize without sign_in."
		}
		return "It is a refreshAuthToken, which only refresh_auth_tokens answers."
	},
	decide: func(p *Policy, call *smapi.Call) *Decision {
		chosen := p.Households.Chooses(call.HouseholdID)
		switch {
		case waits(call) && !chosen:
			return decided(Forwarded, "", saysWaits+", and households "+p.Households.String()+" does not choose this home")
		case waits(call):
			return decided(Rejected, causeWaits, saysWaits)
		case smapi.CheckToken(call.Credentials.Key) != nil:
			return decided(Forwarded, "", "its key is none that was issued here: blank, or more than a privateKey may be")
		}
		if p.Vault {
			d := ask(p.Refresh, "refresh_auth_tokens: the vault's record has newer tokens, or they are got by the refresh grant; a key that the "+
				"vault does not know is tried there, and the call forwarded if it is refused")
			d.Others = true
			return d
		}
		if !chosen {
			d := ask(p.Refresh, "refresh_auth_tokens: the key is exchanged by the refresh grant; households "+p.Households.String()+
				" does not choose this home, so that a key which is refused may be the old service's, and the call goes there")
			d.Others = true
			return d
		}
		return ask(p.Refresh, "refresh_auth_tokens: the key is exchanged by the refresh grant, for every home")
	},
	issued: Refreshed,
	// To a refresh a blank pair has no meaning.
	rejected: func(*Policy) Reply { return signInAgain },
}
