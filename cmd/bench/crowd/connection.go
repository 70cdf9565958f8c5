package crowd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// connection is one of HTTP/2 without TLS, which players share. It does no more than they need: the players run on the cores of
// the node that they measure, and an http.Transport costs as much as what is measured.
type connection struct {
	net.Conn
	address string
	ready   chan struct{} // there is something in out

	mu      sync.Mutex
	out     bytes.Buffer
	frames  *http2.Framer // writes to out; is read without mu
	fields  bytes.Buffer
	encoder *hpack.Encoder // writes to fields
	next    uint32
	window  int64      // how much may be sent
	opened  *sync.Cond // window has grown, or failed is set
	calls   map[uint32]*underWay
	failed  error
}

// underWay is a call without its answer.
type underWay struct {
	answer []byte
	done   chan error
}

// unlimited is how much may be received before the peer waits, which it never has to.
const unlimited = 1<<31 - 1

func connect(address string) (*connection, error) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: to, address: address, ready: make(chan struct{}, 1), next: 1, window: 65535, calls: make(map[uint32]*underWay)}
	c.opened = sync.NewCond(&c.mu)
	c.frames = http2.NewFramer(&c.out, bufio.NewReader(to))
	c.frames.SetReuseFrames()
	c.encoder = hpack.NewEncoder(&c.fields)
	c.out.WriteString(http2.ClientPreface)
	_ = c.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: unlimited})
	_ = c.frames.WriteWindowUpdate(0, unlimited-65535)
	go c.write()
	go func() { c.fail(c.read()) }()
	c.send()
	return c, nil
}

// ask makes a call, and waits for its answer.
func (c *connection) ask(action, call string) (answer string, err error) {
	u := &underWay{done: make(chan error, 1)}
	c.mu.Lock()
	for c.failed == nil && c.window < int64(len(call)) {
		c.opened.Wait()
	}
	if err := c.failed; err != nil {
		c.mu.Unlock()
		return "", err
	}
	c.window -= int64(len(call))
	c.calls[c.next] = u
	c.fields.Reset()
	for _, field := range [...][2]string{
		{":method", http.MethodPost}, {":scheme", "http"}, {":authority", c.address}, {":path", "/smapi"},
		{"content-type", contentType}, {"soapaction", action}, {"content-length", strconv.Itoa(len(call))},
	} {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: c.fields.Bytes(), EndHeaders: true})
	_ = c.frames.WriteData(c.next, true, []byte(call))
	c.next += 2
	c.mu.Unlock()
	c.send()
	err = <-u.done
	return string(u.answer), err
}

// send has what is in out written.
func (c *connection) send() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// write writes what calls leave in out, as many of them at once as there are.
func (c *connection) write() {
	var batch bytes.Buffer
	for range c.ready {
		c.mu.Lock()
		batch.Reset()
		_, _ = batch.ReadFrom(&c.out)
		failed := c.failed
		c.mu.Unlock()
		if failed != nil {
			return
		}
		if _, err := c.Write(batch.Bytes()); err != nil {
			c.fail(err)
			return
		}
	}
}

// read takes in answers until the connection ends.
func (c *connection) read() error {
	for {
		frame, err := c.frames.ReadFrame()
		if err != nil {
			return err
		}
		id := frame.Header().StreamID
		c.mu.Lock()
		u := c.calls[id]
		over, err := frame.Header().Flags.Has(http2.FlagDataEndStream), error(nil)
		switch f := frame.(type) {
		case *http2.DataFrame:
			if u != nil {
				u.answer = append(u.answer, f.Data()...)
			}
		case *http2.HeadersFrame: // their fields are of no interest
		case *http2.RSTStreamFrame:
			over, err = true, fmt.Errorf("the call is reset: %v", f.ErrCode)
		case *http2.WindowUpdateFrame:
			if over = false; id == 0 {
				c.window += int64(f.Increment)
				c.opened.Broadcast()
			}
		case *http2.SettingsFrame:
			if over = false; !f.IsAck() {
				_ = c.frames.WriteSettingsAck()
				c.send()
			}
		case *http2.GoAwayFrame:
			c.mu.Unlock()
			return errors.New("the node ends the connection")
		default:
			over = false
		}
		if over && u != nil {
			delete(c.calls, id)
			u.done <- err
		}
		c.mu.Unlock()
	}
}

// fail ends all calls.
func (c *connection) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return
	}
	c.failed = err
	for _, u := range c.calls {
		u.done <- err
	}
	c.opened.Broadcast()
	c.send() // so that write ends
}
