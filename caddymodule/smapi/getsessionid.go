package smapi

// GetSessionID begins a session at a Session ID service. As an answer to it, AuthTokenExpired is what
// makes players upgrade.
const GetSessionID Method = "getSessionId"

// The account is in the body: Sonos's own sample has no header at all.
var getSessionID = method{
	name: GetSessionID,
	read: func(call *Call, d *document, _, el int) error {
		call.Credentials.Kind = Login
		var account Credentials // is looked at, but not handed on
		return d.login(el, &account)
	},
}
