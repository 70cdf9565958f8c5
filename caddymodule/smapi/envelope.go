package smapi

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// maxID is how many characters an id may have, by Sonos's schema.
const maxID = 255

// What keeps a well-formed document that resembles a call from being one.
var (
	errNotSOAP        = errors.New("no SOAP 1.1 envelope")
	errEnvelope       = errors.New("an envelope that is not one header and one body")
	errTwice          = errors.New("an element given twice")
	errBlankLinkCode  = errors.New("a blank linkCode")
	errNoHousehold    = errors.New("no householdId, or one too long")
	errNoCredentials  = errors.New("no credentials")
	errTwoCredentials = errors.New("more than one kind of credentials, or some out of place")
	errLongDevice     = errors.New("a deviceId or deviceProvider that is too long")
	errNoKey          = errors.New("no key to refresh with")
	errBlank          = errors.New("blank credentials")
	errAction         = errors.New("a SOAPAction that names another method than the body")
)

// once are the names that a call has at most one of, wherever it stands and whatever its namespace: a
// second one might be the one that the old service looks at.
var once = [...]string{"credentials", "username", "password", string(GetDeviceAuthToken)}

// parse reads an envelope. Everything that is not positively a call of one of the methods, understood by all
// readers in the same way, is an error: a NoCall where it is positively something else.
func parse(body []byte, methods []Method) (*Call, error) {
	s := scanners.Get().(*scanner)
	defer s.release()
	d, err := s.scan(body)
	if err != nil {
		return nil, err
	}
	header, content, err := d.envelope()
	if err != nil {
		return nil, err
	}
	el := d[content].first
	if el == 0 || d[el].next != 0 || d.strayText(content) {
		return nil, errEnvelope
	}
	for _, method := range methods {
		if !d.is(el, sonos, string(method)) {
			continue
		}
		if err := d.poll(); err != nil {
			return nil, err
		}
		if d.repeats() {
			return nil, errTwice
		}
		call := &Call{Method: method}
		if err := d.fill(call, header, el); err != nil {
			return nil, err
		}
		return call, nil
	}
	return nil, otherMethod
}

// fill reads what a call says, in the element el and in the header.
func (d document) fill(call *Call, header, el int) (err error) {
	c := &call.Credentials
	switch call.Method {
	case GetSessionID:
		*c, err = d.sessionLogin(el)
	case RefreshAuthToken:
		var loginToken int
		if *c, loginToken, err = d.credentials(header); err != nil {
			return err
		}
		if c.Kind != LoginToken || c.Key == "" {
			return errNoKey
		}
		call.HouseholdID, err = d.household(loginToken)
	default:
		if call.HouseholdID, err = d.household(el); err != nil {
			return err
		}
		if call.HouseholdID == "" {
			return errNoHousehold
		}
		*c, _, err = d.credentials(header)
	}
	return err
}

// household returns the householdId in an element, blank where there is none.
func (d document) household(parent int) (string, error) {
	text, err := d.childText(parent, "householdId")
	if err != nil {
		return "", err
	}
	if utf8.RuneCount(text) > maxID {
		return "", errNoHousehold
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return "", nil
	}
	return string(text), nil
}

// sessionLogin tells whether a getSessionId has a user name and a password, without handing them on.
func (d document) sessionLogin(el int) (Credentials, error) {
	for _, name := range [...]string{"username", "password"} {
		text, err := d.childText(el, name)
		if err != nil {
			return Credentials{}, err
		}
		if len(text) == 0 {
			return Credentials{}, errBlank
		}
	}
	return Credentials{Kind: Login}, nil
}

// envelope finds the header and the body.
func (d document) envelope() (header, body int, err error) {
	root := d[0].first
	if !d.is(root, soap, "Envelope") {
		return 0, 0, errNotSOAP
	}
	header = d[root].first
	body = d[header].next
	if header == 0 || body == 0 || d[body].next != 0 || d.strayText(root) ||
		!d.is(header, soap, "Header") || !d.is(body, soap, "Body") {
		return 0, 0, errEnvelope
	}
	return header, body, nil
}

