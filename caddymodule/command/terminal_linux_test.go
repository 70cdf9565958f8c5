package command

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// terminal opens a pseudo-terminal of so many columns.
func pty(t *testing.T, columns uint16) (outside, inside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	fd := int(outside.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	inside, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return outside, inside
}

func TestATerminalShowsABarUntilTheSummary(t *testing.T) {
	t.Parallel()
	going := make(chan struct{}) // when the bar was drawn half full a few times
	proceed := sync.OnceFunc(func() { close(going) })
	defer proceed()
	var calls atomic.Int32
	site := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) > 5 {
			<-going
		}
		caddytest.Says(200, string(caddytest.File(t, "answers", "upgraded.xml")))(w, r)
	})
	screen := onTerminal(t, 80, []string{"TERM=xterm"}, func(screen string, _ io.Writer, _ *os.Process) {
		if strings.Count(screen, " 5 of 10") >= 3 {
			proceed()
		}
	}, "simulate", site.URL, "--accounts", "10")
	drawn, summary, gone := cutLast(screen, "\r\x1b[K")
	announced, drawn, _ := strings.Cut(drawn, "\r[")
	if !strings.HasPrefix(announced, "Plays 10 accounts") || !gone || !strings.HasPrefix(summary, "10 calls of 10 accounts") || strings.Contains(summary, "\x1b") {
		t.Errorf("the screen is %q", screen)
	}
	for line := range strings.SplitSeq(drawn, "\r") {
		if line, erased := strings.CutSuffix(line, "\x1b[K"); !erased || len(line) >= 80 {
			t.Errorf("the bar is %q", line)
		}
	}
}

// onTerminal runs a command in a process on a terminal until it ends well, and returns what was on the screen. Each
// time that something is printed it tells meanwhile, which can type and send signals.
func onTerminal(t *testing.T, columns uint16, env []string, meanwhile func(screen string, keys io.Writer, p *os.Process), args ...string) string {
	t.Helper()
	outside, inside := pty(t, columns)
	cmd := command(t, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inside, inside, inside
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	var screen strings.Builder
	for part := make([]byte, 4096); ; {
		n, err := outside.Read(part)
		screen.Write(part[:n])
		if err != nil { // when nobody has the inside open any more
			break
		}
		meanwhile(screen.String(), outside, cmd.Process)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %q", err, screen.String())
	}
	return screen.String()
}

func TestATerminalThatCannotMoveTheCursorShowsNoBar(t *testing.T) {
	site := caddytest.Serve(t, caddytest.Says(200, string(caddytest.File(t, "answers", "upgraded.xml"))))
	screen := onTerminal(t, 80, []string{"TERM=dumb"}, func(string, io.Writer, *os.Process) {}, "simulate", site.URL)
	if strings.Contains(screen, "\x1b") {
		t.Errorf("the screen is %q", screen)
	}
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}

func TestATerminalShowsTheStatusAnew(t *testing.T) {
	const clear = "\x1b[H\x1b[2J"
	done := false
	screen := onTerminal(t, 80, nil, func(screen string, _ io.Writer, p *os.Process) {
		if strings.Count(screen, clear) >= 3 && !done {
			done = true
			_ = p.Signal(os.Interrupt)
		}
	}, "status", "--watch", "--interval", "100ms", "--address", admin(t, http.StatusOK, string(caddytest.File(t, "commands", "status.json"))))
	if !strings.HasPrefix(screen, clear+"https://auth.example.com/oauth2/token") || strings.Count(screen, clear) < 3 {
		t.Errorf("the screen is %q", screen)
	}
}

func TestATerminalIsAskedForTheAccountWithoutAnEchoOfThePassword(t *testing.T) {
	endpoint := caddytest.Serve(t, knows(issues, rejects))
	config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n}", endpoint.URL))
	typed := 0
	screen := onTerminal(t, 80, []string{"TERM=xterm", "NO_COLOR="}, func(screen string, keys io.Writer, _ *os.Process) {
		for ; typed < 3; typed++ {
			question := []string{"Go on? [y/N] ", "User name: ", "Password: "}[typed]
			if !strings.Contains(screen, question) {
				return
			}
			if typed == 2 {
				awaitNoEcho(t, keys.(*os.File))
			}
			fmt.Fprint(keys, []string{"y", "marker-user", "marker-password"}[typed]+"\n")
		}
	}, "check", "--config", config)
	if strings.Contains(screen, "marker-password") || len(endpoint.Asked()) != 2 {
		t.Errorf("the screen is %q", screen)
	}
	if !strings.Contains(screen, "\x1b[32mok\x1b[0m") || !strings.Contains(screen, "All is well.") {
		t.Errorf("no color, or not well: %q", screen)
	}
}

// awaitNoEcho waits until what is typed is no longer shown.
func awaitNoEcho(t *testing.T, outside *os.File) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		state, err := unix.IoctlGetTermios(int(outside.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if state.Lflag&unix.ECHO == 0 {
			return
		}
	}
	t.Fatal("it echoes")
}
