// Package wholeway plays a player at one handler of a configuration and all that is behind it, down to the old service. It is
// done in this process, by a copy of the configuration that nobody else reaches.
package wholeway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Method is that of the everyday call: every service has a root.
const Method = player.GetMetadata

// Try upgrades an account at the handler that is at this path of the configuration, and then makes one everyday call with the pair
// that came. It costs one login. Tokens are kept in a storage of its own, which is removed. An error says why it cannot be
// tried.
func Try(ctx context.Context, config []byte, at string, a player.Account) (upgrade, everyday player.Answer, err error) {
	storage, err := os.MkdirTemp("", "smapi-upgrade-check-")
	if err != nil {
		return upgrade, everyday, err
	}
	defer os.RemoveAll(storage)
	n, err := narrow(config, at, storage)
	if err != nil {
		return upgrade, everyday, err
	}
	loaded, done, err := configuration.Provision(n.config)
	if err != nil {
		return upgrade, everyday, err
	}
	defer done() // or the history would be kept in the storage when that is gone
	app, err := loaded.App("http")
	if err != nil {
		return upgrade, everyday, err
	}
	server := app.(*caddyhttp.App).Servers[n.server]
	if server == nil {
		return upgrade, everyday, errElsewhere
	}
	in := newInside()
	serving := &http.Server{Handler: server}
	go func() { _ = serving.Serve(in) }() // until it is closed
	defer serving.Close()
	transport := &http.Transport{DialContext: in.dial}
	defer transport.CloseIdleConnections()
	client := player.Client{URL: n.url, Timeout: player.Timeout, Transport: transport}
	upgrade, everyday = client.UpgradeAndCall(ctx, a, Method)
	return upgrade, everyday, nil
}

// Says is what became of the everyday call, in words.
func Says(everyday player.Answer, kind smapi.Kind) string {
	for _, row := range player.EverydayRows() {
		if row.Outcome == everyday.Outcome {
			says := fmt.Sprintf("%s of an upgraded home, put to it as %s: %s", Method, kind, row.Title)
			if everyday.Reason != "" {
				says += ", " + everyday.Reason
			}
			return says
		}
	}
	return string(everyday.Outcome)
}

// inside is a listener that is reached from this process alone.
type inside struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newInside() *inside {
	done := make(chan struct{})
	return &inside{conns: make(chan net.Conn), done: done, close: sync.OnceFunc(func() { close(done) })}
}

// loopback is where its connections come from, for who looks at the addresses.
var loopback = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

type conn struct{ net.Conn }

func (conn) LocalAddr() net.Addr  { return loopback }
func (conn) RemoteAddr() net.Addr { return loopback }

func (i *inside) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case i.conns <- conn{theirs}:
		return ours, nil
	case <-i.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (i *inside) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}

func (i *inside) Close() error {
	i.close()
	return nil
}

func (*inside) Addr() net.Addr { return loopback }
