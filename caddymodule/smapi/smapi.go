// Package smapi reads and writes the part of the Sonos Music API (SMAPI) that a move to OAuth needs: it finds
// the calls that concern an account's credentials in HTTP requests, and writes the answers and faults that
// players understand.
//
// It knows neither Caddy nor OAuth.
package smapi

import "time"

// The namespaces of the wire: SOAP 1.1 with document/literal bodies of Sonos's.
const (
	soapNamespace  = "http://schemas.xmlsoap.org/soap/envelope/"
	sonosNamespace = "http://www.sonos.com/Services/1.1"
)

// NeedsReauth is the literal that a household holds in place of a token for an account which waits for its
// listener to sign in again. It is no credential.
const NeedsReauth = "needs_reauth"

// Kind is the kind of an account's credentials, by the service's old kind of access.
type Kind string

const (
	// Login is a user name and a password: Session ID services, and those that send them with every call.
	Login Kind = "login"
	// SessionID is a session id from getSessionId.
	SessionID Kind = "session_id"
	// LoginToken is the token and the key of a DeviceLink account.
	LoginToken Kind = "login_token"
	// Anonymous is a player that has no account, only its device id.
	Anonymous Kind = "anonymous"
	// None is a call whose credentials are not looked at, because its listener is signing in.
	None Kind = "none"
)

// Call is one call about an account's credentials.
type Call struct {
	Method Method

	// Arrived is when its body began to be read.
	Arrived time.Time

	// HouseholdID names the home, and with a suffix a second account of it. It is opaque and has at most 255
	// characters. RefreshAuthToken may have one, GetSessionID never does, the others always do.
	HouseholdID string

	// LinkDeviceID is what a Poll sends back of the answer that its listener signs in by. It is a secret, not blank, and
	// blank for other methods.
	LinkDeviceID string

	Credentials Credentials

	// Bearing is set where the credentials are a token of ours, by Ours.Serve alone. Then the method may be any, the
	// credentials are a LoginToken, and HouseholdID is that of the loginToken where the method has none.
	Bearing *Bearing
}

// Credentials are those of a call's account, by its SOAP header. All values are as sent, never
// trimmed.
type Credentials struct {
	Kind Kind

	// DeviceID and DeviceProvider may be blank for every kind, and have at most 255 characters.
	DeviceID, DeviceProvider string

	// Username and Password are set, and not blank, for Login, except for that of GetSessionID, which is not
	// looked at.
	Username, Password string

	// SessionID is set, and not blank, for SessionID.
	SessionID string

	// Token and Key are those of LoginToken. Where the loginToken has no token it is that of the HTTP header
	// Authorization, with or without Bearer, and blank where there is none either. Key may be blank but for
	// RefreshAuthToken: players keep their privateKey there, and with it the OAuth refresh token.
	Token, Key string
}
