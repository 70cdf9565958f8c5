package smapi

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Ours reports whether a text has a token of ours in it: what stands for an upgraded account here, and must not reach the old
// service. It has to know a token by its first 64 bytes at most, whatever letters they end in, and none has blanks,
// "<" or ">" in it. It is called for every body that may be a call, and has to be cheap. A nil Ours knows none.
type Ours func(text []byte) bool

// Refuse is why a request must not be forwarded: it has a token of ours in it, and is no call that all readers
// understand in the same way.
type Refuse string

func (r Refuse) Error() string { return string(r) }

// Why a request is refused beside what makes a call ambiguous.
const (
	refuseBody     Refuse = "a token of ours in a request that is no call of at most 64 KiB"
	refusePlace    Refuse = "a token of ours out of place"
	refuseOthers   Refuse = "a token of ours beside other credentials"
	refuseMethod   Refuse = "a token of ours in an envelope without one call of Sonos's"
	refuseAction   Refuse = "a token of ours, and a SOAPAction that names another method than the body"
	refuseEncoding Refuse = "a token of ours in a body that is not in the encoding that is declared"
)

// ErrTokenInBody ends the body of a request in which a token of ours comes that could not be looked for before.
var ErrTokenInBody = errors.New("a token of ours in a body that is not understood")

// MayCall is like the function MayCall, and tells of the calls of every method whose credentials are a token of ours, too: Serve
// gives them a Bearing. A request that has such a token in it and is not understood is a Refuse, which must not be forwarded. Of one
// that is forwarded without having been read as a whole, the body ends with ErrTokenInBody where such a token comes. In XML a token is
// found as any reader of it would see it, whatever encoding it is in; in a compressed body it is not.
func (o Ours) MayCall(r *http.Request, methods []Method) *Candidate {
	c, _ := o.candidate(r, methods)
	return c
}

// Read is like the function Read, and finds the calls of every method whose credentials are a token of ours, too.
func (o Ours) Read(r *http.Request, methods []Method) (call *Call, peeked int, why error) {
	c, why := o.candidate(r, methods)
	if why != nil {
		return nil, 0, why
	}
	_ = c.Serve(nil, time.Now(), func(c *Call, n int, err error) error {
		call, peeked, why = c, n, err
		return nil
	})
	return call, peeked, why
}

func (o Ours) candidate(r *http.Request, methods []Method) (c *Candidate, why error) {
	action := Method("")
	switch {
	case o == nil:
		action, why = mayCall(r, methods)
	case r.ContentLength == 0 && len(r.Trailer) == 0 && !o.authorizes(r):
		why = noPost
	}
	if why != nil {
		return nil, why
	}
	c = candidates.Get().(*Candidate)
	c.r, c.methods, c.action, c.ours = r, methods, action, o
	return c, nil
}

// understandOurs is understand where there are tokens of ours.
func (c *Candidate) understandOurs(body []byte) (call *Call, why error) {
	o, r, methods := c.ours, c.r, c.methods
	action, named := actionOf(r.Header["Soapaction"], methods)
	if why = otherAction; named {
		call, why = understand(r, action, body, methods)
	}
	if clear := o(body) || o.authorizes(r); clear || mayHide(body) {
		bearing, refuse := o.find(r, body, clear)
		if bearing != nil {
			bearing.Bearing.lent = take(r)
		}
		switch {
		case refuse != nil:
			call, why = nil, refuse
		case bearing != nil && (action != "" && action.element() != bearing.Method || !named && slices.Contains(methods, bearing.Method)):
			call, why = nil, refuseAction
		case bearing != nil && call == nil:
			call, why = bearing, nil
			call.Bearing.Only = true
		case bearing != nil:
			call.Bearing = bearing.Bearing
		}
	}
	return call, why
}

// authorizes reports whether a token of ours stands in the header Authorization.
func (o Ours) authorizes(r *http.Request) bool {
	for _, value := range r.Header["Authorization"] {
		text := []byte(value)
		if o(text) {
			return true
		}
		for at := range min(len(text), maxFront) {
			if o(text[at:min(len(text), at+maxKnown)]) {
				return true
			}
		}
	}
	return false
}

const (
	// maxKnown is by how many bytes a token is known at most.
	maxKnown = 64

	// maxFront is how much can stand right in front of a token in Authorization without hiding it.
	maxFront = 64
)

// mayHide reports whether a body may have a token of ours in it by references, in pieces, or in UTF-16, which no player writes.
func mayHide(body []byte) bool {
	behind := bytes.TrimPrefix(body, byteOrderMark)
	behind = behind[min(len(behind), len("<?")):] // of a declaration
	return has(body, '&', '#') || has(body, '<', '!') || has(behind, '<', '?') || bytes.IndexByte(body, 0) >= 0
}

