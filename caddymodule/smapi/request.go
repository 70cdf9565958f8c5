package smapi

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// NoCall is why a request is no call, where it does not even resemble one.
type NoCall string

func (n NoCall) Error() string { return string(n) }

// Why a request is forwarded without further ado.
const (
	noPost        NoCall = "no POST with a body of at most 64 KiB"
	otherAction   NoCall = "the SOAPAction of another method"
	otherType     NoCall = "no content type of XML in UTF-8"
	trailers      NoCall = "trailers"
	otherCoding   NoCall = "a content encoding"
	otherBody     NoCall = "no body of at most 64 KiB that begins as XML"
	slowBody      NoCall = "a body that is not whole within 3 s"
	otherMentions NoCall = "no mention of a method that is answered"
	otherMethod   NoCall = "the call of another method"
	poll          NoCall = "a linkCode: a listener who is signing in"
)

// Then goes on with a request that has been read: with the call that it makes, or with why it makes none. Peeked is how
// many bytes of its body have been read to find that out.
type Then func(call *Call, peeked int, why error) error

// Candidate is a request that may be a call, by its HTTP method and headers. It is good for one Serve, which gives it back.
type Candidate struct {
	r       *http.Request
	methods []Method
	action  Method // that the headers name, blank for none
	ours    Ours

	reading
}

// MayCall returns r as a candidate if it can be the call of one of these methods (Poll only beside GetDeviceAuthToken), by its HTTP
// method and headers alone, and nil otherwise.
func MayCall(r *http.Request, methods []Method) *Candidate {
	return Ours(nil).MayCall(r, methods)
}

// Serve finds the call that a request makes, calls then with it once, and returns what that returns.
//
// Otherwise then gets why it is none: a NoCall, or another error where it resembles such a call but is malformed or
// can be understood in more than one way. No error holds anything of the request. Either way the request is as it came and
// can be forwarded: what was read of its body is read again by the next handler, with the error that ended it.
//
// Serve waits for a body until 3 s after it arrived. Then it calls then in a goroutine of its own, and a panic there is its own.
// A Read of the body that is under way goes on, and the next handler gets what it returns; Serve returns when both are done.
// When then is, it closes the body or, over HTTP/1, flushes w.
//
// The call holds nothing of the body: see Drop.
func (c *Candidate) Serve(w http.ResponseWriter, arrived time.Time, then Then) error {
	if c.ours != nil { // of others MayCall has told
		if why := mayRead(c.r); why != nil {
			why = c.unread(why)
			c.release()
			return then(nil, 0, why)
		}
	}
	c.w, c.then, c.from = w, then, c.r.Body
	c.reserve(c.r.ContentLength)
	c.begin(arrived)
	late, err := c.readAll()
	if late != nil {
		return late.await()
	}
	call, peeked, why := c.understand(arrived, err)
	return then(call, peeked, why)
}

// understand finds the call in a body that has been read until that error. It leaves it as if unread, and gives c back.
func (c *Candidate) understand(arrived time.Time, err error) (call *Call, peeked int, why error) {
	body := c.body
	c.r.Body = &replay{unread: body, err: err, rest: c.from, lent: c.lent}
	switch {
	case err != io.EOF:
		why = c.unread(otherBody)
	case c.ours == nil:
		call, why = understand(c.r, c.action, body, c.methods)
	default:
		call, why = c.understandOurs(body)
	}
	if call != nil {
		call.Arrived = arrived
	}
	c.release()
	return call, len(body), why
}

// unread is why a request is no call whose body has not been read as a whole.
func (c *Candidate) unread(why error) error {
	if c.ours != nil && c.ours.authorizes(c.r) {
		return refuseBody
	}
	if c.ours != nil {
		c.ours.guard(c.r)
	}
	return why
}

// Read is MayCall and Serve for who has nothing to serve: it returns when the body is over, however long that takes. The body is
// not read at all where the HTTP method or the headers rule a call out.
func Read(r *http.Request, methods []Method) (call *Call, peeked int, why error) {
	return Ours(nil).Read(r, methods)
}

// understand returns the call that a body makes, which the headers of r say is of that method if it is not blank.
func understand(r *http.Request, action Method, body []byte, methods []Method) (call *Call, why error) {
	switch {
	case !mentions(body, methods):
		return nil, otherMentions
	case !slices.Contains(methods, Poll) && polls(body):
		return nil, poll
	case !encodingFits(r.Header["Content-Type"], body):
		return nil, errEncoding
	}
	if call, why = parse(body, methods); why != nil {
		return nil, why
	}
	if action != "" && action != call.Method.element() {
		return nil, errAction
	}
	if c := &call.Credentials; c.Kind == LoginToken && c.Token == "" {
		if c.Token, why = bearer(r.Header["Authorization"]); why != nil {
			return nil, why
		}
	}
	return call, nil
}

// mayCall tells by HTTP method and headers alone why r cannot be a call of one of the methods or, if the headers
// say so, of which one it can be. What rules out most requests comes first.
func mayCall(r *http.Request, methods []Method) (action Method, why error) {
	if !mayHaveBody(r) {
		return "", noPost
	}
	action, ok := actionOf(r.Header["Soapaction"], methods)
	if !ok {
		return "", otherAction
	}
	return action, mayBeXML(r)
}

