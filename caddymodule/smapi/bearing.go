package smapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Bearing is where a call has a token of ours, so that other credentials can be put in its place. It holds the body. It is not
// safe for concurrent use, but the requests that it translates are.
type Bearing struct {
	// Only tells that no more is known of the call: it is none of the methods that were asked for.
	Only bool

	// Token is the one of ours, and Key that of its loginToken; one of them may be another's or blank. They are secrets.
	Token, Key string

	body  []byte
	ascii bool // is declared, so that nothing else can be written

	lent  *buffer // of body; nil for one that is not kept
	made  bool    // there is a first
	first spliced // that was made out of body
	more  []*spliced

	name     []byte // of the element credentials, with its prefix
	from, to int    // of the loginToken, which is cut out
	at       int    // where the other credentials go
	empty    bool   // credentials is an empty element, whose "/>" is from at
}

// places finds where the account is in credentials, 0 where there is none, and where it should be: behind the elements that
// the schema has before it. Old services that go by the schema's order drop what is elsewhere.
func (b *Bearing) places(d *document, credentials, account int) {
	el := &d.elements[credentials]
	b.body, b.name = d.body, tagName(d.body[el.from:])
	if el.open == el.to {
		b.empty, b.at = true, int(el.to)-len("/>")
		return
	}
	last, unknown := 0, false // unknown: there is something between the last of them and the account
	for i := range d.children(credentials) {
		switch {
		case i == account:
			account = 0
			b.from, b.to = int(d.elements[i].from), int(d.elements[i].to)
			if !unknown {
				b.at = b.from
			}
		case d.elements[i].namespace == sonos && d.elements[i].name >= firstBefore && d.elements[i].name <= lastBefore:
			last, unknown, b.at = i, false, 0
		default:
			unknown = true
		}
	}
	switch {
	case b.at != 0:
	case last != 0:
		b.at = int(d.elements[last].to)
	case b.from != 0:
		b.at = b.from
	default:
		b.at = int(el.open)
	}
}

// tagName is the name in a start tag, with its prefix.
func tagName(tag []byte) []byte {
	r := reader{tag[len("<"):]}
	_, _, _ = r.name()
	return tag[len("<") : len(tag)-len(r.rest)]
}

// leaves reports whether a token of ours is left in the body without the account, or comes about where that is cut out.
func (b *Bearing) leaves(o Ours) bool {
	before, after := b.body[:b.from], b.body[b.to:]
	if o(before) || o(after) || mayHide(b.body) && o.hides(before, after) {
		return true
	}
	if len(before) == 0 || len(after) == 0 || endsToken(before[len(before)-1]) || endsToken(after[0]) {
		return false
	}
	seam := make([]byte, 0, 2*maxTail)
	seam = append(seam, before[max(0, len(before)-maxTail):]...)
	return o(append(seam, after[:min(len(after), maxTail)]...))
}

func endsToken(b byte) bool { return b == '<' || b == '>' || isBlank(b) }

// ErrNotWritable is a credential that XML cannot carry.
var ErrNotWritable = errors.New("the old credentials have characters that XML cannot carry")

// Translate has r make the same call with other credentials: those of the kind, and for a LoginToken with that householdId.
// Every other byte of the body stays. The header Authorization goes, and the length is set. It may be called for any number
// of clones of a request. Its error is ErrNotWritable, and then r is as it was.
func (b *Bearing) Translate(r *http.Request, c *Credentials, householdID string) error {
	parts, err := b.with(c, householdID)
	if err != nil {
		return err
	}
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	body := &b.first
	if b.made {
		body = new(spliced)
		b.more = append(b.more, body)
	}
	body.parts, b.made = parts, true
	r.Header.Del("Authorization")
	r.Header.Set("Content-Length", strconv.Itoa(length))
	r.ContentLength, r.TransferEncoding = int64(length), nil
	r.Body = body
	return nil
}

// Done lets go of the body, for reuse once all requests that Translate has made of it have been read. Translate must not be
// called any more.
func (b *Bearing) Done() {
	lent := b.lent
	if b.lent, b.body = nil, nil; lent != nil && !b.first.unread() && !slices.ContainsFunc(b.more, (*spliced).unread) {
		lent.done()
	}
}

// parts of a body, so that nothing of a call is copied.
type parts [4][]byte

// spliced is a body that is read in parts.
type spliced struct {
	mu    sync.Mutex
	parts parts
}

func (b *spliced) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, part := range b.parts {
		copied := copy(p[n:], part)
		n, b.parts[i] = n+copied, part[copied:]
	}
	if n == 0 {
		err = io.EOF
	}
	return n, err
}

func (b *spliced) unread() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.parts[:], func(part []byte) bool { return len(part) > 0 })
}

func (*spliced) Close() error { return nil }

// with is the body with other credentials.
func (b *Bearing) with(c *Credentials, householdID string) (parts, error) {
	prefix := ""
	if colon := bytes.IndexByte(b.name, ':'); colon >= 0 {
		prefix = string(b.name[:colon+1])
	}
	w := writer{out: make([]byte, 0, 128), prefix: prefix, ascii: b.ascii}
	if b.empty { // <credentials/> becomes <credentials>...</credentials>
		w.write(">")
	}
	switch c.Kind {
	case Login:
		w.open("login")
		w.element("username", c.Username)
		w.element("password", c.Password)
		w.shut("login")
	case SessionID:
		w.element("sessionId", c.SessionID)
	case LoginToken:
		w.open("loginToken")
		w.element("token", c.Token)
		if c.Key != "" {
			w.element("key", c.Key)
		}
		w.element("householdId", householdID)
		w.shut("loginToken")
	}
	if w.broken {
		return parts{}, ErrNotWritable
	}
	switch {
	case b.empty && len(w.out) == len(">"):
		return parts{b.body}, nil
	case b.empty:
		w.write("</", string(b.name), ">")
		return parts{b.body[:b.at], w.out, b.body[b.at+len("/>"):]}, nil
	case b.at <= b.from:
		return parts{b.body[:b.at], w.out, b.body[b.at:b.from], b.body[b.to:]}, nil
	}
	return parts{b.body[:b.from], b.body[b.to:b.at], w.out, b.body[b.at:]}, nil
}

// writer writes elements of Sonos's with a prefix that is in force.
type writer struct {
	out    []byte
	prefix string
	ascii  bool
	broken bool // something could not be written
}

func (w *writer) open(name string) { w.write("<", w.prefix, name, ">") }
func (w *writer) shut(name string) { w.write("</", w.prefix, name, ">") }

func (w *writer) write(texts ...string) {
	for _, text := range texts {
		w.out = append(w.out, text...)
	}
}

func (w *writer) element(name, text string) {
	w.open(name)
	for i, r := range text {
		switch {
		case r == '&':
			w.write("&amp;")
		case r == '<':
			w.write("&lt;")
		case r == '>':
			w.write("&gt;")
		case r == utf8.RuneError && strings.HasPrefix(text[i:], "\uFFFD"), !notXML(r) && r != '\r':
			if w.ascii && r >= utf8.RuneSelf {
				w.write("&#", strconv.Itoa(int(r)), ";")
			} else {
				w.out = utf8.AppendRune(w.out, r)
			}
		case r == '\r': // which readers would turn into a line feed
			w.write("&#13;")
		default:
			w.broken = true
		}
	}
	w.shut(name)
}
