package smapi

// Method is a SMAPI method. Poll is a form of one.
type Method string

// element is the name of a method on the wire.
func (m Method) element() Method {
	if m == Poll {
		return GetDeviceAuthToken
	}
	return m
}

// method is how a SMAPI method is read and answered.
type method struct {
	name Method

	// read reads what a call of it says: el is its element in the body, header that of the envelope, 0 where there
	// is none.
	read func(call *Call, d *document, header, el int) error

	// pair is its answer around the two tokens, nil where it is not answered with any.
	pair []string
}

// known are the methods that can be calls. Each has a file of its own.
var known = [...]*method{&getDeviceAuthToken, &pollDeviceAuthToken, &getSessionID, &refreshAuthToken, &getAppLink, &getDeviceLinkCode}

// methodOf finds a known method, nil where the name is none's.
func methodOf(name Method) *method {
	for _, m := range known {
		if m.name == name {
			return m
		}
	}
	return nil
}
