package caddymodule_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		if path := os.Getenv(clockFile); path != "" {
			caddymodule.SetClock(clockOf(path))
		}
		caddycmd.Main()
		return
	}
	dir, err := os.MkdirTemp("", "smapi-upgrade-test-")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	caddymodule.SetSecretInterval(10 * time.Millisecond)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const testdata = "../testdata"

func file(t testing.TB, path ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{testdata}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// site is a running Caddy with one site.
type site struct {
	url     string
	logFile string
}

// caddyRun runs a Caddy whose one site has these directives, until the test ends. It logs everything.
func caddyRun(t testing.TB, directives string) *site {
	t.Helper()
	return caddyRunOn(t, t.TempDir(), directives)
}

// caddyRunOn is caddyRun on a storage that is kept.
func caddyRunOn(t testing.TB, storage, directives string) *site {
	t.Helper()
	address := loopback.FreeAddress()
	s := &site{url: "http://" + address, logFile: filepath.Join(t.TempDir(), "log")}
	load(t, fmt.Sprintf(`{
	admin off
	persist_config off
	storage file_system %s
	log {
		output file %s
		level DEBUG
	}
}
http://%s {
	bind 127.0.0.1
	log
	%s
}`, storage, s.logFile, address, directives))
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func load(t testing.TB, caddyfile string) {
	t.Helper()
	config, err := adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
}

func adapt(caddyfile string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// deadAddress is one where nobody listens until the test ends, because a connection has it.
func deadAddress(t testing.TB) string {
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

// log returns what the Caddy has logged so far.
func (s *site) log(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(s.logFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// answer is what a player gets.
type answer struct {
	status int
	header http.Header
	body   string
}

// request is a SMAPI call of a player.
func (s *site) request(t testing.TB, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.url+"/smapi", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#getDeviceAuthToken"`)
	r.Header.Set("Accept-Encoding", "gzip")
	r.Header.Set("User-Agent", "Linux UPnP/1.0 Sonos/83.1-61240 (ZPS9)")
	return r
}

func (s *site) do(t testing.TB, r *http.Request) answer {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func (s *site) post(t testing.TB, body []byte) answer {
	t.Helper()
	return s.do(t, s.request(t, body))
}

// upgrade sends Sonos's own sample.
func (s *site) upgrade(t testing.TB) answer {
	t.Helper()
	return s.post(t, file(t, "requests", "upgrade.xml"))
}

var reference = regexp.MustCompile(`reference [A-Z2-7]{8}`)

// checkAnswer compares an answer of ours with a recorded one, whatever the reference.
func checkAnswer(t testing.TB, got answer, recorded string) {
	t.Helper()
	want := string(bytes.TrimSuffix(file(t, "answers", recorded), []byte("\n")))
	if body := reference.ReplaceAllString(got.body, "reference REFERENC"); body != want {
		t.Errorf("the answer is\n%s\nwant\n%s", body, want)
	}
	status := http.StatusOK
	if strings.Contains(want, "Fault>") {
		status = http.StatusInternalServerError
	}
	if got.status != status {
		t.Errorf("the status is %d, want %d", got.status, status)
	}
	checkHeader(t, got)
}

// checkHeader tells whether an answer is marked as ours are.
func checkHeader(t testing.TB, got answer) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "text/xml; charset=utf-8", "Cache-Control": "no-store", "Content-Encoding": "",
		"Content-Length": fmt.Sprint(len(got.body)),
	} {
		if value := got.header.Get(name); value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
}

// server is an HTTP server that keeps what it is asked.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []received
}

type received struct {
	*http.Request
	body string
}

func serve(t testing.TB, handler http.HandlerFunc) *server {
	t.Helper()
	s := new(server)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut, and whoever sent it hears of it
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		s.requests = append(s.requests, received{r, string(body)})
		s.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// asked returns what the server was asked since the last call.
func (s *server) asked() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests
	s.requests = nil
	return requests
}

// says answers everything with this.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

var issuesTokens = says(http.StatusOK, `{"access_token":"new-token","refresh_token":"new-key","token_type":"Bearer"}`)

// hanging is a token endpoint that tells of the first request, and issues tokens to all when it may proceed.
func hanging(t testing.TB) (s *server, arrived <-chan struct{}, proceed func()) {
	first, going := make(chan struct{}), make(chan struct{})
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case first <- struct{}{}:
		case <-going:
		}
		<-going
		issuesTokens(w, r)
	})
	return s, first, sync.OnceFunc(func() { close(going) })
}

// oldService answers everything in a way that shows.
func oldService(t testing.TB) *server {
	return serve(t, says(http.StatusTeapot, "the old service"))
}