// poll finds a linkCode of any namespace anywhere, because a lenient service might take it for one.
func (d document) poll() error {
	for i := range d {
		if string(d[i].local) != "linkCode" {
			continue
		}
		if d[i].first == 0 && len(bytes.TrimSpace(d[i].text)) == 0 {
			return errBlankLinkCode
		}
		return poll
	}
	return nil
}

func (d document) repeats() bool {
	var seen [len(once)]bool
	for i := range d {
		for n, name := range once {
			if string(d[i].local) != name {
				continue
			}
			if seen[n] {
				return true
			}
			seen[n] = true
		}
	}
	return false
}

// credentials reads the credentials of a header, and returns the element that proves the account beside them.
func (d document) credentials(header int) (c Credentials, proof int, err error) {
	el, err := d.child(header, "credentials")
	if err != nil {
		return c, 0, err
	}
	if el == 0 {
		return c, 0, errNoCredentials
	}
	if err := d.childTexts(el, field{"deviceId", &c.DeviceID}, field{"deviceProvider", &c.DeviceProvider}); err != nil {
		return c, 0, err
	}
	if utf8.RuneCountInString(c.DeviceID) > maxID || utf8.RuneCountInString(c.DeviceProvider) > maxID {
		return c, 0, errLongDevice
	}
	c.Kind = Anonymous
	for i := range d.children(el) {
		if d[i].namespace != sonos {
			continue
		}
		kind := kinds[string(d[i].local)]
		if kind == "" {
			continue
		}
		if proof != 0 {
			return c, 0, errTwoCredentials
		}
		c.Kind, proof = kind, i
		if err := d.proof(i, &c); err != nil {
			return c, 0, err
		}
	}
	if proofs := d.proofs(); proofs > 1 || proofs == 1 && proof == 0 {
		return c, 0, errTwoCredentials
	}
	return c, proof, nil
}

// proofs counts what may prove an account, wherever it stands and whatever its namespace: one that is out
// of place might be the one that the old service looks at.
func (d document) proofs() (n int) {
	for i := range d {
		if kinds[string(d[i].local)] != "" {
			n++
		}
	}
	return n
}

var kinds = map[string]Kind{"login": Login, "loginToken": LoginToken, "sessionId": SessionID}

func (d document) proof(el int, c *Credentials) error {
	switch c.Kind {
	case Login:
		if err := d.childTexts(el, field{"username", &c.Username}, field{"password", &c.Password}); err != nil {
			return err
		}
		if c.Username == "" || c.Password == "" {
			return errBlank
		}
	case LoginToken:
		return d.childTexts(el, field{"token", &c.Token}, field{"key", &c.Key})
	case SessionID:
		if d[el].first != 0 {
			return errStrayText
		}
		if c.SessionID = string(d[el].text); c.SessionID == "" {
			return errBlank
		}
	}
	return nil
}

func (d document) is(i int, in namespace, local string) bool {
	return d[i].namespace == in && string(d[i].local) == local
}

// strayText tells whether there is more than white space between the elements in an element.
func (d document) strayText(i int) bool { return len(bytes.Trim(d[i].text, blank)) > 0 }

// child returns the one child that has this name of Sonos's, 0 where there is none.
func (d document) child(parent int, name string) (int, error) {
	if d.strayText(parent) {
		return 0, errStrayText
	}
	found := 0
	for i := range d.children(parent) {
		if !d.is(i, sonos, name) {
			continue
		}
		if found != 0 {
			return 0, errTwice
		}
		found = i
	}
	return found, nil
}

// childText returns the text of that child exactly, nil where there is none.
func (d document) childText(parent int, name string) ([]byte, error) {
	i, err := d.child(parent, name)
	if i == 0 || err != nil {
		return nil, err
	}
	if d[i].first != 0 {
		return nil, errStrayText
	}
	return d[i].text, nil
}

type field struct {
	name string
	to   *string
}

func (d document) childTexts(parent int, fields ...field) error {
	for _, f := range fields {
		text, err := d.childText(parent, f.name)
		if err != nil {
			return err
		}
		*f.to = string(text)
	}
	return nil
}
