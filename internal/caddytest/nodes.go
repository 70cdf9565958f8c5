package caddytest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// Node starts a Caddy in a process of its own, with more global options.
func Node(t *testing.T, caddyfile string, global ...string) *exec.Cmd {
	t.Helper()
	return NodeWith(t, nil, caddyfile, global...)
}

// NodeWith is Node with more of an environment.
func NodeWith(t *testing.T, environment []string, caddyfile string, global ...string) *exec.Cmd {
	t.Helper()
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, []byte("{\nadmin off\npersist_config off\nlog {\nlevel ERROR\n}\n"+strings.Join(global, "\n")+"\n}\n"+caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "run", "--config", config, "--adapter", "caddyfile")
	cmd.Env = append(append(os.Environ(), AsCaddy+"=1"), environment...)
	var said bytes.Buffer
	cmd.Stderr = &said
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
	return cmd
}

// Apart is Run in a process of its own, so that a test which mostly waits can do so beside others.
func Apart(t *testing.T, directives string) *Site {
	t.Helper()
	return ApartOn(t, t.TempDir(), directives)
}

// ApartOn is RunOn in a process of its own.
func ApartOn(t *testing.T, folder, directives string) *Site {
	t.Helper()
	address := loopback.FreeAddress()
	s := &Site{URL: "http://" + address, LogFile: filepath.Join(t.TempDir(), "log")}
	Node(t, fmt.Sprintf("http://%s {\nbind 127.0.0.1\nlog\n%s\n}", address, directives),
		"storage file_system "+folder, fmt.Sprintf("log everything {\noutput file %s\nlevel DEBUG\n}", s.LogFile))
	Eventually(t, "all sites are served", func() bool {
		log, _ := os.ReadFile(s.LogFile) // there is none yet
		return bytes.Contains(log, []byte(`"event","name":"started"`))
	})
	return s
}

// Reachable waits until somebody listens there.
func Reachable(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
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

// Cluster is Caddys in processes of their own on one storage.
type Cluster struct {
	Sites   []*Site
	Nodes   []*exec.Cmd
	Storage string
}

// StartCluster runs so many Caddys whose site has these directives, with more of an environment.
func StartCluster(t *testing.T, size int, directives string, environment ...string) *Cluster {
	t.Helper()
	c := &Cluster{Storage: t.TempDir()}
	for range size {
		address := loopback.FreeAddress()
		c.Nodes = append(c.Nodes, NodeWith(t, environment, fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}", address, directives),
			"storage file_system "+c.Storage))
		c.Sites = append(c.Sites, &Site{URL: "http://" + address})
	}
	for _, s := range c.Sites {
		Reachable(t, strings.TrimPrefix(s.URL, "http://"))
	}
	return c
}