// hides reports whether some reader may see a token of ours in the parts of a body that is not understood here.
func (o Ours) hides(parts ...[]byte) bool {
	var p plain
	return slices.ContainsFunc(parts, func(part []byte) bool { return p.has(o, part) })
}

// has reports whether one byte stands behind another. It goes by the second, which hardly any body has.
func has(body []byte, first, second byte) bool {
	for from := 0; ; from++ {
		at := bytes.IndexByte(body[from:], second)
		if at < 0 {
			return false
		}
		if from += at; from > 0 && body[from-1] == first {
			return true
		}
	}
}

// find reads a call whose credentials are a token of ours, nil where there is none of ours in it. Clear tells that there is one to be
// seen, in the body or in the header Authorization.
func (o Ours) find(r *http.Request, body []byte, clear bool) (*Call, error) {
	s := scanners.Get().(*scanner)
	defer s.release()
	d, err := s.scan(body)
	if err != nil || !encodingFits(r.Header["Content-Type"], body) {
		if clear || o.hides(body) {
			return nil, refuseEnvelope(err)
		}
		return nil, nil
	}
	if !clear && !o.hides(body) {
		return nil, nil
	}
	call, err := o.bearing(d, r)
	if err != nil {
		return nil, refuseEnvelope(err)
	}
	call.Bearing.ascii = s.ascii || typeSaysASCII(r.Header["Content-Type"])
	return call, nil
}

// refuseEnvelope says of an envelope with a token of ours why it is not understood.
func refuseEnvelope(err error) error {
	if err == nil {
		return refuseEncoding
	}
	if refuse, ok := err.(Refuse); ok {
		return refuse
	}
	return Refuse("a token of ours in an envelope that is not understood: " + err.Error())
}

// bearing reads a document that has a token of ours in it, or the header Authorization has.
func (o Ours) bearing(d *document, r *http.Request) (*Call, error) {
	authorization := r.Header["Authorization"]
	header, content, err := d.envelope()
	if err != nil {
		return nil, err
	}
	el := int(d.elements[content].first)
	if el == 0 || d.elements[el].next != 0 || d.elements[el].namespace != sonos || d.strayText(content) {
		return nil, refuseMethod
	}
	if d.repeats() {
		return nil, errTwice
	}
	both := new(struct { // of one allocation
		Call
		bearing Bearing
	})
	call := &both.Call
	c := &call.Credentials
	account, err := d.credentials(c, header)
	bears := account != 0 && o.among(d, account)
	switch {
	case err != nil:
		return nil, err
	case c.Kind != LoginToken && c.Kind != Anonymous, d.met[usernameName] > 0, d.met[passwordName] > 0:
		return nil, refuseOthers
	case len(authorization) > 1:
		return nil, refuseOthers
	case len(authorization) == 1:
		token, err := bearer(authorization)
		if err != nil || token == "" || c.Token != "" && c.Token != token {
			return nil, refuseOthers
		}
		c.Kind, c.Token = LoginToken, token
		bears = bears || o([]byte(token))
	}
	if !bears {
		return nil, refusePlace
	}
	call.Method, call.Bearing = methodIn(d.local(el), r.Header["Soapaction"]), &both.bearing
	if account != 0 {
		if call.HouseholdID, err = d.household(account); err != nil {
			return nil, err
		}
	}
	credentials, err := d.child(header, credentialsName)
	if err != nil {
		return nil, err
	}
	call.Bearing.places(d, credentials, account)
	call.Bearing.Token, call.Bearing.Key = c.Token, c.Key
	if call.Bearing.leaves(o) {
		return nil, refusePlace
	}
	return call, nil
}

// methodIn is the method of an element: the one that a SOAPAction names, so that it takes no memory of its own, if they are the same.
func methodIn(element []byte, actions []string) Method {
	if len(actions) == 1 {
		if name := fragment(actions[0]); name == string(element) {
			return Method(name)
		}
	}
	return Method(element)
}

// among reports whether the token or the key of a loginToken is one of ours.
func (o Ours) among(d *document, loginToken int) bool {
	for i := range d.children(loginToken) {
		if n := d.elements[i].name; d.elements[i].namespace == sonos && (n == tokenName || n == keyName) && o(d.text(i)) {
			return true
		}
	}
	return false
}

