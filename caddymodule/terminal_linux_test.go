package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal of so many columns.
func terminal(t *testing.T, columns uint16) (outside, inside *os.File) {
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

func TestATerminalShowsABarThatFits(t *testing.T) {
	for columns, bar := range map[uint16]*regexp.Regexp{
		80: regexp.MustCompile(`^\[=* *\] ( \d|10) of 10(, \d+s left)?$`),
		30: regexp.MustCompile(`^\[=* *\] ( \d|10) of 10(, \d+s left)?$`),
		9:  regexp.MustCompile(`^ ( \d|10) of `),
	} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			going := make(chan struct{}) // when the bar was drawn half full for more than a second
			proceed := sync.OnceFunc(func() { close(going) })
			defer proceed()
			var logins atomic.Int32
			endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if logins.Add(1) > 5 {
					<-going
				}
				issuesTokens(w, r)
			})
			s := caddyRun(t, directive(endpoint, oldService(t)))
			outside, inside := terminal(t, columns)
			cmd := simulation(t, s.url, "--accounts", "10")
			cmd.Env = append(cmd.Env, "TERM=xterm")
			cmd.Stdout, cmd.Stderr = inside, inside
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			inside.Close()
			started := time.Now()
			var screen strings.Builder
			for part := make([]byte, 4096); ; {
				n, err := outside.Read(part)
				if screen.Write(part[:n]); strings.Count(screen.String(), "\r") >= 8 {
					proceed()
				}
				if err != nil { // when nobody has the inside open any more
					break
				}
			}
			took := time.Since(started)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			drawn, summary, gone := cutLast(screen.String(), "\r\x1b[K")
			if !gone || !strings.HasPrefix(summary, "10 calls of 10 accounts") || strings.Contains(summary, "\x1b") {
				t.Errorf("the screen is %q", screen.String())
			}
			bars := strings.Split(strings.TrimPrefix(drawn, "\r"), "\r")
			for _, line := range bars {
				line, erased := strings.CutSuffix(line, "\x1b[K")
				if !erased || len(line) >= int(columns) || !bar.MatchString(line) {
					t.Errorf("the bar is %q", line)
				}
			}
			if !strings.Contains(drawn, " 5 of 1") {
				t.Errorf("no bar is half full: %q", drawn)
			}
			if len(bars) < 8 || len(bars) > 2+int(took/(100*time.Millisecond)) {
				t.Errorf("it was drawn %d times in %v", len(bars), took)
			}
		})
	}
}

func TestATerminalThatCannotMoveTheCursorShowsNoBar(t *testing.T) {
	s := caddyRun(t, directive(serve(t, issuesTokens), oldService(t)))
	outside, inside := terminal(t, 80)
	cmd := simulation(t, s.url)
	cmd.Env = append(cmd.Env, "TERM=dumb")
	cmd.Stdout, cmd.Stderr = inside, inside
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	screen, _ := io.ReadAll(outside)
	if err := cmd.Wait(); err != nil || strings.Contains(string(screen), "\x1b") {
		t.Errorf("%v, and the screen is %q", err, screen)
	}
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}

func TestATerminalShowsTheStatusAnew(t *testing.T) {
	outside, inside := terminal(t, 80)
	cmd := command(t, "status", "--watch", "--interval", "100ms", "--address", admin(t, http.StatusOK, string(file(t, "commands", "status.json"))))
	cmd.Stdout, cmd.Stderr = inside, inside
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	const clear = "\x1b[H\x1b[2J"
	interrupt := sync.OnceFunc(func() { _ = cmd.Process.Signal(os.Interrupt) })
	var screen strings.Builder
	for part := make([]byte, 4096); ; {
		n, err := outside.Read(part)
		screen.Write(part[:n])
		if err != nil {
			break
		}
		if strings.Count(screen.String(), clear) >= 3 {
			interrupt()
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := screen.String(); !strings.HasPrefix(got, clear+"https://auth.example.com/oauth2/token") || strings.Count(got, clear) < 3 {
		t.Errorf("the screen is %q", got)
	}
}

func TestATerminalShowsABlownFuseInRed(t *testing.T) {
	outside, inside := terminal(t, 80)
	cmd := command(t, "status", "--address", admin(t, http.StatusOK, string(file(t, "commands", "status.json"))))
	cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=")
	cmd.Stdout, cmd.Stderr = inside, inside
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	screen, _ := io.ReadAll(outside)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	red := regexp.MustCompile("(?m)^\x1b\\[31m(.*)\x1b\\[0m\r?$").FindAllStringSubmatch(string(screen), -1)
	if len(red) == 0 || !strings.HasPrefix(red[0][1], "  fuse           BLOWN for upgrades") || strings.Count(string(screen), "\x1b[31m") != len(red) {
		t.Errorf("the screen is %q", screen)
	}
}
