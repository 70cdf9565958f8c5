package smapi

import (
	"bytes"
	"errors"
	"slices"
	"unicode/utf8"
)

const (
	// maxID is how many characters an id may have, by Sonos's schema.
	maxID = 255

	// maxCredential is how many a user name, a password, a session id, a token and a key may have.
	maxCredential = MaxToken
)

// What keeps a well-formed document that resembles a call from being one.
var (
	errNotSOAP        = errors.New("no SOAP 1.1 envelope")
	errEnvelope       = errors.New("an envelope that is not one body behind at most one header")
	errTwice          = errors.New("an element given twice")
	errBlankLinkCode  = errors.New("a blank linkCode")
	errNoHeader       = errors.New("no header")
	errNoHousehold    = errors.New("no householdId, or one too long")
	errNoCredentials  = errors.New("no credentials")
	errTwoCredentials = errors.New("more than one kind of credentials, or some out of place")
	errLongCredential = errors.New("credentials longer than 2048 characters")
	errLongDevice     = errors.New("a deviceId or deviceProvider that is too long")
	errNoKey          = errors.New("no key to refresh with")
	errBlank          = errors.New("blank credentials")
	errAction         = errors.New("a SOAPAction that names another method than the body")
)

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
	el := int(d.elements[content].first)
	if el == 0 || d.elements[el].next != 0 || d.strayText(content) {
		return nil, errEnvelope
	}
	for _, m := range known {
		if d.elements[el].namespace != sonos || string(d.local(el)) != string(m.name.element()) || !slices.Contains(methods, m.name) {
			continue
		}
		switch err := d.poll(); {
		case err == poll && m.name == GetDeviceAuthToken && slices.Contains(methods, Poll):
			continue
		case err != nil && (err != poll || m.name != Poll):
			return nil, err
		}
		if d.repeats() {
			return nil, errTwice
		}
		call := &Call{Method: m.name}
		if err := m.read(call, d, header, el); err != nil {
			return nil, err
		}
		return call, nil
	}
	return nil, otherMethod
}

// household returns the householdId in an element, blank where there is none.
func (d *document) household(parent int) (string, error) {
	text, err := d.childText(parent, householdIDName)
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

// envelope finds the header, 0 where there is none, and the body.
func (d *document) envelope() (header, body int, err error) {
	root := int(d.elements[0].first)
	if !d.is(root, soap, envelopeName) {
		return 0, 0, errNotSOAP
	}
	body = int(d.elements[root].first)
	if body != 0 && d.is(body, soap, headerName) {
		header, body = body, int(d.elements[body].next)
	}
	if body == 0 || d.elements[body].next != 0 || d.strayText(root) || !d.is(body, soap, bodyName) {
		return 0, 0, errEnvelope
	}
	return header, body, nil
}

// poll finds a linkCode of any namespace anywhere, because a lenient service might take it for one.
func (d *document) poll() error {
	if d.met[linkCodeName] == 0 {
		return nil
	}
	i := slices.IndexFunc(d.elements, func(e element) bool { return e.name == linkCodeName })
	if d.elements[i].first == 0 && len(bytes.TrimSpace(d.text(i))) == 0 {
		return errBlankLinkCode
	}
	return poll
}

// repeats reports whether a call has twice what it can have once, wherever that stands and whatever its namespace: the second
// one might be the one that the old service looks at. The same holds for calls.
func (d *document) repeats() bool {
	for _, n := range []name{credentialsName, usernameName, passwordName, linkCodeName, linkDeviceIDName, callName} {
		if d.met[n] > 1 {
			return true
		}
	}
	return false
}

// credentials reads the credentials of a header, and returns the element that they are in.
func (d *document) credentials(c *Credentials, header int) (account int, err error) {
	if header == 0 {
		return 0, errNoHeader
	}
	el, err := d.child(header, credentialsName)
	if err != nil {
		return 0, err
	}
	if el == 0 {
		return 0, errNoCredentials
	}
	err = d.childTexts(el, maxID, errLongDevice, field{deviceIDName, &c.DeviceID}, field{deviceProviderName, &c.DeviceProvider})
	if err != nil {
		return 0, err
	}
	c.Kind = Anonymous
	for i := range d.children(el) {
		if d.elements[i].namespace != sonos {
			continue
		}
		kind := d.elements[i].name.kind()
		if kind == "" {
			continue
		}
		if account != 0 {
			return 0, errTwoCredentials
		}
		c.Kind, account = kind, i
		if err := d.account(i, c); err != nil {
			return 0, err
		}
	}
	// One that is out of place, or of another namespace, might be the one that the old service looks at.
	if n := d.met[loginName] + d.met[loginTokenName] + d.met[sessionIDName]; n > 1 || n == 1 && account == 0 {
		return 0, errTwoCredentials
	}
	return account, nil
}

// account reads the credentials of an account.
func (d *document) account(el int, c *Credentials) error {
	switch c.Kind {
	case Login:
		return d.login(el, c)
	case LoginToken:
		return d.childTexts(el, maxCredential, errLongCredential, field{tokenName, &c.Token}, field{keyName, &c.Key})
	case SessionID:
		if d.elements[el].first != 0 {
			return errStrayText
		}
		if len(d.text(el)) == 0 {
			return errBlank
		}
		if utf8.RuneCount(d.text(el)) > maxCredential {
			return errLongCredential
		}
		c.SessionID = string(d.text(el))
	}
	return nil
}

// login reads the user name and the password in an element.
func (d *document) login(el int, c *Credentials) error {
	if err := d.childTexts(el, maxCredential, errLongCredential, field{usernameName, &c.Username}, field{passwordName, &c.Password}); err != nil {
		return err
	}
	if c.Username == "" || c.Password == "" {
		return errBlank
	}
	return nil
}

func (d *document) is(i int, in namespace, as name) bool {
	return d.elements[i].namespace == in && d.elements[i].name == as
}

// strayText reports whether there is more than white space between the elements in an element.
func (d *document) strayText(i int) bool { return d.elements[i].stray }

// child returns the one child that has this name of Sonos's, 0 where there is none.
func (d *document) child(parent int, as name) (int, error) {
	if d.strayText(parent) {
		return 0, errStrayText
	}
	found := 0
	for i := range d.children(parent) {
		if !d.is(i, sonos, as) {
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
func (d *document) childText(parent int, as name) ([]byte, error) {
	i, err := d.child(parent, as)
	if i == 0 || err != nil {
		return nil, err
	}
	if d.elements[i].first != 0 {
		return nil, errStrayText
	}
	return d.text(i), nil
}

type field struct {
	name name
	to   *string
}

// childTexts sets fields to the texts of children, of at most so many characters each.
func (d *document) childTexts(parent, most int, long error, fields ...field) error {
	for _, f := range fields {
		text, err := d.childText(parent, f.name)
		if err != nil {
			return err
		}
		if utf8.RuneCount(text) > most {
			return long
		}
		*f.to = string(text)
	}
	return nil
}
