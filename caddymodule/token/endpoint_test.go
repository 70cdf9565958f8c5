package token

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

var ella = Grant{
	Type: "password", Params: []Param{{"username", "ella & söhne"}, {"password", " p+w=%20 "}},
	Identity: []string{"ella"}, Account: "ella",
}

// server is a token endpoint that counts.
func server(t *testing.T, handler http.HandlerFunc) (*url.URL, *atomic.Int32) {
	t.Helper()
	var posts atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posts.Add(1)
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + "/token?tenant=7")
	if err != nil {
		t.Fatal(err)
	}
	return u, &posts
}

func endpoint(u *url.URL, change ...func(*Config)) *Endpoint {
	c := Config{
		URL: u, Client: Client{ID: "the id", Auth: Basic, Secret: func() string { return "s&cret%" }},
		MaxInFlight: 4, Transport: &http.Transport{}, Context: context.Background(), State: NewState(Watch{}),
	}
	for _, f := range change {
		f(&c)
	}
	return New(c)
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

func TestTheRequestIsWhatTheSpecificationSays(t *testing.T) {
	for auth, want := range map[ClientAuth]struct{ basicID, basicSecret, formID, formSecret string }{
		Basic:    {basicID: "the+id", basicSecret: "s%26cret%25"},
		BasicRaw: {basicID: "the id", basicSecret: "s&cret%"},
		Post:     {formID: "the id", formSecret: "s&cret%"},
		None:     {formID: "the id"},
	} {
		u, posts := server(t, func(w http.ResponseWriter, r *http.Request) {
			id, secret, _ := r.BasicAuth()
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			form := r.PostForm
			if id != want.basicID || secret != want.basicSecret {
				t.Errorf("%s: Basic is %q, %q", auth, id, secret)
			}
			if form.Get("client_id") != want.formID || form.Get("client_secret") != want.formSecret {
				t.Errorf("%s: the form's client is %q, %q", auth, form.Get("client_id"), form.Get("client_secret"))
			}
			if form.Get("grant_type") != "password" || form.Get("username") != "ella & söhne" || form.Get("password") != " p+w=%20 " ||
				form.Get("scope") != "a b" || strings.Join(form["resource"], ",") != "x,y" {
				t.Errorf("%s: the form is %v", auth, form)
			}
			if r.Method != http.MethodPost || r.URL.RequestURI() != "/token?tenant=7" || r.ContentLength <= 0 ||
				r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Accept") != "application/json" {
				t.Errorf("%s: the request is %s %s with %v", auth, r.Method, r.URL, r.Header)
			}
			_, _ = io.WriteString(w, `{"access_token":"new","refresh_token":"key","expires_in":"3600"}`)
		})
		e := endpoint(u, func(c *Config) {
			c.Client.Auth = auth
		})
		g := ella
		g.Params = append([]Param{{"scope", "a b"}, {"resource", "x"}, {"resource", "y"}}, g.Params...)
		r := e.Exchange(context.Background(), soon(), g)
		if r.Class != Issued || r.Status != 200 || r.Field("access_token") != "new" || r.Field("refresh_token") != "key" {
			t.Errorf("%s: %+v", auth, r)
		}
		if r.Field("id_token") != "" {
			t.Errorf("%s: a field that is missing is %q", auth, r.Field("id_token"))
		}
		if posts.Load() != 1 {
			t.Errorf("%s: %d POSTs", auth, posts.Load())
		}
	}
}

