package caddymodule_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/textproto"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// wire is an old service that keeps the bytes it is sent.
type wire struct {
	net.Listener
	requests chan string
}

// listen starts a wire. It answers each request when it has all of it, or at once, before the body.
func listen(t *testing.T, early bool) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener, make(chan string, 100)}
	var open sync.Map
	t.Cleanup(func() {
		_ = listener.Close()
		open.Range(func(conn, _ any) bool { _ = conn.(net.Conn).Close(); return true })
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Store(conn, true)
			go w.serve(conn, early)
		}
	}()
	return w
}

func (w *wire) serve(conn net.Conn, early bool) {
	defer conn.Close()
	for in := bufio.NewReader(conn); ; {
		head, header, err := readHead(in)
		if err != nil {
			return
		}
		const answer = "HTTP/1.1 201 Created\r\nDate: today\r\nContent-Length: 6\r\n\r\nanswer"
		if early {
			_, _ = io.WriteString(conn, answer)
		}
		body, err := readBody(in, header)
		select {
		case w.requests <- head + body + fmt.Sprint(err):
		default: // nobody asks
		}
		if err != nil {
			return
		}
		if !early {
			_, _ = io.WriteString(conn, answer)
		}
	}
}

func readHead(in *bufio.Reader) (string, textproto.MIMEHeader, error) {
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", nil, err
		}
		head.WriteString(line)
	}
	lines := textproto.NewReader(bufio.NewReader(strings.NewReader(head.String())))
	if _, err := lines.ReadLine(); err != nil {
		return "", nil, err
	}
	header, err := lines.ReadMIMEHeader()
	return head.String(), header, err
}

// readBody reads a body, without the sizes of its chunks, which belong to the hop, and with its trailers.
func readBody(in *bufio.Reader, header textproto.MIMEHeader) (string, error) {
	if header.Get("Transfer-Encoding") != "chunked" {
		length, _ := strconv.Atoi(header.Get("Content-Length"))
		body := make([]byte, length)
		n, err := io.ReadFull(in, body)
		return string(body[:n]), err
	}
	body, err := io.ReadAll(httputil.NewChunkedReader(in))
	for err == nil {
		var line string
		if line, err = in.ReadString('\n'); line == "\r\n" {
			break
		}
		body = append(body, line...)
	}
	return string(body), err
}

// received returns what the old service was sent, or that it was sent nothing whole.
func (w *wire) received(t *testing.T) string {
	t.Helper()
	select {
	case request := <-w.requests:
		return request
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived")
		return ""
	}
}

// twoSites runs the same reverse_proxy bare and behind smapi_upgrade.
func twoSites(t *testing.T, upstreams string) (bare, with string) {
	t.Helper()
	bare, with = loopback.FreeAddress(), loopback.FreeAddress()
	_, barePort, _ := net.SplitHostPort(bare)
	_, withPort, _ := net.SplitHostPort(with)
	s := caddytest.Run(t, fmt.Sprintf(`respond ok
}
http://:%s {
	bind 127.0.0.1
	reverse_proxy %s
}
http://:%s {
	bind 127.0.0.1
	smapi_upgrade http://127.0.0.1:1/token {
		client_id id
		client_auth none
	}
	reverse_proxy %s
`, barePort, upstreams, withPort, upstreams))
	_ = s
	return bare, with
}

