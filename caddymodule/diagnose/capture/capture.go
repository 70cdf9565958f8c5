// Package capture reads captured requests, and says what can be shown of them and of the calls in them.
package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxCapture is how much of a capture is read, in bytes.
const maxCapture = 16 << 20

// Read reads a request line, headers and body as on the wire, or a SOAP envelope alone, of at most 16 MiB. What is odd
// about it becomes a note. Errors quote nothing, because a capture is full of secrets.
func Read(in io.Reader) (*Request, error) {
	content, err := io.ReadAll(io.LimitReader(in, maxCapture+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxCapture:
		return nil, errors.New("the file has more than 16 MiB, and no call has")
	}
	return parse(content)
}

// Request is a captured request, that can be made again and again. Read makes one.
type Request struct {
	// Facts are what can be shown of it, Notes what was odd about it.
	Facts Facts
	Notes []string

	method string
	header http.Header
	length int64 // of the body, -1 where it is chunked
	body   []byte
}

// Facts are what can be shown of a request before it is read.
type Facts struct {
	// Kind is "an HTTP request" or "a SOAP envelope".
	Kind   string `json:"kind"`
	Method string `json:"method"`

	// Headers are the names of all, Deciding the values of those by which it is decided.
	Headers  []string `json:"headers"`
	Deciding []Named  `json:"deciding,omitempty"`

	BodyBytes int `json:"body_bytes"`
}

// In their order on the wire.
var deciding = []string{"Content-Type", "Content-Encoding", "Soapaction"}

// Named is a parameter or a header, with a value that can be shown.
type Named struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (c *Request) describe(kind string) {
	f := Facts{Kind: kind, Method: shortened(c.method), Headers: slices.Sorted(maps.Keys(c.header)), BodyBytes: len(c.body)}
	for _, name := range deciding {
		for _, value := range c.header[name] {
			f.Deciding = append(f.Deciding, Named{strings.Replace(name, "Soapaction", "SOAPAction", 1), shortened(value)})
		}
	}
	c.Facts = f
}

// shortened is a text of the request that does nothing to a terminal.
func shortened(text string) string {
	const most = 64
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, text)
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}

// Make makes the request as it arrives, with a body that tells whether it was read.
func (c *Request) Make() (*http.Request, *Body) {
	body := &Body{Reader: bytes.NewReader(c.body)}
	return &http.Request{
		Method: c.method, URL: &url.URL{Path: "/"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: c.header.Clone(), ContentLength: c.length, Body: body,
	}, body
}

// Body is the body of a request that Make has made.
type Body struct {
	io.Reader
	WasRead bool
}

// Read reads of the body.
func (b *Body) Read(p []byte) (int, error) {
	b.WasRead = true
	return b.Reader.Read(p)
}

// Close does nothing.
func (b *Body) Close() error { return nil }

// errCapture quotes nothing, because a capture is full of secrets.
var errCapture = errors.New("the file is neither an HTTP request, as on the wire, nor a SOAP envelope")

// parse reads a request line, headers and body, or a body alone.
func parse(content []byte) (*Request, error) {
	if isEnvelope(content) {
		c := &Request{
			method: http.MethodPost, header: http.Header{"Content-Type": {"text/xml; charset=utf-8"}},
			length: int64(len(content)), body: content,
		}
		c.describe("a SOAP envelope")
		c.note("The headers are assumed: a POST with a player's Content-Type. There is no SOAPAction, so that the body says which method it is, and no Authorization.")
		return c, nil
	}
	head, body := splitCapture(content)
	readable := contentLength.ReplaceAll(head, []byte("Content-Length: 0")) // whatever it says
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(readable), strings.NewReader("\r\n\r\n"))))
	if err != nil {
		return nil, errCapture
	}
	c := &Request{method: r.Method, header: r.Header, body: body}
	if !bytes.Contains(head, []byte("\r\n")) {
		c.note("Its lines end in LF, and are taken for lines that end in CRLF.")
	}
	if len(r.TransferEncoding) > 0 {
		c.dechunk()
	} else {
		c.measure(contentLength.FindSubmatch(head))
	}
	c.describe("an HTTP request")
	return c, nil
}

// isEnvelope reports whether a file begins as XML, in whatever encoding.
func isEnvelope(content []byte) bool {
	content = bytes.TrimLeft(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")), " \t\r\n")
	return bytes.HasPrefix(content, []byte("<")) || bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff"))
}

var (
	blankLine     = regexp.MustCompile(`\r?\n\r?\n`)
	laterHTTP     = regexp.MustCompile(`^([!-~]+ [!-~]+ HTTP)/[23](\.0)?(\r?\n|$)`)
	contentLength = regexp.MustCompile(`(?im)^Content-Length:[ \t]*([^\r\n]*?)[ \t]*\r?$`)
)

// splitCapture finds the headers, in the spelling of HTTP/1.1, and the body.
func splitCapture(content []byte) (head, body []byte) {
	head = bytes.TrimLeft(content, "\r\n")
	if at := blankLine.FindIndex(head); at != nil {
		head, body = head[:at[0]], head[at[1]:]
	}
	return laterHTTP.ReplaceAll(bytes.TrimRight(head, "\r\n"), []byte("$1/1.1$3")), body
}

func (c *Request) note(format string, values ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, values...))
}

// dechunk takes the body out of its chunks, if it is in any: what shows traffic often shows it without.
func (c *Request) dechunk() {
	c.length = -1
	if body, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(c.body))); err == nil {
		c.body = body
		return
	}
	c.note("It is said to come in chunks and does not: the body is taken as it is.")
}

// measure tells how long the body is, whatever the Content-Length says.
func (c *Request) measure(said [][]byte) {
	has := len(c.body)
	length := -1
	if said != nil {
		if n, err := strconv.ParseUint(string(said[1]), 10, 31); err == nil {
			length = int(n)
		}
	}
	switch {
	case length >= 0 && length <= has && len(bytes.TrimSpace(c.body[length:])) == 0:
		c.body = c.body[:length] // and a line end that an editor has added
	case said == nil && has > 0:
		c.note("There is no Content-Length, without which a server sees no body: %d is assumed, which are all bytes that follow.", has)
	case said != nil && length >= 0:
		c.note("Content-Length is %d, and %d bytes follow: these are taken for the body.", length, has)
	case said != nil:
		c.note("Content-Length is no number: the %d bytes that follow are taken for the body.", has)
	}
	c.length = int64(len(c.body))
}