func TestEveryFailureIsOnePost(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		class   Class
		status  int
		cause   string
	}{
		"redirect with the body": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/token", http.StatusTemporaryRedirect)
		}, Misconfigured, 307, "a redirect"},
		"rejected": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
		}, Rejected, 400, "the credentials were refused"},
		"reset before the answer": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}, Unavailable, 0, "the connection"},
		"closed before the answer": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.Close()
		}, Unavailable, 0, "the connection"},
		"cut in the middle": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"access_token":"new"}`)
		}, Unavailable, 200, "the connection ended"},
		"a rejection cut in the middle": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(401)
			_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
		}, Unavailable, 401, "the connection ended"},
		"no HTTP": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(conn, "p+w is what you sent\r\n\r\n")
			_ = conn.Close()
		}, Unavailable, 0, "the connection failed"},
		"another protocol": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			t.Cleanup(func() { _ = conn.Close() }) // not before
		}, Unavailable, 101, "an answer that switches protocols"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"`+strings.Repeat("x", maxAnswer))
		}, Unavailable, 200, "an answer over 64 KiB"},
	} {
		u, posts := server(t, test.handler)
		e := endpoint(u)
		for want := int32(1); want <= 3; want++ { // over a fresh connection and over a kept one
			r := e.Exchange(context.Background(), soon(), ella)
			if r.Class != test.class || r.Status != test.status || !strings.HasPrefix(r.Cause, test.cause) {
				t.Errorf("%s: %+v", name, r)
			}
			if posts.Load() != want {
				t.Fatalf("%s: %d POSTs after %d exchanges", name, posts.Load(), want)
			}
		}
	}
}

func TestWhatCannotBeReachedIsUnavailable(t *testing.T) {
	plain, _ := server(t, func(http.ResponseWriter, *http.Request) {})
	noTLS := &url.URL{Scheme: "https", Host: plain.Host}

	conn, err := net.Dial("tcp", plain.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	refusing := &url.URL{Scheme: "http", Host: conn.LocalAddr().String()} // nobody can listen where a connection is

	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	untrusted, _ := url.Parse(tls.URL)

	for cause, u := range map[string]*url.URL{
		"the connection failed: connection refused":                                    refusing,
		"no TLS with the token endpoint":                                               noTLS,
		"the certificate of the token endpoint is by an authority that is not trusted": untrusted,
	} {
		if r := endpoint(u).Exchange(context.Background(), soon(), ella); r.Class != Unavailable || r.Cause != cause {
			t.Errorf("%+v, want the cause %q", r, cause)
		}
	}
}

func TestADeadlineEndsAnExchange(t *testing.T) {
	hang := make(chan struct{})
	u, posts := server(t, func(http.ResponseWriter, *http.Request) { <-hang })
	defer close(hang)
	r := endpoint(u).Exchange(context.Background(), time.Now().Add(2*time.Second), ella)
	if r.Class != Unavailable || r.Cause != "no answer in time" || posts.Load() != 1 {
		t.Errorf("%+v after %d POSTs", r, posts.Load())
	}
}

func TestOnlySoManyAreInFlight(t *testing.T) {
	proceed := make(chan struct{})
	u, posts := server(t, func(w http.ResponseWriter, _ *http.Request) {
		<-proceed
		_, _ = io.WriteString(w, `{"access_token":"new"}`)
	})
	e := endpoint(u, func(c *Config) { c.MaxInFlight = 1 })
	first := make(chan Result)
	go func() { first <- e.Exchange(context.Background(), soon(), ella) }()
	for posts.Load() == 0 {
		time.Sleep(time.Millisecond) // until the first has the only place
	}

	django := login("django", "nuages")
	if r := e.Exchange(context.Background(), time.Now().Add(20*time.Millisecond), django); r.Class != Overloaded {
		t.Errorf("without a place in time: %+v", r)
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	if r := e.Exchange(gone, soon(), django); r.Class != Overloaded {
		t.Errorf("of a caller that has gone: %+v", r)
	}
	close(proceed)
	if r := <-first; r.Class != Issued {
		t.Errorf("with a place: %+v", r)
	}
	if r := e.Exchange(context.Background(), soon(), django); r.Class != Issued {
		t.Errorf("the place is not given back: %+v", r)
	}
	if posts.Load() != 2 {
		t.Errorf("%d POSTs", posts.Load())
	}
}

func TestACallerWhoLeavesDoesNotCutItsLogin(t *testing.T) {
	caller, leave := context.WithCancel(context.Background())
	u, posts := server(t, func(w http.ResponseWriter, _ *http.Request) {
		leave()
		_, _ = io.WriteString(w, `{"access_token":"new"}`)
	})
	e := endpoint(u, func(c *Config) { c.Replay = time.Minute })
	e.Exchange(caller, soon(), ella)
	if r := e.Exchange(context.Background(), soon(), ella); r.Class != Issued || r.Field("access_token") != "new" || posts.Load() != 1 {
		t.Errorf("of the next: %+v after %d POSTs", r, posts.Load())
	}
}

func TestNothingIsSentAgainOverHTTP2(t *testing.T) {
	u, bodies := refusingHTTP2(t)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	e := endpoint(u, func(c *Config) { c.Transport = transport })
	for want := int32(1); want <= 2; want++ {
		if r := e.Exchange(context.Background(), soon(), ella); r.Class != Unavailable || bodies.Load() != want {
			t.Fatalf("%+v after %d bodies, want %d", r, bodies.Load(), want)
		}
	}
}

// refusingHTTP2 is an HTTP/2 server that reads requests and then says that it has not processed them.
func refusingHTTP2(t *testing.T) (*url.URL, *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var bodies atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				framer := http2.NewFramer(conn, conn)
				_ = framer.WriteSettings()
				for {
					frame, err := framer.ReadFrame()
					if err != nil {
						return
					}
					if data, ok := frame.(*http2.DataFrame); ok && data.StreamEnded() {
						bodies.Add(1)
						_ = framer.WriteRSTStream(data.StreamID, http2.ErrCodeRefusedStream)
					}
				}
			}()
		}
	}()
	return &url.URL{Scheme: "http", Host: listener.Addr().String()}, &bodies
}

