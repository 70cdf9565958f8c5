package caddytest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/sandbox/authserver"
)

// Faults are the ways in which a token endpoint fails, one after the other.
var Faults = map[string]http.HandlerFunc{
	"500":         Says(500, `{"error":"server_error"}`),
	"garbage":     Says(200, "<html>"),
	"patience":    func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Retry-After", "1"); Says(429, "")(w, r) },
	"unavailable": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Retry-After", "1"); Says(503, "")(w, r) },
	"reset": func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	},
	"cut": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"access_token":"new-token","refresh_token":"new-key"}`)
	},
	"hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
}

// DeadAddress is one where nobody listens until the test ends, because a connection has it.
func DeadAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); listener.Close() })
	return conn.LocalAddr().String()
}

// Server is an HTTP server that keeps what it is asked.
type Server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []Received
}

// Received is a request and its body.
type Received struct {
	*http.Request
	Text string
}

// Serve runs a server until the test ends.
func Serve(t testing.TB, handler http.HandlerFunc) *Server {
	t.Helper()
	s := new(Server)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut, and whoever sent it hears of it
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		s.requests = append(s.requests, Received{r, string(body)})
		s.mu.Unlock()
		handler(w, r)
	}))
	s.useFreshPort(t)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// seen are the addresses that servers have had.
var seen sync.Map

// useFreshPort has a server listen where none has been: a handler remembers token endpoints that are gone.
func (s *Server) useFreshPort(t testing.TB) {
	for {
		if _, again := seen.LoadOrStore(s.Listener.Addr().String(), true); !again {
			return
		}
		other, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Listener.Close() // when there is another, or it might be the same again
		s.Listener = other
	}
}

// Asked returns what the server was asked since the last call.
func (s *Server) Asked() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests
	s.requests = nil
	return requests
}

// Says answers everything with this.
func Says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Teapot answers as no token endpoint and no old service does.
var Teapot = Says(http.StatusTeapot, "the old service")

// IssuesTokens answers with the tokens that Told knows.
var IssuesTokens = Says(http.StatusOK, `{"access_token":"new-token","refresh_token":"new-key","token_type":"Bearer"}`)

// Hanging is a token endpoint that tells of the first request, and issues tokens to all when it may proceed.
func Hanging(t testing.TB) (s *Server, arrived <-chan struct{}, proceed func()) {
	first, going := make(chan struct{}), make(chan struct{})
	s = Serve(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case first <- struct{}{}:
		case <-going:
		}
		<-going
		IssuesTokens(w, r)
	})
	return s, first, sync.OnceFunc(func() { close(going) })
}

// OldService answers everything in a way that shows.
func OldService(t testing.TB) *Server {
	return Serve(t, Teapot)
}

// Counting is a token endpoint that tells how it was used.
type Counting struct {
	*Server
	Posts, InFlight, Most atomic.Int32
}

// Count runs a server that counts.
func Count(t testing.TB, handler http.HandlerFunc) *Counting {
	c := new(Counting)
	c.Server = Serve(t, func(w http.ResponseWriter, r *http.Request) {
		c.Posts.Add(1)
		now := c.InFlight.Add(1)
		defer c.InFlight.Add(-1)
		for most := c.Most.Load(); now > most && !c.Most.CompareAndSwap(most, now); most = c.Most.Load() {
		}
		handler(w, r)
	})
	return c
}

// Takes answers after a while, so many at a time.
func Takes(each time.Duration, places int) http.HandlerFunc {
	free := make(chan struct{}, places)
	return func(w http.ResponseWriter, r *http.Request) {
		free <- struct{}{}
		time.Sleep(each) // what hashing a password takes
		<-free
		IssuesTokens(w, r)
	}
}

// Passwords is a token endpoint where every account's password is "right", and the failed logins at it.
func Passwords(failed *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("grant_type") == "refresh_token" || r.PostFormValue("password") == "right" {
			IssuesTokens(w, r)
			return
		}
		failed.Add(1)
		Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
	}
}

// OAuthServer is a real one, which counts.
func OAuthServer(t testing.TB, accounts map[string]string) *Server {
	t.Helper()
	handler, err := authserver.New("the-id", "the-secret", accounts)
	if err != nil {
		t.Fatal(err)
	}
	return Serve(t, handler.ServeHTTP)
}
