// Package caddytest has what the tests of several packages share: a Caddy whose site has the handler, the servers around
// it, and the players that call it.
package caddytest

import (
	"os"
	"path/filepath"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// Testdata is the folder of recorded requests and answers.
var Testdata = filepath.Join(root(), "testdata")

// root is the folder of the module, or none for a Caddy that was started elsewhere. Go runs tests in the folder of their
// package, which may be of a module inside.
func root() string {
	dir, err := os.Getwd()
	for err == nil && filepath.Dir(dir) != dir {
		if _, err := os.Stat(filepath.Join(dir, "plugin.go")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// AsCaddy in the environment makes the test binary a Caddy.
const AsCaddy = "SMAPI_TEST_CADDY"

// Main runs the tests of a package with folders of their own for what Caddy keeps, or is a Caddy that one of them has
// started.
func Main(m *testing.M) {
	if os.Getenv(AsCaddy) != "" {
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

// File is a file of testdata.
func File(t testing.TB, path ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{Testdata}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// Write writes a file that only its owner reads, and returns its path.
func Write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Replace puts a file or a folder in the place of a storage that a running Caddy may be writing to at any time.
func Replace(t testing.TB, storage, by string) {
	t.Helper()
	Eventually(t, "the storage is another one", func() bool { return os.RemoveAll(storage) == nil && os.Rename(by, storage) == nil })
}

// Break puts a file in the place of a storage, so that nothing can be written there. Who removes the file repairs it.
func Break(t testing.TB, storage string) {
	t.Helper()
	Replace(t, storage, Write(t, storage+"-broken", ""))
}
