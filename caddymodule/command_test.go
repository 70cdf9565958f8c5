package caddymodule_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
)

// commanded is what a command has printed, and its exit code.
type commanded struct {
	stdout, stderr string
	code           int
}

// smapiUpgrade runs a command of the family in a process of its own.
func smapiUpgrade(t testing.TB, stdin io.Reader, args ...string) commanded {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"smapi-upgrade"}, args...)...)
	cmd.Env = append(os.Environ(), asCaddy+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return commanded{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