// mayRead tells by HTTP method and headers alone why the body of r cannot be a call of any method.
func mayRead(r *http.Request) (why error) {
	if !mayHaveBody(r) {
		return noPost
	}
	return mayBeXML(r)
}

func mayHaveBody(r *http.Request) bool {
	return r.Method == http.MethodPost && r.ContentLength != 0 && r.ContentLength <= MaxBody
}

// mayBeXML tells by its headers why a body cannot be XML that is understood.
func mayBeXML(r *http.Request) (why error) {
	switch {
	case !typeAllows(r.Header["Content-Type"]):
		return otherType
	case !encodingAllows(r.Header["Content-Encoding"]):
		return otherCoding
	case len(r.Trailer) > 0:
		return trailers // net/http writes to them when it has read the body, beside whoever copies them
	}
	return nil
}

// actionOf finds the method that a SOAPAction names. Where there is none the body decides.
func actionOf(values []string, methods []Method) (action Method, ok bool) {
	if len(values) != 1 {
		return "", len(values) == 0
	}
	name := fragment(values[0])
	if name == "" {
		return "", true
	}
	for _, method := range methods {
		if strings.EqualFold(name, string(method.element())) {
			return method.element(), true
		}
	}
	return "", false
}

// fragment is that of a SOAPAction, which Sonos's own examples spell in more than one case.
func fragment(action string) string {
	name := strings.Trim(action, `" `)
	return name[strings.LastIndexByte(name, '#')+1:]
}

func mentions(body []byte, methods []Method) bool {
	for _, method := range methods {
		if method != Poll && bytes.Contains(body, []byte(method)) {
			return true
		}
	}
	return false
}

// bearer returns the token of an Authorization header: all of it where it has no scheme, as in Sonos's sample.
func bearer(values []string) (token string, err error) {
	if len(values) != 1 {
		return "", nil
	}
	if utf8.RuneCountInString(values[0]) > len("Bearer ")+maxCredential {
		return "", errLongCredential
	}
	words := strings.Fields(values[0])
	if len(words) == 2 && strings.EqualFold(words[0], "Bearer") {
		token = words[1]
	}
	if len(words) == 1 && !strings.EqualFold(words[0], "Bearer") {
		token = words[0]
	}
	if utf8.RuneCountInString(token) > maxCredential {
		return "", errLongCredential
	}
	return token, nil
}

// isUsual tells of nearly all content types that they are XML in UTF-8, so that it costs little.
func isUsual(contentType string) bool {
	return contentType == "text/xml; charset=utf-8" || contentType == `text/xml; charset="utf-8"`
}

// maxType is how many bytes a content type may have. Real ones have up to some hundred, with an action.
const maxType = 1 << 10

// typeAllows accepts XML in UTF-8 or ASCII, and a request that does not say. SOAP 1.2 has a type of its own.
func typeAllows(values []string) bool {
	if len(values) != 1 {
		return len(values) == 0
	}
	if isUsual(values[0]) {
		return true
	}
	if len(values[0]) > maxType {
		return false
	}
	media, params, _ := strings.Cut(values[0], ";")
	media = strings.TrimSpace(media)
	if !strings.EqualFold(media, "text/xml") && !strings.EqualFold(media, "application/xml") {
		return false
	}
	for params != "" {
		var param string
		param, params, _ = strings.Cut(params, ";")
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(name), "charset") && !charsetAllowed(strings.Trim(value, `" `)) {
			return false
		}
	}
	return true
}

// encodingFits reports whether a body is ASCII where its content type says so.
func encodingFits(types []string, body []byte) bool {
	return !typeSaysASCII(types) || !bytes.ContainsFunc(body, notASCII)
}

func typeSaysASCII(types []string) bool {
	return len(types) > 0 && !isUsual(types[0]) && strings.Contains(strings.ToLower(types[0]), ascii)
}

const ascii = "us-ascii"

func charsetAllowed(name string) bool {
	return strings.EqualFold(name, "utf-8") || strings.EqualFold(name, ascii)
}

func encodingAllows(values []string) bool {
	return len(values) == 0 || len(values) == 1 && strings.EqualFold(values[0], "identity")
}

// polls tells of most polls that they are ones without parsing them: where <linkCode> or <prefix:linkCode>
// is followed by a character. In a comment or a CDATA section that would be no linkCode; no player sends
// such a thing, and what is not sure to be an upgrade is forwarded.
func polls(body []byte) bool {
	before, after, found := bytes.Cut(body, []byte("linkCode>"))
	tag := bytes.LastIndexByte(before, '<')
	if !found || tag < 0 || len(after) == 0 || bytes.IndexByte([]byte(blank+"<&"), after[0]) >= 0 {
		return false
	}
	prefix, colon := bytes.CutSuffix(before[tag+1:], []byte(":"))
	return len(prefix) == 0 || colon && !bytes.ContainsFunc(prefix, notInName)
}

func notInName(r rune) bool { return r >= utf8.RuneSelf || nameBytes[r] == 0 }
