//go:build unix

package caddymodule_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// As of a network file system whose server is gone: a named pipe without a writer.
func TestAFileSystemThatHangsHoldsNobodyUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, path, "good")
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade %s/token {\nclient_id id\nclient_secret {file.%s}\nmax_in_flight 1\n}", endpoint.URL, path))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// It has a reader, without which it cannot be opened, as soon as a look hangs.
	var pipe int
	caddytest.Eventually(t, "a look at the file", func() bool {
		var err error
		pipe, err = syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil
	})
	for i := range 5 {
		caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, fmt.Sprint("account", i))), "upgraded.xml")
	}
	if err := os.Remove(path); err != nil { // or the next look would hang for good
		t.Fatal(err)
	}
	if err := syscall.Close(pipe); err != nil {
		t.Fatal(err)
	}
}
