package token

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token/tokentest"
)

var ella = Grant{
	Type: "password", Params: []Param{{"username", "ella & söhne"}, {"password", " p+w=%20 "}},
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
		Fields:    []string{"access_token", "refresh_token"},
		Transport: &http.Transport{}, Context: context.Background(),
	}
	for _, f := range change {
		f(&c)
	}
	return New(c)
}

// result is an answer and what it means.
type result struct {
	Verdict
	Answer
}

func exchange(e *Endpoint, deadline time.Time, g Grant) result {
	a, _ := e.Exchange(deadline, &g, func() (time.Time, bool) { return deadline, true })
	return result{e.Judge(&g, &a), a}
}

func login(username, password string) Grant {
	return Grant{Type: "password", Params: []Param{{"username", username}, {"password", password}}}
}

type stub = tokentest.Stub

const issued = `{"access_token":"new","refresh_token":"key"}`

func at(transport http.RoundTripper, change ...func(*Config)) *Endpoint {
	change = append([]func(*Config){func(c *Config) { c.Transport = transport }}, change...)
	return endpoint(&url.URL{Scheme: "https", Host: "auth.example.com"}, change...)
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
		r := exchange(e, soon(), g)
		if r.Class != Issued || r.Status != 200 || r.Fields.Get("access_token") != "new" || r.Fields.Get("refresh_token") != "key" {
			t.Errorf("%s: %+v", auth, r)
		}
		if r.Fields.Get("id_token") != "" {
			t.Errorf("%s: a field that is missing is %q", auth, r.Fields.Get("id_token"))
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
			r := exchange(e, soon(), ella)
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
		if r := exchange(endpoint(u), soon(), ella); r.Class != Unavailable || r.Cause != cause {
			t.Errorf("%+v, want the cause %q", r, cause)
		}
	}
}

func TestADeadlineEndsAnExchange(t *testing.T) {
	for within := 200 * time.Millisecond; ; within *= 2 { // until it is long enough to be sent
		hang := make(chan struct{})
		u, posts := server(t, func(http.ResponseWriter, *http.Request) { <-hang })
		r := exchange(endpoint(u), time.Now().Add(within), ella)
		close(hang)
		if n := posts.Load(); r.Class != Unavailable || r.Cause != "no answer in time" || n > 1 || n == 0 && within > 10*time.Second {
			t.Fatalf("%+v after %d POSTs in %v", r, n, within)
		} else if n == 1 {
			return
		}
	}
}

func TestNothingIsSentAgainOverHTTP2(t *testing.T) {
	u, bodies := refusingHTTP2(t)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	e := endpoint(u, func(c *Config) { c.Transport = transport })
	for want := int32(1); want <= 2; want++ {
		if r := exchange(e, soon(), ella); r.Class != Unavailable || bodies.Load() != want {
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
		if r := exchange(e, soon(), ella); r.Class != Issued || posts.Load() != want {
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

func TestARequestOverHTTP1IsOneWrite(t *testing.T) {
	u, _ := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"access_token":"new"}`) })
	var writes atomic.Int32
	e := endpoint(u, func(c *Config) {
		c.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return countedConn{conn, &writes}, err
		}}
	})
	exchange(e, soon(), ella) // until then it may be HTTP/2
	for range 3 {
		writes.Store(0)
		if r := exchange(e, soon(), ella); r.Class != Issued || writes.Load() != 1 {
			t.Errorf("%+v after %d writes", r, writes.Load())
		}
	}
}

type countedConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestAnAnswerThatBreaksOffIsAskedForOnce(t *testing.T) {
	var broken atomic.Bool
	u, posts := server(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"access_token":"new"}`)
	})
	e := endpoint(u)
	exchange(e, soon(), ella) // which says that it is HTTP/1
	broken.Store(true)
	for want := int32(2); want <= 4; want++ {
		if r := exchange(e, soon(), ella); r.Class != Unavailable || posts.Load() != want {
			t.Errorf("%+v after %d POSTs, want %d", r, posts.Load(), want)
		}
	}
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
		r := exchange(e, soon(), ella)
		if r.Class != test.class || dials.Load() != test.dials || posts.Load() != test.posts {
			t.Errorf("with %d failing: %+v after %d dials and %d POSTs", test.failing, r, dials.Load(), posts.Load())
		}
	}
	synctest.Test(t, func(t *testing.T) {
		dials.Store(0)
		failing.Store(2)
		r := exchange(e, time.Now().Add(10*time.Millisecond), ella)
		if r.Class != Unavailable || dials.Load() != 1 {
			t.Errorf("without time for a second try: %+v after %d dials", r, dials.Load())
		}
	})
}
