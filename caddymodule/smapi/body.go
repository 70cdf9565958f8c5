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

// peek reads the body of a request, which it leaves as if unread, and tells with why if that was not all of it. It stops
// at MaxBody and at a first byte that begins no XML.
//
// A Read that waits for the sender cannot be called off: the errors of net/http's readers stay, and one of a connection
// ends its request. So bodyTimeout after the request arrived, while that Read goes on, then is called in a goroutine of its own
// to forward it, and peek returns late. Reading in a goroutine of its own instead would cost every call two hand-overs.
func (c *Candidate) peek(w http.ResponseWriter, arrived time.Time, then Then) (body []byte, late *lateRead, why error) {
	if c.ours != nil { // of others MayCall has told
		if why := mayRead(c.r); why != nil {
			return nil, nil, why
		}
	}
	r, p := c.r, peeks.Get().(*peeking)
	p.w, p.of, p.from, p.then = w, *c, r.Body, then
	p.begin(arrived)
	body, late, err := p.readAll(r.ContentLength)
	if late != nil {
		return nil, late, nil
	}
	r.Body = &replay{unread: body, err: err, rest: r.Body, lent: p.lent}
	p.w, p.of, p.from, p.then, p.lent, p.read = nil, Candidate{}, nil, nil, nil, nil
	peeks.Put(p)
	if err != io.EOF {
		return body, nil, otherBody
	}
	return body, nil, nil
}

// peeking is a body that is being read.
type peeking struct {
	w    http.ResponseWriter
	of   Candidate
	from io.ReadCloser
	then Then
	lent *buffer // what is read into, nil for one that is not kept

	mu    sync.Mutex
	timer *time.Timer // calls expire
	due   time.Time   // when timer does, as it was set for this body or one before; zero for never
	until time.Time   // bodyTimeout
	over  bool        // no Read is under way
	read  []byte      // so far
	late  *lateRead
}

// lateRead is a Read that was under way at bodyTimeout, and what is done about the request meanwhile.
type lateRead struct {
	done chan struct{} // Read has returned
	read []byte
	err  error

	forwarded chan struct{} // then has returned
	result    error
	panicked  any
}

// await returns what then has returned, or panics as it has.
func (l *lateRead) await() error {
	if <-l.forwarded; l.panicked != nil {
		panic(l.panicked)
	}
	return l.result
}

var peeks = sync.Pool{New: func() any {
	p := new(peeking)
	p.timer = time.AfterFunc(time.Hour, p.expire)
	p.timer.Stop()
	return p
}}

// begin has expire called at bodyTimeout. A timer that runs for a body that is over is left to run: most bodies come at once,
// and setting it costs more than reading them.
func (p *peeking) begin(arrived time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.over = arrived.Add(bodyTimeout), false
	if p.due.IsZero() || p.until.Before(p.due) {
		p.due = p.until
		p.timer.Reset(time.Until(p.due))
	}
}

// buffer is room for most bodies. It is kept for reuse once all of its body has been read again or dropped, and not
// before: a transport may read on after the handler has returned, and must not meet another listener's password there.
type buffer struct {
	room [2 << 10]byte
	used int // of room, at most
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func (b *buffer) done() {
	clear(b.room[:b.used])
	buffers.Put(b)
}

// expire has the request go on without the Read that is under way.
func (p *peeking) expire() {
	p.mu.Lock()
	p.due = time.Time{}
	left := time.Until(p.until)
	if !p.over && left > 0 {
		p.due = p.until
		p.timer.Reset(left)
	}
	if p.over || left > 0 || p.late != nil {
		p.mu.Unlock()
		return
	}
	l := &lateRead{done: make(chan struct{}), forwarded: make(chan struct{})}
	p.late = l
	read := p.read // which stays as it is: the last Read ends in l
	p.mu.Unlock()
	defer close(l.forwarded)
	defer p.hasten(l)
	defer func() { l.panicked = recover() }()
	p.of.r.Body = &replay{unread: read, late: l, rest: p.from}
	l.result = p.of.unread(p.then, len(read), slowBody)
}

// hasten ends the Read that is under way, as far as net/http lets us, when nobody needs it any more: who serves the
// request cannot return before.
func (p *peeking) hasten(l *lateRead) {
	select {
	case <-l.done:
		return
	default:
	}
	control := http.NewResponseController(p.w)
	switch {
	case p.of.r.ProtoMajor != 1:
		_ = p.from.Close()
	case l.panicked != nil:
		_ = control.SetReadDeadline(time.Now()) // after a panic the connection is closed
	default:
		_ = control.Flush() // with full duplex the player has its answer
	}
}

// firstRead is the most that is read at first, so that a length alone, without a body, reserves little memory.
const firstRead = 4 << 10

// readAll reads a body of that size, -1 where it is not known, until it is over or late.
func (p *peeking) readAll(size int64) (body []byte, late *lateRead, err error) {
	if size < 0 {
		size = 1 << 10
	}
	// One byte more than promised, so that the end is seen without another allocation.
	if size < int64(len(buffer{}.room)) {
		p.lent = buffers.Get().(*buffer)
		p.lent.used = int(size + 1)
		body = p.lent.room[:0:p.lent.used]
	} else {
		body = make([]byte, 0, min(size, firstRead)+1)
	}
	first, n := 0, 0
	for over := false; !over; {
		if len(body) == cap(body) {
			body = slices.Grow(body, max(int(size)+1-len(body), 1))
		}
		n, err = p.from.Read(body[len(body):min(cap(body), MaxBody+1)])
		body = body[:len(body)+n]
		first = skipBlank(body, first)
		noXML := len(body) >= len(byteOrderMark) && first < len(body) && body[first] != '<'
		over = err != nil || len(body) > MaxBody || noXML
		if late = p.note(body, over); late != nil {
			late.read, late.err = body[len(p.read):], err
			close(late.done)
			return nil, late, nil
		}
	}
	return body, nil, err
}

// note tells the one who looks at bodyTimeout what has been read, unless it has looked before.
func (p *peeking) note(body []byte, over bool) *lateRead {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.late == nil {
		p.read, p.over = body, over
	}
	return p.late
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
	lent   *buffer // of unread; nil for one that is not kept
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
			b.done()
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

// done lets go of what has been read.
func (b *replay) done() {
	if b.unread = nil; b.lent != nil {
		b.lent.done()
		b.lent = nil
	}
}

// take has the buffer of a body outlive its reading, for who goes on using it.
func take(r *http.Request) (lent *buffer) {
	if b, ok := r.Body.(*replay); ok {
		lent, b.lent = b.lent, nil
	}
	return lent
}

// Drop lets go of the body of a request that Read has returned a call for. It is for who answers the request: a Call
// holds nothing of the body, and may wait for seconds. From then on the body reads as if it had been read to its
// end, and closes as ever.
func Drop(r *http.Request) {
	if b, ok := r.Body.(*replay); ok && b.err == io.EOF {
		b.mu.Lock()
		b.done()
		b.mu.Unlock()
	}
}
