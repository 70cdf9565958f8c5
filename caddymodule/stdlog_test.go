package caddymodule_test

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// The server sends more than it has announced, which net/http prints to the standard logger, and so to Caddy's.
func TestBytesBehindAnAnswerAreNotLogged(t *testing.T) {
	before := log.Writer()
	defer log.SetOutput(before)
	tokens := caddytest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}marker-token")
		t.Cleanup(func() { _ = conn.Close() })
	})
	for range 2 { // the second time a configuration is given up, too
		logged := new(lockedBuffer)
		log.SetOutput(logged)
		caddytest.Run(t, caddytest.Directive(tokens, caddytest.OldService(t), "replay off")).Upgrade(t)
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(logged.String(), "Unsolicited response"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing was logged at all")
			}
		}
		if strings.Contains(logged.String(), "marker") {
			t.Error(logged.String())
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
