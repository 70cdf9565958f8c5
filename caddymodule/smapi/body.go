package smapi

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// MaxBody is how much of a request's body is read to find out what it is, in bytes. Real calls have some
// hundred bytes, a few thousand with a deviceCert.
const MaxBody = 64 << 10

// bodyTimeout is how long is waited for the whole body. Calls come in one piece; what comes slower is
// forwarded as slowly as it comes, and never waits in front of others for an answer.
var bodyTimeout = 3 * time.Second

// peek reads the body of r, which it leaves as if unread, and tells with why if that was not all of it. It stops
// at MaxBody, at a first byte that begins no XML, and at bodyTimeout.
func peek(r *http.Request) (body []byte, why error) {
	p := peeks.Get().(*peeking)
	p.from, p.size = r.Body, r.ContentLength
	p.timer.Reset(bodyTimeout)
	go p.run()
	select {
	case <-p.done:
		if p.timer.Stop() {
			defer p.release()
		}
	case <-p.timer.C:
		p.mu.Lock()
		if !p.over {
			p.late = &lateRead{done: make(chan struct{})}
		}
		p.mu.Unlock()
	}
	// From here on p.read and p.err stay as they are: the peek is over, or its last Read ends in p.late.
	r.Body = &replay{unread: p.read, err: p.err, late: p.late, rest: p.from}
	switch {
	case p.late != nil:
		return p.read, slowBody
	case p.err != io.EOF:
		return p.read, otherBody
	}
	return p.read, nil
}

// peeking is a body that is being read in a goroutine of its own: a Read that waits for the sender cannot be
// called off, because the errors of net/http's readers are there to stay.
type peeking struct {
	run   func() // p.loop
	done  chan struct{}
	timer *time.Timer

	from io.ReadCloser
	size int64

	mu   sync.Mutex
	read []byte
	err  error
	over bool      // no Read is under way
	late *lateRead // takes the Read that is under way, for which nobody waits any more
}

// lateRead is what a Read has returned, once it is done.
type lateRead struct {
	done chan struct{}
	read []byte
	err  error
}

// peeks are kept for reuse, but not their buffers: a transport may read on after the handler has returned, and
// must not meet another listener's password there.
var peeks = sync.Pool{New: func() any {
	p := &peeking{done: make(chan struct{}, 1), timer: time.NewTimer(bodyTimeout)}
	p.timer.Stop()
	p.run = p.loop
	return p
}}

func (p *peeking) release() {
	p.from, p.read, p.err, p.over = nil, nil, nil, false
	peeks.Put(p)
}

// firstRead is the most that is read at first, so that a length alone, without a body, reserves little memory.
const firstRead = 4 << 10

func (p *peeking) loop() {
	size := p.size
	if size < 0 {
		size = 1 << 10
	}
	// One byte more than promised, so that the end is seen without another allocation.
	body := make([]byte, 0, min(size, firstRead)+1)
	first := 0
	for over := false; !over; {
		if len(body) == cap(body) {
			body = slices.Grow(body, max(int(size)+1-len(body), 1))
		}
		n, err := p.from.Read(body[len(body):min(cap(body), MaxBody+1)])
		body = body[:len(body)+n]
		first = skipBlank(body, first)

		p.mu.Lock()
		if p.late != nil {
			p.late.read, p.late.err = body[len(p.read):], err
			close(p.late.done)
			p.mu.Unlock()
			return
		}
		p.read, p.err = body, err
		noXML := len(body) >= len(byteOrderMark) && first < len(body) && body[first] != '<'
		over = err != nil || len(body) > MaxBody || noXML
		p.over = over
		p.mu.Unlock()
	}
	p.done <- struct{}{}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// skipBlank returns where a body begins behind its byte order mark and blanks, of which those before first are
// known: its length if all of it is blank.
func skipBlank(body []byte, first int) int {
	if first == 0 && bytes.HasPrefix(body, byteOrderMark) {
		first = len(byteOrderMark)
	}
	for first < len(body) && isBlank(body[first]) {
		first++
	}
	return first
}

// replay is a body whose beginning has been read: that beginning again, then what ended it or the rest.
type replay struct {
	mu     sync.Mutex // of Read
	unread []byte
	err    error
	late   *lateRead // comes behind unread; nil without one
	joined bool      // late is among unread and err now
	rest   io.ReadCloser
}

func (b *replay) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.unread) == 0 && b.late != nil && !b.joined {
		<-b.late.done
		b.unread, b.err, b.joined = b.late.read, b.late.err, true
		b.late.read = nil
	}
	if len(b.unread) > 0 {
		n := copy(p, b.unread)
		if b.unread = b.unread[n:]; len(b.unread) == 0 {
			b.unread = nil
		}
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.rest.Read(p)
}

// Close does not wait for a Read that is under way, as net/http's bodies do.
func (b *replay) Close() error {
	if b.late != nil {
		select {
		case <-b.late.done:
		default:
			go func() { _ = b.rest.Close() }()
			return nil
		}
	}
	return b.rest.Close()
}

// Drop lets go of the body of a request that Read has returned a call for. It is for who answers the request: a Call
// holds nothing of the body, and may wait for seconds. From then on the body reads as if it had been read to its
// end, and closes as ever.
func Drop(r *http.Request) {
	if b, ok := r.Body.(*replay); ok && b.err == io.EOF {
		b.mu.Lock()
		b.unread = nil
		b.mu.Unlock()
	}
}
