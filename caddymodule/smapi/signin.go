package smapi

import (
	"bytes"
	"unicode/utf8"
)

// The calls of a listener who signs in. None has the credentials of an account that would matter: what is in the header is
// not looked at.
const (
	// GetAppLink and GetDeviceLinkCode ask where to sign in.
	GetAppLink        Method = "getAppLink"
	GetDeviceLinkCode Method = "getDeviceLinkCode"

	// Poll is getDeviceAuthToken with a linkCode: it asks whether the listener has signed in.
	Poll Method = "poll"
)

// SignsIn reports whether a method is one of these. Whose token a call of it has in its header says nothing: a listener who
// has to sign in again may send the old one.
func (m Method) SignsIn() bool { return m == GetAppLink || m == GetDeviceLinkCode || m == Poll }

// Bounds of what a poll can have, in characters. One with more is no call of anything that was given here.
const (
	// MaxLinkCode is how long a linkCode may be: longer ones broke apps.
	MaxLinkCode = 32
	// MaxLinkDeviceID is how long a linkDeviceId may be, by Sonos's Control API.
	MaxLinkDeviceID = 1024
)

var (
	getAppLink        = method{name: GetAppLink, read: readSignIn}
	getDeviceLinkCode = method{name: GetDeviceLinkCode, read: readSignIn}
)

func readSignIn(call *Call, d *document, _, el int) (err error) {
	call.Credentials.Kind = None
	if call.HouseholdID, err = d.household(el); err == nil && call.HouseholdID == "" {
		err = errNoHousehold
	}
	return err
}

var pollDeviceAuthToken = method{
	name: Poll,
	read: func(call *Call, d *document, header, el int) error {
		code, err := d.childText(el, linkCodeName)
		if err != nil {
			return err
		}
		id, err := d.childText(el, linkDeviceIDName)
		if err != nil {
			return err
		}
		id = bytes.TrimSpace(id)
		if code == nil || len(id) == 0 || utf8.RuneCount(code) > MaxLinkCode || len(id) > MaxLinkDeviceID {
			return poll
		}
		call.LinkDeviceID = string(id)
		return readSignIn(call, d, header, el)
	},
}
