package command

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"

	_ "github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

func TestMain(m *testing.M) { caddytest.Main(m) }

var update = flag.Bool("update", false, "write the recorded results of testdata anew")

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
	cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
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
	path := filepath.Join(caddytest.Testdata, "commands", name+".txt")
	got = strings.TrimSpace(got) + "\n"
	if *update {
		caddytest.Write(t, path, got)
	}
	if want := string(caddytest.File(t, "commands", name+".txt")); got != want {
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
	return caddytest.Write(t, filepath.Join(t.TempDir(), "Caddyfile"), text)
}

// caddyRun runs a Caddy whose one site has these directives, until the test ends. The options are global ones.
func caddyRun(t testing.TB, options, directives string) (url string) {
	t.Helper()
	address := loopback.FreeAddress()
	caddyfile := fmt.Sprintf("{\npersist_config off\nstorage file_system %s\nlog {\nlevel ERROR\noutput discard\n}\n%s\n}\nhttp://%s {\nbind 127.0.0.1\n%s\n}",
		t.TempDir(), options, address, directives)
	caddytest.Load(t, caddyfile)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + address
}
