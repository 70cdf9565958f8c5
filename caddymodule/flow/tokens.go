package flow

import (
	"cmp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// takeTokens takes the player's tokens from the answer, if they are there and fit.
func (p *Policy) takeTokens(d *Decision) {
	authToken, privateKey := d.Result.Fields.Get(p.AuthToken), d.Result.Fields.Get(p.PrivateKey)
	if privateKey == "" && d.Rule.GrantType == token.Refresh {
		privateKey = d.Call.Credentials.Key // RFC 6749 section 6: the old one stays good
	}
	privateKey = cmp.Or(privateKey, p.PrivateKeyFallback)
	// With an old service the tokens stay here, and the player gets what stands for them.
	if err := smapi.CheckToken(authToken); err != nil && (p.OldService == nil || err == smapi.ErrTokenBlank) {
		d.misconfigured("the answer's field for authToken: "+err.Error(), fixes[err])
		return
	}
	if privateKey == "" {
		d.misconfigured("the answer has no field for privateKey",
			"ask for a refresh token, often by scope offline_access, or give private_key a fallback")
		return
	}
	if err := smapi.CheckToken(privateKey); err != nil && !p.Vault { // which keeps it here
		d.misconfigured("the answer's field for privateKey: "+err.Error(), fixes[err])
		return
	}
	d.Outcome, d.AuthToken, d.PrivateKey = d.flow.issued, authToken, privateKey
}

var fixes = map[error]string{
	smapi.ErrTokenBlank:   "check auth_token and private_key against the fields of the token response",
	smapi.ErrTokenLong:    "have the authorization server issue opaque tokens, or tokens with fewer claims",
	smapi.ErrTokenNotText: "have the authorization server issue tokens of printable characters",
}

func (d *Decision) misconfigured(cause, fix string) {
	d.Outcome, d.Result.Cause, d.Result.Fix = Misconfigured, cause, fix
}
