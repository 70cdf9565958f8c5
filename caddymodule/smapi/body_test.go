package smapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"weak"
)

// waitFor sets how long is waited for a body.
func waitFor(t *testing.T, d time.Duration) {
	t.Helper()
	was := bodyTimeout
	bodyTimeout = d
	t.Cleanup(func() { bodyTimeout = was })
}

// slow is a body whose rest comes when it is let go.
type slow struct {
	io.Reader
	rest   chan struct{} // to be closed
	closed atomic.Int32
	ended  chan struct{}
}

// slowly is a body of start, and of rest with its end as soon as it is let go.
func slowly(start, rest string, end error) *slow {
	b := &slow{rest: make(chan struct{}), ended: make(chan struct{})}
	b.Reader = io.MultiReader(
		strings.NewReader(start),
		readerFunc(func([]byte) (int, error) { <-b.rest; return 0, io.EOF }),
		strings.NewReader(rest),
		readerFunc(func([]byte) (int, error) { close(b.ended); return 0, end }),
	)
	return b
}

func (b *slow) Close() error { b.closed.Add(1); return nil }

func postSlow(b *slow) *http.Request {
	r := post(nil)
	r.Body, r.ContentLength = b, -1
	return r
}

func serve(w http.ResponseWriter, r *http.Request, then Then) error {
	c, why := Ours(nil).candidate(r, upgrades)
	if why != nil {
		return then(nil, 0, why)
	}
	return c.Serve(w, time.Now(), then)
}

// serveSlowly serves a request whose body is late.
func serveSlowly(t *testing.T, r *http.Request, forward func()) {
	t.Helper()
	calls := 0
	if err := serve(httptest.NewRecorder(), r, func(call *Call, _ int, why error) error {
		if calls++; call != nil || why != slowBody {
			t.Errorf("%v, %v", call, why)
		}
		forward()
		return errForwarded
	}); err != errForwarded || calls != 1 {
		t.Errorf("%d times, %v", calls, err)
	}
}

var errForwarded = errors.New("forwarded")

func TestASlowBodyIsForwardedAsItComes(t *testing.T) {
	waitFor(t, time.Millisecond)
	upgrade := string(requestFile(t, "upgrade.xml"))
	broken := errors.New("the connection broke")
	for _, start := range []int{0, 1, 100, len(upgrade) - 1, len(upgrade)} {
		for _, end := range []error{io.EOF, broken} {
			b := slowly(upgrade[:start], upgrade[start:], end)
			r := postSlow(b)
			serveSlowly(t, r, func() {
				got := make([]byte, start)
				if n, err := io.ReadFull(r.Body, got); err != nil {
					t.Errorf("of %d bytes %d came, and %v", start, n, err)
				}
				close(b.rest)
				rest, err := io.ReadAll(r.Body)
				if err == nil {
					err = io.EOF
				}
				if string(got)+string(rest) != upgrade || err != end {
					t.Errorf("%d bytes: forwarded as %q, %v", start, string(got)+string(rest), err)
				}
				if _ = r.Body.Close(); b.closed.Load() != 1 {
					t.Errorf("closed %d times", b.closed.Load())
				}
			})
		}
	}
}

func TestAPanicOfWhoForwardsASlowBodyIsThatOfWhoServes(t *testing.T) {
	waitFor(t, time.Millisecond)
	b := slowly("<x>", "</x>", io.EOF)
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("another panic, or none")
		}
	}()
	_ = serve(httptest.NewRecorder(), postSlow(b), func(*Call, int, error) error {
		defer close(b.rest)
		panic(http.ErrAbortHandler)
	})
}

func TestABodyThatComesInPiecesInTimeIsACall(t *testing.T) {
	waitFor(t, time.Hour)
	b := slowly("", string(requestFile(t, "upgrade.xml")), io.EOF)
	b.Reader = iotest.OneByteReader(b.Reader)
	close(b.rest)
	if call, _, err := Read(postSlow(b), upgrades); call == nil {
		t.Error(err)
	}
}

