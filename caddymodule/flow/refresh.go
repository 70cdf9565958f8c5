package flow

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// refresh answers refreshAuthToken by the refresh grant, for every home: one that has been upgraded stays so.
var refresh = flow{
	method:  smapi.RefreshAuthToken,
	inForce: func(p *Policy) bool { return p.RefreshAuthTokens && (p.Mode != ModeReauthorize || p.SignIn != nil) },
	hint: func(p *Policy) string {
		if p.RefreshAuthTokens {
			return "It is a refreshAuthToken, which refresh_auth_tokens does not answer in mode reauthorize without sign_in."
		}
		return "It is a refreshAuthToken, which only refresh_auth_tokens answers."
	},
	decide: func(p *Policy, call *smapi.Call) Decision {
		switch {
		case waits(call):
			return decided(Rejected, causeWaits, saysWaits)
		case smapi.CheckToken(call.Credentials.Key) != nil:
			return decided(Forwarded, "", "its key is none that was issued here: blank, or more than a privateKey may be")
		}
		return ask(p.Refresh, "refresh_auth_tokens: the key is exchanged by the refresh grant, for every home")
	},
	issued: Refreshed,
	// To a refresh a blank pair has no meaning.
	rejected: func(*Policy) Reply { return signInAgain },
}