// guard ends the body of r where a token of ours comes, or behind it in a trailer.
func (o Ours) guard(r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		g := &guarded{ReadCloser: r.Body, r: r, ours: o}
		if strings.Contains(strings.ToLower(r.Header.Get("Content-Type")), "xml") {
			g.xml = new(plain)
		}
		r.Body, g.begun = g, g.xml != nil
	}
}

// Met reports whether a token of ours has come in the body of a request that was forwarded without having been read.
func Met(body io.ReadCloser) bool {
	b, ok := body.(*guarded)
	return ok && b.met.Load()
}

// inTrailer reports whether a token of ours came behind a body.
func (o Ours) inTrailer(trailer http.Header) bool {
	for _, values := range trailer {
		if slices.ContainsFunc(values, func(value string) bool { return o([]byte(value)) }) {
			return true
		}
	}
	return false
}

// guarded is a body that is looked through while it is read. It is safe for concurrent use, since two proxies may read the same body
// when the first one answers early.
type guarded struct {
	io.ReadCloser
	r    *http.Request
	ours Ours
	met  atomic.Bool

	mu    sync.Mutex
	tail  []byte // the end of what was read
	xml   *plain // nil for what is none
	begun bool   // it is known whether it is

	goesOn [maxTail + maxKnown]byte // see mayEndIn

	held []byte // what was read last, and may be of a token that goes on
	free []byte // what was read before that
	err  error  // behind both
}

const (
	// maxTail is how much of what was read is looked at again with what comes next.
	maxTail = 128

	// maxHeld is how much is held back for a token that seems to have begun.
	maxHeld = 64 << 10
)

// begin tells by how a body begins whether some reader may take it for XML, whatever it is said to be.
func (b *guarded) begin(body []byte) {
	if b.begun {
		return
	}
	first := slices.IndexFunc(body, func(c byte) bool { return c != 0 && !isBlank(c) && bytes.IndexByte(marks, c) < 0 })
	if b.begun = first >= 0; b.begun && body[first] == '<' {
		b.xml = new(plain)
	}
}

// marks are of what byte order marks are made.
var marks = []byte("\xef\xbb\xbf\xfe\xff")

func (b *guarded) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for len(b.free) == 0 {
		if b.met.Load() {
			return 0, ErrTokenInBody
		}
		if b.err != nil {
			return 0, b.err
		}
		n, err = b.ReadCloser.Read(p)
		if n == 0 && err == nil {
			return 0, nil
		}
		keep := b.look(p[:n])
		switch {
		case b.met.Load() || err == io.EOF && b.ours.inTrailer(b.r.Trailer) || len(b.held) > maxHeld:
			b.met.Store(true)
			clear(p[:n])
			return 0, ErrTokenInBody
		case len(b.held) == 0 && (keep == 0 || err == io.EOF): // nearly always
			return n, err
		}
		b.hold(p[:n], keep, err)
		clear(p[:n])
	}
	n = copy(p, b.free)
	b.free = b.free[n:]
	return n, nil
}

// hold takes in what comes next, and has so much of the end wait for what comes then. What waits is of no token at the end of the body,
// and goes no further where the body breaks off.
func (b *guarded) hold(next []byte, keep int, err error) {
	all := append(b.held, next...)
	if b.err = err; err == io.EOF {
		keep = 0
	}
	free := len(all) - min(keep, len(all))
	b.free, b.held = all[:free], all[free:]
}

// look looks for a token of ours in what comes next, and returns how many bytes of all may be the beginning of one that goes on in what
// comes then.
func (b *guarded) look(next []byte) (begun int) {
	b.begin(next)
	b.tail = append(b.tail, next[:min(len(next), maxTail)]...)
	if b.ours(b.tail) || b.ours(next) || b.xml != nil && b.xml.has(b.ours, next) {
		b.met.Store(true)
		return 0
	}
	end := b.tail
	if len(next) > maxTail {
		end = next
	}
	b.tail = append(b.tail[:0], end[max(0, len(end)-maxTail):]...)
	switch {
	case b.xml != nil && b.xml.mayEndIn(b.ours, b.goesOn[:]):
		return math.MaxInt // how it is written can be of any length
	case !b.ours.mayEndIn(b.tail, b.goesOn[:]):
		return 0
	}
	for begun < min(len(b.tail), maxKnown) && !endsToken(b.tail[len(b.tail)-1-begun]) {
		begun++
	}
	return begun
}

// letters stand for how a token may go on.
var letters = bytes.Repeat([]byte("A"), maxKnown)

// mayEndIn reports whether a text of at most maxTail may end in the middle of a token of ours. It overwrites goesOn.
func (o Ours) mayEndIn(text, goesOn []byte) bool {
	return o(append(append(goesOn[:0], text...), letters...))
}
