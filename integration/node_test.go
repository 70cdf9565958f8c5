//go:build nobadger

package integration

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const nodePackages = "its packages are installed by: npm ci --prefix integration/node"

// startNode runs a server of the folder node until the test ends, and returns its address.
func startNode(t testing.TB, environment []string, args ...string) (address string) {
	t.Helper()
	cmd := node(environment, args...)
	if _, err := cmd.StdinPipe(); err != nil { // with whose end it ends, however the test does
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%v has not started (%s)", args, nodePackages)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(port)
}

func node(environment []string, args ...string) *exec.Cmd {
	cmd := exec.Command("node", args...)
	cmd.Dir, cmd.Env = "node", append(os.Environ(), environment...)
	return cmd
}
