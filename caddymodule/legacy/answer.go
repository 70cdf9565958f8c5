package legacy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// MaxHeld is how many bytes of an answer are held back. One that is longer is no fault, and goes on as it comes.
const MaxHeld = 64 << 10

// Answer is a ResponseWriter that holds an answer of status 500 back, which every SOAP fault has, until Release or Withdraw. All
// others go on as they come. NewAnswer makes one. It is for one goroutine, as a ResponseWriter is.
type Answer struct {
	Status int // 0 until there is one

	w      http.ResponseWriter
	before Fields // of w's header
	body   []byte
	state  state
	front  http.Header // of the announced trailers, what was in the header before the body
	flush  bool        // was asked for while it was held back

	fieldSpace [3]field // what before starts on
}

type state uint8

const (
	open state = iota // nothing but headers
	held
	sent
)

// NewAnswer returns an Answer that writes to w.
func NewAnswer(w http.ResponseWriter) *Answer {
	a := &Answer{w: w}
	a.before = Fields(a.fieldSpace[:]).Of(w.Header())
	return a
}

// Header is that of the answer.
func (a *Answer) Header() http.Header { return a.w.Header() }

// WriteHeader begins the answer, or hands on one of 1xx that comes before it.
func (a *Answer) WriteHeader(status int) {
	switch {
	case a.state != open:
	case status >= 100 && status < 200 && status != http.StatusSwitchingProtocols:
		a.w.WriteHeader(status)
	case status == http.StatusInternalServerError:
		a.Status, a.state, a.front = status, held, a.announced()
	default:
		a.send(status)
	}
}

func (a *Answer) send(status int) {
	a.Status, a.state = status, sent
	a.w.WriteHeader(status)
}

func (a *Answer) Write(p []byte) (int, error) {
	if a.state == open {
		a.WriteHeader(http.StatusOK)
	}
	if a.state == held {
		if len(a.body)+len(p) <= MaxHeld {
			a.body = append(a.body, p...)
			return len(p), nil
		}
		if err := a.Release(); err != nil {
			return 0, err
		}
	}
	return a.w.Write(p)
}

// FlushError sends what there is, unless it is held back.
func (a *Answer) FlushError() error {
	if a.state == open {
		a.WriteHeader(http.StatusOK)
	}
	if a.state == held {
		a.flush = true
		return nil
	}
	return http.NewResponseController(a.w).Flush()
}

// Flush is FlushError for who asks for an http.Flusher.
func (a *Answer) Flush() { _ = a.FlushError() }

// Unwrap is for http.ResponseController.
func (a *Answer) Unwrap() http.ResponseWriter { return a.w }

// Held reports whether the answer is held back.
func (a *Answer) Held() bool { return a.state == held }

// Release sends an answer that is held back. There is nothing to release of another.
func (a *Answer) Release() error {
	if a.state != held {
		return nil
	}
	body := a.body
	a.body = nil
	trailers := a.announced() // which came behind the body: in front of it is what was there then
	maps.DeleteFunc(a.w.Header(), func(name string, _ []string) bool { return trailers[name] != nil })
	maps.Copy(a.w.Header(), a.front)
	a.send(http.StatusInternalServerError)
	_, err := a.w.Write(body)
	if err == nil && a.flush {
		err = a.FlushError()
	}
	maps.Copy(a.w.Header(), trailers)
	return err
}

// announced returns those of the header that are announced as trailers.
func (a *Answer) announced() http.Header {
	found := make(http.Header)
	for _, names := range a.w.Header()["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if values, ok := a.w.Header()[name]; ok {
				found[name] = slices.Clone(values)
			}
		}
	}
	return found
}

// Withdraw leaves no trace of an answer that is held back.
func (a *Answer) Withdraw() { a.before.Restore(a.w.Header()) }

// Text is the body of an answer that is held back, without the compression that every HTTP client knows. It is nil where it
// cannot be read, or is more than 4 * MaxHeld.
func (a *Answer) Text() []byte {
	codings := a.w.Header()["Content-Encoding"]
	if len(codings) > 1 {
		return nil
	}
	coding := "identity"
	if len(codings) == 1 {
		coding = strings.ToLower(strings.TrimSpace(codings[0]))
	}
	var r io.Reader
	var err error
	switch coding {
	case "identity":
		return a.body
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(a.body))
	case "deflate":
		if r, err = zlib.NewReader(bytes.NewReader(a.body)); err != nil { // some servers send it without its frame
			r, err = flate.NewReader(bytes.NewReader(a.body)), nil
		}
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(r, 4*MaxHeld+1))
	if err != nil || len(text) > 4*MaxHeld {
		return nil
	}
	return text
}
