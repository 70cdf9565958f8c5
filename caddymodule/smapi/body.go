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

// reading is a body that is being read: until it is over, at MaxBody, or at a first byte that begins no XML.
//
// A Read that waits for the sender cannot be called off: the errors of net/http's readers stay, and one of a connection
// ends its request. So bodyTimeout after the request arrived, while that Read goes on, then is called in a goroutine of its own
// to forward it. Reading in a goroutine of its own instead would cost every call two hand-overs.
type reading struct {
	w    http.ResponseWriter
	then Then

	from  io.ReadCloser
	size  int // as far as it is known
	body  []byte
	first int     // where it begins, as far as it is known
	lent  *buffer // what it is read into, nil for one that is not kept

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

// candidates are kept for reuse.
var candidates = sync.Pool{New: func() any {
	c := new(Candidate)
	c.timer = time.AfterFunc(time.Hour, c.expire)
	c.timer.Stop()
	return c
}}

// release gives a candidate back that is not late.
func (c *Candidate) release() {
	c.r, c.methods, c.action, c.ours = nil, nil, "", nil
	c.w, c.then, c.from, c.body, c.lent, c.read = nil, nil, nil, nil, nil, nil
	candidates.Put(c)
}

// begin has expire called at bodyTimeout. A timer that runs for a body that is over is left to run: most bodies come at once,
// and setting it costs more than reading them.
func (c *Candidate) begin(arrived time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until, c.over = arrived.Add(bodyTimeout), false
	if c.due.IsZero() || c.until.Before(c.due) {
		c.due = c.until
		c.timer.Reset(time.Until(c.due))
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
func (c *Candidate) expire() {
	c.mu.Lock()
	c.due = time.Time{}
	left := time.Until(c.until)
	if !c.over && left > 0 {
		c.due = c.until
		c.timer.Reset(left)
	}
	if c.over || left > 0 || c.late != nil {
		c.mu.Unlock()
		return
	}
	l := &lateRead{done: make(chan struct{}), forwarded: make(chan struct{})}
	c.late = l
	read := c.read // which stays as it is: the last Read ends in l
	c.mu.Unlock()
	defer close(l.forwarded)
	defer c.hasten(l)
	defer func() { l.panicked = recover() }()
	c.r.Body = &replay{unread: read, late: l, rest: c.from}
	l.result = c.then(nil, len(read), c.unread(slowBody))
}

// hasten ends the Read that is under way, as far as net/http lets us, when nobody needs it any more: who serves the
// request cannot return before.
func (c *Candidate) hasten(l *lateRead) {
	select {
	case <-l.done:
		return
	default:
	}
	control := http.NewResponseController(c.w)
	switch {
	case c.r.ProtoMajor != 1:
		_ = c.from.Close()
	case l.panicked != nil:
		_ = control.SetReadDeadline(time.Now()) // after a panic the connection is closed
	default:
		_ = control.Flush() // with full duplex the player has its answer
	}
}

// firstRead is the most that is read at first, so that a length alone, without a body, reserves little memory.
const firstRead = 4 << 10

// reserve makes room for a body of that size, -1 where it is not known.
func (c *Candidate) reserve(size int64) {
	if size < 0 {
		size = 1 << 10
	}
	c.size, c.first = int(size), 0
	// One byte more than promised, so that the end is seen without another allocation.
	if size < int64(len(buffer{}.room)) {
		c.lent = buffers.Get().(*buffer)
		c.lent.used = c.size + 1
		c.body = c.lent.room[:0:c.lent.used]
	} else {
		c.body = make([]byte, 0, min(c.size, firstRead)+1)
	}
}

// readAll reads until the body is over or late. It has next to nothing on the stack: net/http needs much of it for a Read, and
// the stacks of those who then wait would be twice as large.
func (c *Candidate) readAll() (late *lateRead, err error) {
	for over := false; !over; {
		var n int
		n, err = c.from.Read(c.room())
		over, late = c.add(n, err)
	}
	return late, err
}

// room is what is read into next.
func (c *Candidate) room() []byte {
	if len(c.body) == cap(c.body) {
		c.body = slices.Grow(c.body, max(c.size+1-len(c.body), 1))
	}
	return c.body[len(c.body):min(cap(c.body), MaxBody+1)]
}

// add takes in what a Read has read, and reports whether it was the last one.
func (c *Candidate) add(n int, err error) (over bool, late *lateRead) {
	c.body = c.body[:len(c.body)+n]
	c.first = skipBlank(c.body, c.first)
	noXML := len(c.body) >= len(byteOrderMark) && c.first < len(c.body) && c.body[c.first] != '<'
	over = err != nil || len(c.body) > MaxBody || noXML
	if late = c.note(over); late != nil {
		late.read, late.err = c.body[len(c.read):], err
		close(late.done)
	}
	return over || late != nil, late
}

// note tells the one who looks at bodyTimeout what has been read, unless it has looked before.
func (c *Candidate) note(over bool) *lateRead {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.late == nil {
		c.read, c.over = c.body, over
	}
	return c.late
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
		r.Body = b.rest // which has been read to its end
	}
}
