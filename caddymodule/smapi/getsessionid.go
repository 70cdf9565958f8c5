package smapi

// GetSessionID begins a session at a Session ID service. As an answer to it, AuthTokenExpired is what
// makes players upgrade.
const GetSessionID Method = "getSessionId"

// The account is in the body: Sonos's own sample has no header at all.
var getSessionID = method{
	name: GetSessionID,
	read: func(d *document, _, el int) (call Call, err error) {
		var account Credentials // is looked at, but not handed on
		if err = d.login(el, &account); err != nil {
			return call, err
		}
		call.Credentials.Kind = Login
		return call, nil
	},
}
