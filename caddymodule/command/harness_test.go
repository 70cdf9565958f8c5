package command

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"

	_ "github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// asCaddy in the environment makes the test binary a Caddy.
const asCaddy = "SMAPI_TEST_CADDY"

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	dir, err := os.MkdirTemp("", "smapi-upgrade-test-")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

var update = flag.Bool("update", false, "write the recorded results of testdata anew")

const testdata = "../../testdata"

func file(t testing.TB, path ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{testdata}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// commanded is what a command has printed, and its exit code.
type commanded struct {
	stdout, stderr string
	code           int
}

// here runs a command in this process.
func here(t testing.TB, stdin io.Reader, args ...string) commanded {
	t.Helper()
	var stdout, stderr bytes.Buffer
	return commanded{code: execute(t, stdin, &stdout, &stderr, args...), stdout: stdout.String(), stderr: stderr.String()}
}

// execute runs a command in this process and returns its exit code.
func execute(t testing.TB, stdin io.Reader, stdout, stderr io.Writer, args ...string) (code int) {
	t.Helper()
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	caddy, family := &cobra.Command{Use: "caddy", SilenceUsage: true}, &cobra.Command{Use: "smapi-upgrade"}
	caddy.AddCommand(family)
	complete(family)
	caddy.SetIn(stdin)
	caddy.SetOut(stdout)
	caddy.SetErr(stderr)
	caddy.SetArgs(append([]string{"smapi-upgrade"}, args...))
	if err := caddy.ExecuteContext(t.Context()); err != nil {
		if _, scanned := fmt.Sscanf(err.Error(), "exiting with status %d", &code); scanned != nil {
			t.Error(err)
		}
	}
	return code
}

// command is a command of the family, as a process of its own.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"smapi-upgrade"}, args...)...)
	cmd.Env = append(os.Environ(), asCaddy+"=1")
	return cmd
}

// process runs a command in a process of its own.
func process(t testing.TB, stdin io.Reader, args ...string) commanded {
	t.Helper()
	cmd := command(t, args...)
	cmd.Stdin = stdin
	return start(t, cmd)()
}

// start starts a command and returns what waits for its end.
func start(t testing.TB, cmd *exec.Cmd) (wait func() commanded) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() commanded {
		t.Helper()
		if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		return commanded{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	}
}

// What varies from one run of a command to another.
var variable = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`(127\.0\.0\.1|localhost):\d+`), "localhost:9000"},
	{regexp.MustCompile(`[0-9.]+m?s, of`), "100ms, of"},
	{regexp.MustCompile(`("(seconds|calls_per_second|p\d\d|max)": )[0-9.e-]+`), "${1}0.1"},
	{regexp.MustCompile(`(valid until )\d{4}-\d\d-\d\d`), "${1}2030-01-01"},
	{regexp.MustCompile(`(ours is )\d+m\d+s`), "${1}2m0s"},
	{regexp.MustCompile(`/tmp/[^ :]*/`), "/tmp/"},
	{regexp.MustCompile(`\d+(\.\d+)? (µs|ms|s)\b`), "<time>"},
	{regexp.MustCompile(`\d+(\.\d+)? calls/s`), "<rate> calls/s"},
	{regexp.MustCompile(`(support: |"references": \[\s*")[A-Z2-7]{8}.*`), "$1<references>"},
}

// session is what a terminal would show, without what varies. It shows no secret, for which the tests have markers.
func session(t *testing.T, got commanded, line string) string {
	t.Helper()
	out := got.stdout + got.stderr
	if strings.Contains(strings.ToLower(out), "marker") {
		t.Errorf("it shows a secret: %s", out)
	}
	if strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("it has control characters for a pipe: %q", out)
	}
	for line := range strings.Lines(out) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 && !strings.Contains(line, `": "`) {
			t.Errorf("a line of more than 80 columns: %s", line)
		}
	}
	text := fmt.Sprintf("$ caddy smapi-upgrade %s\n%s%s[exit status %d]\n", strings.TrimSpace(line), got.stderr, got.stdout, got.code)
	for _, v := range variable {
		text = v.is.ReplaceAllString(text, v.as)
	}
	return text
}

// unwrapped is a text in one line.
func unwrapped(text string) string { return strings.Join(strings.Fields(text), " ") }

// checkSession compares what a command has printed with a recorded session.
func checkSession(t *testing.T, got commanded, code int, name, line string) {
	t.Helper()
	if got.code != code {
		t.Errorf("the exit code is %d, want %d", got.code, code)
	}
	recorded(t, session(t, got, line), name)
}

func recorded(t *testing.T, got, name string) {
	t.Helper()
	path := filepath.Join(testdata, "commands", name+".txt")
	got = strings.TrimSpace(got) + "\n"
	if *update {
		write(t, path, got)
	}
	if want := string(file(t, "commands", name+".txt")); got != want {
		t.Errorf("%s:\n got %s\nwant %s", path, got, want)
	}
}

// configFile writes a Caddyfile of sites that are never served.
func configFile(t testing.TB, sites ...string) string {
	t.Helper()
	text := fmt.Sprintf("{\nadmin off\nstorage file_system %s\n}\n", t.TempDir())
	for i, directives := range sites {
		text += fmt.Sprintf("http://site%d.example.com {\n%s\n}\n", i+1, directives)
	}
	return write(t, filepath.Join(t.TempDir(), "Caddyfile"), text)
}

// vaultFile makes the key file of a vault.
func vaultFile(t testing.TB) string {
	t.Helper()
	keys, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(t.TempDir(), "vault.json"), string(keys))
}

// server keeps how often it is asked, and with what.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
}

func serve(t testing.TB, handler http.HandlerFunc) *server {
	t.Helper()
	s := new(server)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.bodies = append(s.bodies, string(body))
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// asked returns the bodies of what the server was asked since the last call.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	bodies := s.bodies
	s.bodies = nil
	return bodies
}

// says answers everything with this.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

var (
	issuesTokens = says(200, `{"access_token":"new-token","refresh_token":"new-key","token_type":"Bearer"}`)
	teapot       = says(http.StatusTeapot, "the old service")
)

// directive is a handler in front of an old service.
func directive(endpoint, old *server, more string) string {
	return fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_secret the-secret\n%s\n}\nreverse_proxy %s", endpoint.URL, more, old.URL)
}

// caddyRun runs a Caddy whose one site has these directives, until the test ends. The options are global ones.
func caddyRun(t testing.TB, options, directives string) (url string) {
	t.Helper()
	address := loopback.FreeAddress()
	caddyfile := fmt.Sprintf("{\npersist_config off\nstorage file_system %s\nlog {\nlevel ERROR\noutput discard\n}\n%s\n}\nhttp://%s {\nbind 127.0.0.1\n%s\n}",
		t.TempDir(), options, address, directives)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + address
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
