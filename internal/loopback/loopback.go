// Package loopback finds addresses for the servers of tests, the sandbox and the benchmarks.
package loopback

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports are below those that systems give to connections, so that none of these takes one before its server listens.
const (
	firstPort = 10_240
	ports     = 22_000
)

var given sync.Map // because a port that is free again may come again

// FreeAddress returns an address of this machine where nobody listens, and which it has not returned before.
func FreeAddress() string {
	for {
		port := strconv.Itoa(firstPort + rand.IntN(ports))
		listener, err := net.Listen("tcp", ":"+port) // at all addresses, as some sites do
		if err != nil {
			continue
		}
		listener.Close()
		if _, again := given.LoadOrStore(port, true); !again {
			return net.JoinHostPort("127.0.0.1", port)
		}
	}
}
