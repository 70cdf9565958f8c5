// Package open shows the page of a Caddy's admin endpoint in a browser, which cannot open it itself: it may be a Unix socket, and
// Caddy refuses what an address bar sends.
package open

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Ask gets a path of the admin endpoint.
type Ask func(ctx context.Context, path string) (*http.Response, error)

// Server is the page on a listener of this machine. Other users of the machine reach that too, so that the address has a
// token. The first browser that comes with it gets a cookie in its place, since others may see the address in the list of
// processes, and nobody else comes in.
type Server struct {
	ask   Ask
	pages string // the prefix of the paths that are let through
	token string

	mu     sync.Mutex
	cookie string // of the browser that has come first
}

// New returns a Server of the paths below pages, such as /smapi_upgrade/.
func New(pages string, ask Ask) *Server {
	return &Server{ask: ask, pages: pages, token: rand.Text()}
}

// URL is where to begin, on a listener.
func (s *Server) URL(listener net.Listener) string {
	return "http://" + listener.Addr().String() + "/" + s.token
}

// Serve serves until ctx ends.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 1 << 15}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

const cookieName = "smapi_upgrade"

// ServeHTTP lets the one browser through to the page.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	switch {
	case !loopback(r.Host): // a name that somebody lets point here
		http.Error(w, "this address is not served", http.StatusForbidden)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
	case same(r.URL.Path, "/"+s.token):
		s.begin(w, r)
	case !s.known(r):
		http.Error(w, "the address that the command has printed is needed, and works in one browser", http.StatusForbidden)
	case !strings.HasPrefix(r.URL.Path, s.pages) || strings.Contains(r.URL.Path, "..") || strings.Contains(r.URL.EscapedPath(), "%"):
		http.NotFound(w, r)
	default:
		s.pass(w, r)
	}
}

// begin gives the first browser its cookie.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	known := s.known(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cookie != "" && !known {
		http.Error(w, "this address has been used: run the command again", http.StatusForbidden)
		return
	}
	if s.cookie == "" {
		s.cookie = rand.Text()
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: s.cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	}
	http.Redirect(w, r, s.pages, http.StatusSeeOther)
}

func (s *Server) known(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range r.CookiesNamed(cookieName) { // one command after the other may have set it
		if s.cookie != "" && same(c.Value, s.cookie) {
			return true
		}
	}
	return false
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// maxAnswer is more than the page ever has.
const maxAnswer = 16 << 20

// pass hands on nothing of the request but its path.
func (s *Server) pass(w http.ResponseWriter, r *http.Request) {
	answer, err := s.ask(r.Context(), r.URL.Path)
	if err != nil {
		http.Error(w, "the admin endpoint does not answer", http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	for _, name := range []string{"Content-Type", "Content-Security-Policy", "Cross-Origin-Resource-Policy", "Cross-Origin-Opener-Policy", "X-Content-Type-Options"} {
		if value := answer.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(answer.Body, maxAnswer)) // a browser that has gone asks again
}

// loopback reports whether a Host is this machine by its own name, at whatever port: one may be forwarded.
func loopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	return name == "127.0.0.1" || strings.EqualFold(name, "localhost")
}

// Browser opens an address in the user's browser. It does nothing for root, and where there is no screen.
func Browser(address string) {
	var cmd *exec.Cmd
	switch {
	case os.Geteuid() == 0: // -1 on Windows
		return
	case runtime.GOOS == "darwin":
		cmd = exec.Command("open", address)
	case runtime.GOOS == "windows":
		cmd = exec.Command("rundll32", "url.dll,FileProtocolHandler", address)
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return
	default:
		cmd = exec.Command("xdg-open", address)
	}
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}
