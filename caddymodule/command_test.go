package caddymodule_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

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

// commanded is what a command has printed, and its exit code.
type commanded struct {
	stdout, stderr string
	code           int
}

// smapiUpgrade runs a command of the family.
func smapiUpgrade(t testing.TB, stdin io.Reader, args ...string) commanded {
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
		c := commanded{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
		if out := c.stdout + c.stderr; strings.ContainsAny(out, "\x1b\r") {
			t.Errorf("the output for a pipe has control characters: %q", out)
		}
		return c
	}
}
