// Package smapi reads and writes the part of the Sonos Music API (SMAPI) that an account upgrade needs:
// it finds the upgrade call in an HTTP request and writes the answers and faults that players understand.
//
// It knows neither Caddy nor OAuth.
package smapi

import "time"

// The namespaces of the wire: SOAP 1.1 with document/literal bodies of Sonos's.
const (
	soapNamespace  = "http://schemas.xmlsoap.org/soap/envelope/"
	sonosNamespace = "http://www.sonos.com/Services/1.1"
)

// getDeviceAuthToken is the call that upgrades an account when it has no linkCode; with one it polls for a
// listener who is signing in.
const getDeviceAuthToken = "getDeviceAuthToken"

// NeedsReauth is the literal that a household holds in place of a token for an account which waits for its
// listener to sign in again. It is no credential.
const NeedsReauth = "needs_reauth"

// Kind says what an account proves itself with, by the service's old kind of access.
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
)

// Call is one upgrade call: getDeviceAuthToken without a linkCode.
type Call struct {
	// Arrived is when its body began to be read.
	Arrived time.Time

	// HouseholdID names the home, and with a suffix a second account of it. It is opaque, never blank, and
	// has at most 255 characters.
	HouseholdID string

	Credentials Credentials
}

// Credentials are what the SOAP header of a call holds. All values are as sent, never trimmed.
type Credentials struct {
	Kind Kind

	// DeviceID and DeviceProvider may be blank for every kind.
	DeviceID, DeviceProvider string

	// Username and Password are set, and not blank, for Login.
	Username, Password string

	// SessionID is set, and not blank, for SessionID.
	SessionID string

	// Token and Key may be set for LoginToken. Token is blank where the player sends it in the HTTP header
	// Authorization instead.
	Token, Key string
}
