package smapi

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// Bounds of what is parsed. A real call has some twenty elements, six deep, with one attribute or two.
const (
	maxMarkup = 512 // "<" and "=" each, which bounds elements and attributes before the parser sees them
	maxDepth  = 32
	maxID     = 255 // characters of an id, by Sonos's schema
)

// What keeps a request that resembles an upgrade call from being one.
var (
	errMalformed      = errors.New("malformed XML")
	errTooComplex     = errors.New("more markup than a call has")
	errEncoding       = errors.New("neither UTF-8 nor ASCII")
	errInstruction    = errors.New("a DTD or a processing instruction, which SOAP forbids")
	errNamespace      = errors.New("an undeclared or reserved namespace prefix")
	errAttribute      = errors.New("an attribute given twice")
	errNotSOAP        = errors.New("no SOAP 1.1 envelope")
	errEnvelope       = errors.New("an envelope that is not one header and one body")
	errStrayText      = errors.New("text or elements where none belong")
	errTwice          = errors.New("an element given twice")
	errBlankLinkCode  = errors.New("a blank linkCode")
	errNoHousehold    = errors.New("no householdId, or one too long")
	errNoCredentials  = errors.New("no credentials")
	errTwoCredentials = errors.New("more than one kind of credentials")
	errBlank          = errors.New("blank credentials")
)

// once are the names that a call has at most one of, wherever it stands and whatever its namespace: a
// second one might be the one that the old service looks at.
var once = [...]string{
	"credentials", "login", "loginToken", "sessionId", "username", "password", getDeviceAuthToken,
}

// parse reads an envelope. Everything that is not positively an upgrade call, understood by all readers in
// the same way, is an error, or nil where it is positively another call.
func parse(body []byte) (*Call, error) {
	root, err := readTree(body)
	if err != nil {
		return nil, err
	}
	if !is(root, soapNamespace, "Envelope") {
		return nil, errNotSOAP
	}
	parts, err := children(root)
	if err != nil {
		return nil, err
	}
	if len(parts) != 2 || !is(parts[0], soapNamespace, "Header") || !is(parts[1], soapNamespace, "Body") {
		return nil, errEnvelope
	}
	calls, err := children(parts[1])
	if err != nil || len(calls) != 1 {
		return nil, errEnvelope
	}
	if !is(calls[0], sonosNamespace, getDeviceAuthToken) {
		return nil, nil
	}
	if poll, err := hasLinkCode(root); poll || err != nil {
		return nil, err
	}
	if err := eachOnce(root); err != nil {
		return nil, err
	}
	household, err := childText(calls[0], "householdId")
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(household) == "" || utf8.RuneCountInString(household) > maxID {
		return nil, errNoHousehold
	}
	credentials, err := readCredentials(parts[0])
	if err != nil {
		return nil, err
	}
	return &Call{HouseholdID: household, Credentials: credentials}, nil
}

func readCredentials(header *etree.Element) (c Credentials, err error) {
	el, err := child(header, "credentials")
	if err != nil {
		return c, err
	}
	if el == nil {
		return c, errNoCredentials
	}
	if c.DeviceID, err = childText(el, "deviceId"); err != nil {
		return c, err
	}
	if c.DeviceProvider, err = childText(el, "deviceProvider"); err != nil {
		return c, err
	}
	c.Kind = Anonymous
	for _, kind := range []struct {
		name string
		read func(*etree.Element, *Credentials) error
	}{{"login", readLogin}, {"loginToken", readLoginToken}, {"sessionId", readSessionID}} {
		proof, err := child(el, kind.name)
		if err != nil {
			return c, err
		}
		if proof == nil {
			continue
		}
		if c.Kind != Anonymous {
			return c, errTwoCredentials
		}
		if err := kind.read(proof, &c); err != nil {
			return c, err
		}
	}
	return c, nil
}

func readLogin(el *etree.Element, c *Credentials) (err error) {
	c.Kind = Login
	if c.Username, err = childText(el, "username"); err != nil {
		return err
	}
	if c.Password, err = childText(el, "password"); err != nil {
		return err
	}
	if c.Username == "" || c.Password == "" {
		return errBlank
	}
	return nil
}

func readLoginToken(el *etree.Element, c *Credentials) (err error) {
	c.Kind = LoginToken
	if c.Token, err = childText(el, "token"); err != nil {
		return err
	}
	c.Key, err = childText(el, "key")
	return err
}

func readSessionID(el *etree.Element, c *Credentials) (err error) {
	c.Kind = SessionID
	if c.SessionID, err = text(el); err != nil {
		return err
	}
	if c.SessionID == "" {
		return errBlank
	}
	return nil
}

// hasLinkCode finds a linkCode of any namespace anywhere, because a lenient service might take it for one.
func hasLinkCode(root *etree.Element) (bool, error) {
	for el := range descendants(root) {
		if el.Tag != "linkCode" {
			continue
		}
		code, err := text(el)
		if err != nil {
			return false, err
		}
		if strings.TrimSpace(code) == "" {
			return false, errBlankLinkCode
		}
		return true, nil
	}
	return false, nil
}

