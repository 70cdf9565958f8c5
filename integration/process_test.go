//go:build nobadger

package integration

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// start runs a server until the test ends. What it says is shown if the test fails.
func start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	var said strings.Builder
	if cmd.Stderr = &said; cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
}

// listening waits until something listens there.
func listening(t testing.TB, address string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