func TestClosingDoesNotWaitForABodyThatIsSlow(t *testing.T) {
	waitFor(t, time.Millisecond)
	b := slowly("<x>", "</x>", io.EOF)
	r := postSlow(b)
	serveSlowly(t, r, func() {
		// As net/http's bodies: Close waits for the Read that is under way.
		locked := &lockedBody{slow: b}
		locked.Lock()
		r.Body.(*replay).rest = locked
		_ = r.Body.Close()
		if b.closed.Load() != 0 {
			t.Error("closed beside a Read")
		}
		close(b.rest)
		locked.Unlock()
	})
	for b.closed.Load() == 0 {
		runtime.Gosched()
	}
}

type lockedBody struct {
	sync.Mutex
	*slow
}

func (b *lockedBody) Close() error {
	b.Lock()
	defer b.Unlock()
	return b.slow.Close()
}

func TestASlowBodyThatNobodyReadsLeavesNothingBehind(t *testing.T) {
	waitFor(t, time.Millisecond)
	before := runtime.NumGoroutine()
	for range 20 {
		b := slowly("<x>", "", io.EOF)
		serveSlowly(t, postSlow(b), func() { close(b.rest) })
	}
	for runtime.NumGoroutine() > before {
		runtime.Gosched()
	}
}

func TestWhatComesLateIsReadIntoABufferOfItsOwn(t *testing.T) {
	waitFor(t, time.Millisecond)
	const secret = "<the password of somebody>"
	b := slowly("<x>", secret, io.EOF)
	r := postSlow(b)
	serveSlowly(t, r, func() {
		waitFor(t, time.Hour)
		var others []io.Reader
		upgrade := requestFile(t, "upgrade.xml")
		for range 100 {
			other := post(upgrade)
			if call, _, err := Read(other, upgrades); call == nil {
				t.Error(err)
			}
			others = append(others, other.Body)
		}
		close(b.rest)
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != "<x>"+secret {
			t.Errorf("forwarded as %q, %v", got, err)
		}
		for _, other := range others {
			if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, upgrade) {
				t.Errorf("another is forwarded as %q, %v", got, err)
			}
		}
	})
}

// The timer of one body runs on for the next ones.
func TestABodyIsLateByItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := candidates.New().(*Candidate)
		begin := func(arrived time.Time) (late chan time.Duration) {
			late = make(chan time.Duration, 1)
			r := post(nil)
			c.r, c.from = r, r.Body
			c.then = func(*Call, int, error) error {
				late <- time.Since(arrived)
				return nil
			}
			c.begin(arrived)
			return late
		}
		end := func(late chan time.Duration) {
			if len(late) > 0 || c.note(true) != nil {
				t.Error("late")
			}
		}
		const most = 3*time.Second - 1
		for range 3 {
			late := begin(time.Now())
			time.Sleep(most)
			end(late)
		}
		time.Sleep(time.Minute)
		for _, ago := range []time.Duration{0, 2 * time.Second} {
			end(begin(time.Now()))
			time.Sleep(time.Second)
			late := begin(time.Now().Add(-ago))
			if took := <-late; took != bodyTimeout {
				t.Errorf("late after %v", took)
			}
			close(c.late.done)
			c = candidates.New().(*Candidate)
		}
	})
}

func TestASlowBodyIsForwardedOverEveryProtocol(t *testing.T) {
	waitFor(t, 20*time.Millisecond)
	const start, rest = "<getDeviceAuthToken>", "</getDeviceAuthToken>"
	given := make(chan error, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = serve(w, r, func(_ *Call, _ int, err error) error {
			given <- err
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("X-Proto", r.Proto)
			_, err = w.Write(append(body, r.Trailer.Get("X-Sum")...))
			return err
		})
	}))
	serveBoth(server)
	defer server.Close()
	for _, http2 := range []bool{false, true} {
		transport := transportOver(http2)
		defer transport.CloseIdleConnections()
		for name, change := range map[string]func(*http.Request){
			"of a length":   func(r *http.Request) { r.ContentLength = int64(len(start + rest)) },
			"of no length":  func(r *http.Request) { r.ContentLength = -1 },
			"expecting":     func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
			"with trailers": func(r *http.Request) { r.ContentLength, r.Trailer = -1, http.Header{"X-Sum": {"42"}} },
		} {
			body, client := io.Pipe()
			r, err := http.NewRequest(http.MethodPost, server.URL, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "text/xml")
			change(r)
			want := slowBody
			if r.Trailer != nil {
				want = trailers
			}
			go func() {
				_, _ = io.WriteString(client, start)
				if err := <-given; err != want {
					t.Errorf("%s: %v", name, err)
				}
				_, _ = io.WriteString(client, rest)
				_ = client.Close()
			}()
			answer, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err != nil || string(got) != start+rest+r.Trailer.Get("X-Sum") {
				t.Errorf("%s, %s: arrived as %q, %v", name, answer.Header.Get("X-Proto"), got, err)
			}
		}
	}
}