// rawRequests are requests of every kind, byte for byte.
func rawRequests(t *testing.T) map[string]string {
	t.Helper()
	requests := map[string]string{}
	add := func(name, method, headers, body string) {
		requests[name+", with a length"] = fmt.Sprintf("%s /smapi?a=b%%20c HTTP/1.1\r\nHost: smapi.example.com\r\n%sContent-Length: %d\r\n\r\n%s",
			method, headers, len(body), body)
		var chunks strings.Builder
		for rest := body; rest != ""; {
			n := min(len(rest), 700)
			fmt.Fprintf(&chunks, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		requests[name+", in chunks"] = fmt.Sprintf("%s /smapi HTTP/1.1\r\nHost: smapi.example.com\r\n%sTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n",
			method, headers, &chunks)
		requests[name+", with trailers"] = fmt.Sprintf("%s /smapi HTTP/1.1\r\nHost: smapi.example.com\r\n%sTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\nX-Sum: 42\r\n\r\n",
			method, headers, &chunks)
	}
	const (
		text    = "Content-Type: text/xml; charset=utf-8\r\n"
		action  = "SOAPAction: \"http://www.sonos.com/Services/1.1#getDeviceAuthToken\"\r\n"
		another = "SOAPAction: \"http://www.sonos.com/Services/1.1#getMetadata\"\r\n"
	)
	upgrade := string(caddytest.File(t, "requests", "upgrade.xml"))
	files, err := filepath.Glob(filepath.Join(caddytest.Testdata, "requests", "forward-*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	for _, path := range files {
		add(filepath.Base(path), "POST", text+action, string(caddytest.File(t, "requests", filepath.Base(path))))
	}
	add("another method", "POST", text+another, upgrade)
	add("without SOAPAction", "POST", text, strings.ReplaceAll(upgrade, "getDeviceAuthToken", "getMetadata"))
	add("PUT", "PUT", text+action, upgrade)
	add("DELETE with a body", "DELETE", text+action, upgrade)
	add("JSON", "POST", "Content-Type: application/json\r\n"+action, `{"a":"getDeviceAuthToken"}`)
	add("gzip", "POST", text+action+"Content-Encoding: gzip\r\n", "\x1f\x8b getDeviceAuthToken")
	add("empty", "POST", text+action, "")
	add("blank", "POST", text+action, " \r\n ")
	add("as large as is read", "POST", text+action, "<a>"+strings.Repeat("x", 64<<10-3))
	add("one byte larger", "POST", text+action, "<a>"+strings.Repeat("x", 64<<10-2))
	add("much larger", "POST", text+action, upgrade+strings.Repeat(" ", 1<<20))
	add("a large upload", "POST", text+another, strings.Repeat("<x/>", 1<<18))
	add("odd headers", "POST", text+action+"X-Odd:\r\nCookie: a=b\r\nCookie: c=d\r\nAuthorization: Bearer old\r\nTE: trailers\r\nAccept-Encoding: gzip\r\n", "<no/>")
	add("expecting", "POST", text+action+"Expect: 100-continue\r\n", "<no/>")
	add("closing", "POST", text+action+"Connection: close\r\n", "<no/>")
	requests["GET"] = "GET /smapi HTTP/1.1\r\nHost: smapi.example.com\r\n" + action + "\r\n"
	requests["HTTP/1.0"] = fmt.Sprintf("POST /smapi HTTP/1.0\r\nHost: smapi.example.com\r\n%sContent-Length: 5\r\n\r\n<no/>", text+action)
	requests["POST without a body"] = "POST /smapi HTTP/1.1\r\nHost: smapi.example.com\r\n" + text + action + "\r\n"
	return requests
}

// send writes a request and returns the answer, without its date.
func send(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }()
	in := bufio.NewReader(conn)
	for {
		head, header, err := readHead(in)
		if err != nil {
			t.Errorf("%.300q at %s: %v", request, address, err)
			return ""
		}
		if strings.HasPrefix(head, "HTTP/1.1 100 ") {
			continue
		}
		body, err := readBody(in, header)
		return head + body + fmt.Sprint(err)
	}
}

func TestTheOldServiceIsSentTheSameBytesAsByABareProxy(t *testing.T) {
	old := listen(t, false)
	bare, with := twoSites(t, old.Addr().String())
	requests := rawRequests(t)
	if len(requests) < 100 {
		t.Fatal("too few requests")
	}
	for name, request := range requests {
		wantAnswer, want := send(t, bare, request), old.received(t)
		gotAnswer, got := send(t, with, request), old.received(t)
		if got != want {
			t.Errorf("%s: sent as\n%.2000q\nwant\n%.2000q", name, got, want)
		}
		if gotAnswer != wantAnswer {
			t.Errorf("%s: answered with\n%q\nwant\n%q", name, gotAnswer, wantAnswer)
		}
	}
}

func TestAnEarlyAnswerIsPassedOn(t *testing.T) {
	old := listen(t, true)
	bare, with := twoSites(t, old.Addr().String())
	// Whether the connection stays depends on how much of the request had come by then.
	withoutClose := func(answer string) string { return strings.Replace(answer, "Connection: close\r\n", "", 1) }
	for name, request := range rawRequests(t) {
		if want, got := send(t, bare, request), send(t, with, request); withoutClose(got) != withoutClose(want) {
			t.Errorf("%s: answered with\n%q\nwant\n%q", name, got, want)
		}
	}
}

func TestADeadUpstreamIsRetriedWithTheSameBytes(t *testing.T) {
	old := listen(t, false)
	bare, with := twoSites(t, fmt.Sprintf("%s %s {\nlb_policy round_robin\nlb_retries 3\nlb_try_interval 1ms\n}",
		caddytest.DeadAddress(t), old.Addr()))
	for name, request := range rawRequests(t) {
		wantAnswer := send(t, bare, request)
		if gotAnswer := send(t, with, request); gotAnswer != wantAnswer {
			t.Errorf("%s: answered with\n%q\nwant\n%q", name, gotAnswer, wantAnswer)
		}
		if !strings.Contains(wantAnswer, " 201 Created") {
			t.Errorf("%s: answered with %q", name, wantAnswer)
			continue
		}
		if want, got := old.received(t), old.received(t); got != want {
			t.Errorf("%s: sent as\n%.2000q\nwant\n%.2000q", name, got, want)
		}
	}
}

func TestACutRequestIsCutForTheOldServiceToo(t *testing.T) {
	old := listen(t, false)
	bare, with := twoSites(t, old.Addr().String())
	for name, request := range rawRequests(t) {
		if !strings.Contains(name, "xml, with a length") {
			continue
		}
		for _, address := range []string{bare, with} {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, request[:len(request)-20])
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn) // until Caddy gives up, too
			_ = conn.Close()
		}
	}
	for {
		select {
		case got := <-old.requests:
			if strings.HasSuffix(got, "<nil>") {
				t.Errorf("arrived whole: %q", got)
			}
		default:
			return
		}
	}
}
