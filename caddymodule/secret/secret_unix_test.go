//go:build unix

package secret

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// As of a network file system whose server is gone: a named pipe without a writer.
func TestAnOpenThatHangsHoldsNobodyUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "good")
	v, err := Text(Config{Interval: time.Millisecond}, "{file."+path+"}", nil)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, path)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// It has a reader, without which it cannot be opened, as soon as a look hangs.
	var pipe int
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if pipe, err = syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody looks at the file")
		}
	}
	if got := v.Get(); got != "good" {
		t.Errorf("it is %q", got)
	}
	v.Close()
	if err := syscall.Close(pipe); err != nil { // which ends the look
		t.Fatal(err)
	}
}