func serveBoth(server *httptest.Server) {
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
}

func transportOver(http2 bool) *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols), ExpectContinueTimeout: time.Hour}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetUnencryptedHTTP2(http2)
	return t
}

// As far as net/http sends it: over HTTP/1 only with full duplex.
func TestAnEarlyAnswerDoesNotWaitForASlowBody(t *testing.T) {
	waitFor(t, time.Millisecond)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_ = serve(w, r, func(*Call, int, error) error {
			_, err := io.WriteString(w, "no")
			return err
		})
	}))
	serveBoth(server)
	defer server.Close()
	for _, http2 := range []bool{false, true} {
		transport := transportOver(http2)
		body, client := io.Pipe()
		r, err := http.NewRequest(http.MethodPost, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(client, "<x>") }()
		answer, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2)
		if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != "no" {
			t.Errorf("%s: %q, %v", answer.Proto, got, err)
		}
		if http2 { // over HTTP/1 the end of an answer without a length waits
			if _, err := answer.Body.Read(got); err != io.EOF {
				t.Errorf("ends with %v", err)
			}
		}
		_ = client.Close()
		_ = answer.Body.Close()
		transport.CloseIdleConnections()
	}
}

func TestALengthAloneReservesLittle(t *testing.T) {
	waitFor(t, time.Hour)
	r := post(nil)
	r.ContentLength = MaxBody
	r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
		if len(p) > 8<<10 {
			t.Errorf("%d bytes", len(p))
		}
		return 0, io.ErrUnexpectedEOF
	}))
	if _, _, err := Read(r, upgrades); err != otherBody {
		t.Error(err)
	}
}

func TestABufferIsKeptForReuseOnlyWhenItsBodyIsOver(t *testing.T) {
	for name, over := range map[string]func(r *http.Request){
		"read":    func(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		"dropped": Drop,
	} {
		r := post(requestFile(t, "upgrade.xml"))
		if call, _, err := Read(r, upgrades); call == nil {
			t.Fatal(err)
		}
		b := r.Body.(*replay)
		kept := b.lent
		if _, err := r.Body.Read(make([]byte, 100)); err != nil || b.lent == nil || !bytes.Contains(kept.room[:], []byte("</")) {
			t.Errorf("%s: gone before its time, with %v", name, err)
		}
		if over(r); b.lent != nil || kept.room != (buffer{}.room) {
			t.Errorf("%s: a password stays behind", name)
		}
	}
}

func TestACallHoldsNothingOfABodyThatIsDropped(t *testing.T) {
	for _, file := range []string{"upgrade.xml", "upgrade-cdata.xml", "login-token.xml", "session-id.xml", "refresh-auth-token.xml", "get-session-id.xml"} {
		original := &body{Reader: bytes.NewReader(requestFile(t, file))}
		r := post(nil)
		r.Header.Del("SOAPAction")
		r.Body, r.ContentLength = original, -1
		call, _, err := Read(r, allMethods)
		if call == nil {
			t.Fatal(file, err)
		}
		buffer := weak.Make(&r.Body.(*replay).unread[0])
		Drop(r)
		for i := 0; buffer.Value() != nil; i++ {
			if runtime.GC(); i == 10 {
				t.Fatalf("%s: the body lives on", file)
			}
		}
		if got, err := io.ReadAll(r.Body); len(got) != 0 || err != nil {
			t.Errorf("%s: reads %q, %v", file, got, err)
		}
		if _ = r.Body.Close(); original.closed != 1 {
			t.Errorf("%s: closed %d times", file, original.closed)
		}
		runtime.KeepAlive(call)
	}
}