func eachOnce(root *etree.Element) error {
	var seen [len(once)]bool
	for el := range descendants(root) {
		for i, name := range once {
			if el.Tag != name {
				continue
			}
			if seen[i] {
				return errTwice
			}
			seen[i] = true
		}
	}
	return nil
}

// readTree parses body as the strict XML with namespaces that SOAP is made of. The standard library's
// decoder, which etree uses, lets some documents pass that other parsers refuse or read otherwise.
func readTree(body []byte) (*etree.Element, error) {
	body = bytes.TrimPrefix(body, byteOrderMark)
	if !utf8.Valid(body) || bytes.IndexByte(body, 0) >= 0 {
		return nil, errEncoding
	}
	if bytes.Count(body, []byte("<")) > maxMarkup || bytes.Count(body, []byte("=")) > maxMarkup {
		return nil, errTooComplex
	}
	doc := etree.NewDocument()
	doc.ReadSettings = etree.ReadSettings{
		CharsetReader:          charsetReader(body),
		PreserveDuplicateAttrs: true,
		MaxDepth:               maxDepth,
	}
	if err := doc.ReadFromBytes(body); err != nil {
		return nil, errMalformed
	}
	var root *etree.Element
	for i, token := range doc.Child {
		switch t := token.(type) {
		case *etree.Element:
			if root != nil {
				return nil, errStrayText
			}
			root = t
		case *etree.CharData:
			if !t.IsWhitespace() {
				return nil, errStrayText
			}
		case *etree.ProcInst:
			if i != 0 || t.Target != "xml" {
				return nil, errInstruction
			}
		case *etree.Directive:
			return nil, errInstruction
		}
	}
	if root == nil {
		return nil, errMalformed
	}
	for el := range descendants(root) {
		if err := checkElement(el); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// charsetReader passes a declared US-ASCII on where body holds nothing else. The decoder asks it for
// everything but UTF-8.
func charsetReader(body []byte) func(string, io.Reader) (io.Reader, error) {
	return func(charset string, input io.Reader) (io.Reader, error) {
		notASCII := func(b rune) bool { return b >= utf8.RuneSelf }
		if !charsetAllowed(charset) || bytes.ContainsFunc(body, notASCII) {
			return nil, errEncoding
		}
		return input, nil
	}
}

func checkElement(el *etree.Element) error {
	if err := checkName(el.Space, el.Tag, el.NamespaceURI()); err != nil {
		return err
	}
	for i := range el.Attr {
		a := &el.Attr[i]
		switch {
		case a.Space == "xmlns":
			if a.Value == "" || a.Key == "xml" || a.Key == "xmlns" {
				return errNamespace
			}
		case a.Space != "xml":
			if err := checkName(a.Space, a.Key, a.NamespaceURI()); err != nil {
				return err
			}
		}
		for j := range i {
			b := &el.Attr[j]
			if a.Key == b.Key && (a.Space == b.Space || a.Space != "" && a.NamespaceURI() == b.NamespaceURI()) {
				return errAttribute
			}
		}
	}
	for _, token := range el.Child {
		switch token.(type) {
		case *etree.ProcInst, *etree.Directive:
			return errInstruction
		}
	}
	return nil
}

func checkName(prefix, local, namespace string) error {
	if prefix != "" && namespace == "" || strings.Contains(local, ":") {
		return errNamespace
	}
	return nil
}

// descendants yields el and all elements in it, in document order.
func descendants(el *etree.Element) func(yield func(*etree.Element) bool) {
	var visit func(*etree.Element, func(*etree.Element) bool) bool
	visit = func(el *etree.Element, yield func(*etree.Element) bool) bool {
		if !yield(el) {
			return false
		}
		for child := range el.ChildElementsSeq() {
			if !visit(child, yield) {
				return false
			}
		}
		return true
	}
	return func(yield func(*etree.Element) bool) { visit(el, yield) }
}

func is(el *etree.Element, namespace, local string) bool {
	return el.Tag == local && el.NamespaceURI() == namespace
}

// children returns the elements in el, which holds nothing else but white space and comments.
func children(el *etree.Element) ([]*etree.Element, error) {
	var found []*etree.Element
	for _, token := range el.Child {
		switch t := token.(type) {
		case *etree.Element:
			found = append(found, t)
		case *etree.CharData:
			if !t.IsWhitespace() {
				return nil, errStrayText
			}
		}
	}
	return found, nil
}

// child returns the one child of el that has this name of Sonos's, nil where there is none.
func child(el *etree.Element, name string) (*etree.Element, error) {
	all, err := children(el)
	if err != nil {
		return nil, err
	}
	var found *etree.Element
	for _, c := range all {
		if !is(c, sonosNamespace, name) {
			continue
		}
		if found != nil {
			return nil, errTwice
		}
		found = c
	}
	return found, nil
}

func childText(el *etree.Element, name string) (string, error) {
	c, err := child(el, name)
	if c == nil || err != nil {
		return "", err
	}
	return text(c)
}

// text returns all text in el. Element.Text ends at a comment, which would cut a password in two.
func text(el *etree.Element) (string, error) {
	var b strings.Builder
	for _, token := range el.Child {
		switch t := token.(type) {
		case *etree.CharData:
			b.WriteString(t.Data)
		case *etree.Element:
			return "", errStrayText
		}
	}
	return b.String(), nil
}
