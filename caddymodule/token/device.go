package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// DeviceCode is the grant type of RFC 8628 section 3.4.
const DeviceCode = "urn:ietf:params:oauth:grant-type:device_code"

// Authorization is what a device authorization endpoint answered (RFC 8628 section 3.2). Its codes are secrets.
type Authorization struct {
	DeviceCode, UserCode string

	// VerificationURI is where the listener signs in, and VerificationURIComplete the same with the user code in it, blank
	// where the server has none.
	VerificationURI, VerificationURIComplete string

	// Life is for how long the codes are good, at most 30 minutes, and Interval the least time between two questions, from
	// 1 s to 60 s.
	Life, Interval time.Duration
}

// Bounds of an Authorization, and what is taken where the server says nothing that makes sense.
const (
	maxDeviceLife   = 30 * time.Minute
	usualDeviceLife = 7 * time.Minute // for as long do players ask
	maxInterval     = time.Minute
	minInterval     = time.Second
	usualInterval   = 5 * time.Second // RFC 8628 section 3.2
)

// Authorize asks the device authorization endpoint for codes, by one POST before the deadline; g has its parameters, and
// its Type is not sent. Where nothing was sent, as when no connection could be made, it tries once more. The
// Authorization is whole where the verdict is Issued.
func (e *Endpoint) Authorize(deadline time.Time, g *Grant) (d Authorization, a Answer, v Verdict) {
	where, failed := e.locateDevice(deadline)
	if failed != nil {
		return d, *failed, judge(g, e.client.Auth, failed)
	}
	begun := time.Now()
	var form strings.Builder
	for _, p := range g.Params {
		writeParam(&form, p.Name, p.Value)
	}
	a, content := e.post(deadline, where.device, where.token, strings.TrimPrefix(form.String(), "&"), g.Header)
	a.Took = time.Since(begun)
	v = judge(&Grant{Params: g.Params, OnError: g.OnError}, e.client.Auth, &a)
	if v.Class == Rejected {
		v.Class, v.Fix = Misconfigured, "allow this client the device grant at the authorization server"
	}
	v.Cause = strings.ReplaceAll(v.Cause, "token endpoint", "device authorization endpoint")
	v.Fix = strings.ReplaceAll(v.Fix, "token_endpoint", "device_endpoint")
	if v.Class != Issued {
		return d, a, v
	}
	members := membersOf(content)
	d = Authorization{
		DeviceCode:              textOf(members["device_code"]),
		UserCode:                textOf(members["user_code"]),
		VerificationURI:         address(members["verification_uri"]),
		VerificationURIComplete: address(members["verification_uri_complete"]),
		Life:                    secondsOf(members["expires_in"], usualDeviceLife, minInterval, maxDeviceLife),
		Interval:                secondsOf(members["interval"], usualInterval, minInterval, maxInterval),
	}
	if d.DeviceCode == "" || d.UserCode == "" || d.VerificationURI == "" && d.VerificationURIComplete == "" {
		return d, a, v.is(Misconfigured, "the answer lacks device_code, user_code or verification_uri",
			"check device_endpoint against the server's documentation")
	}
	return d, a, v
}

// locateDevice returns the endpoints with a device one. The token endpoint is whom assertions are for, and is looked for
// only if there are any.
func (e *Endpoint) locateDevice(deadline time.Time) (*endpoints, *Answer) {
	if e.device != nil && (e.client.Auth != PrivateKeyJWT || e.client.Audience != "") {
		return &endpoints{e.device, e.device}, nil
	}
	where, failed := e.locate(deadline)
	if failed != nil {
		return nil, failed
	}
	if e.device != nil {
		return &endpoints{where.token, e.device}, nil
	}
	if where.device == nil {
		a := broken(0, Misconfigured, "the issuer's metadata has no device authorization endpoint",
			"enable the device grant at the authorization server, or give device_endpoint")
		return nil, &a
	}
	return where, nil
}

// deviceClass is what an error means of a device code, at whatever status: blank where it is about something else.
func deviceClass(code string) (class Class, cause string) {
	switch code {
	case "authorization_pending":
		return Pending, "the listener has not signed in yet"
	case "slow_down":
		return Pending, "the token endpoint was asked too early"
	case "access_denied", "authorization_declined":
		return Rejected, "the listener refused"
	case "expired_token", "code_expired":
		return Rejected, "the code has expired"
	case "invalid_grant", "bad_verification_code":
		return Rejected, "the code is used up, or not known"
	}
	return "", ""
}

// membersOf are those of an object, none of what is none.
func membersOf(content []byte) (members map[string]json.RawMessage) {
	_ = json.Unmarshal(bytes.TrimPrefix(content, byteOrderMark), &members)
	return members
}

// address is an absolute http or https URL without a user, who would pass for the host, blank where the member is none.
func address(member json.RawMessage) string {
	text := textOf(member)
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return ""
	}
	return text
}

// secondsOf reads a number of seconds within bounds, which may be a text.
func secondsOf(member json.RawMessage, usual, least, most time.Duration) time.Duration {
	number := string(member)
	if text := textOf(member); text != "" {
		number = text
	}
	seconds, err := strconv.ParseFloat(number, 64)
	if err != nil || !(seconds > 0) || math.IsInf(seconds, 0) {
		return usual
	}
	return max(least, time.Duration(min(seconds, most.Seconds())*float64(time.Second)))
}

// Claim returns a claim of an id_token that is a text or a whole number, blank where there is none. The signature is not
// looked at, which is right for a token that comes from the token endpoint itself over TLS (OpenID Connect Core section
// 3.1.3.7), and for no other.
func Claim(idToken, name string) string {
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !utf8.Valid(payload) {
		return ""
	}
	claims := membersOf(payload)
	if text := textOf(claims[name]); text != "" {
		return text
	}
	if n, err := strconv.ParseInt(string(claims[name]), 10, 64); err == nil {
		return strconv.FormatInt(n, 10)
	}
	return ""
}