func TestADeadIdleConnectionIsNoOutage(t *testing.T) {
	u, posts := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"access_token":"new"}`) })
	var last *brokenConn
	e := endpoint(u, func(c *Config) {
		c.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			last = &brokenConn{Conn: conn}
			return last, err
		}}
	})
	for want := int32(1); want <= 3; want++ {
		if r := e.Exchange(context.Background(), soon(), ella); r.Class != Issued || posts.Load() != want {
			t.Fatalf("%+v after %d POSTs, want %d", r, posts.Load(), want)
		}
		last.broken.Store(true)
	}
}

// brokenConn takes nothing more once it is broken, as a connection that has died idle.
type brokenConn struct {
	net.Conn
	broken atomic.Bool
}

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.broken.Load() {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

func TestBytesBehindAnAnswerAreNotLogged(t *testing.T) {
	var logged lockedBuffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	u, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}marker-token")
		t.Cleanup(func() { _ = conn.Close() })
	})
	endpoint(u).Exchange(context.Background(), soon(), ella)
	for deadline := soon(); !strings.Contains(logged.String(), string(unsolicited)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was logged at all")
		}
	}
	if strings.Contains(logged.String(), "marker") {
		t.Error(logged.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestAConnectionThatFailsIsTriedOnceMoreWithinTheTime(t *testing.T) {
	u, posts := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"access_token":"new"}`) })
	var dials, failing atomic.Int32
	e := endpoint(u, func(c *Config) {
		c.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1) <= failing.Load() {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	})
	for _, test := range []struct {
		failing int32
		class   Class
		dials   int32
		posts   int32
	}{
		{1, Issued, 2, 1},
		{2, Unavailable, 2, 0},
	} {
		dials.Store(0)
		posts.Store(0)
		failing.Store(test.failing)
		r := e.Exchange(context.Background(), soon(), ella)
		if r.Class != test.class || dials.Load() != test.dials || posts.Load() != test.posts {
			t.Errorf("with %d failing: %+v after %d dials and %d POSTs", test.failing, r, dials.Load(), posts.Load())
		}
	}
	synctest.Test(t, func(t *testing.T) {
		dials.Store(0)
		failing.Store(2)
		r := e.Exchange(context.Background(), time.Now().Add(10*time.Millisecond), ella)
		if r.Class != Unavailable || dials.Load() != 1 {
			t.Errorf("without time for a second try: %+v after %d dials", r, dials.Load())
		}
	})
}
