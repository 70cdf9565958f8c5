package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/cmd/bench/crowd"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// Waiting is the memory that a Caddy takes at most for each player who waits for a place at the token endpoint, without and with a
// vault, and for each request that a bare reverse_proxy holds open, in KiB.
type Waiting struct {
	Players  int     `json:"players"`
	Protocol string  `json:"protocol"`
	Bare     float64 `json:"bare_kib"`
	With     float64 `json:"kib"`
	Vault    float64 `json:"vault_kib"`
}

func measureWaiting() (all []Waiting, err error) {
	for _, w := range []Waiting{{Players: 2000, Protocol: crowd.HTTP1}, {Players: 2000, Protocol: crowd.HTTP2}} {
		progress("%d players wait, over %s", w.Players, w.Protocol)
		if w.Bare, err = w.measure(func(service, _, _ string) string { return "reverse_proxy " + service }); err != nil {
			return nil, fmt.Errorf("a bare proxy, %s: %w", w.Protocol, err)
		}
		const upgrades = "smapi_upgrade http://%s/token {\nclient_id id\nclient_auth none\ntimeout 20s\n%s}"
		if w.With, err = w.measure(func(_, token, _ string) string { return fmt.Sprintf(upgrades, token, "") }); err != nil {
			return nil, fmt.Errorf("with smapi_upgrade, %s: %w", w.Protocol, err)
		}
		if w.Vault, err = w.measure(func(_, token, keys string) string {
			return fmt.Sprintf(upgrades, token, "refresh_auth_tokens\nvault "+keys+"\n")
		}); err != nil {
			return nil, fmt.Errorf("with a vault, %s: %w", w.Protocol, err)
		}
		all = append(all, w)
	}
	progress("")
	return all, nil
}

// first is how many players come and go before.
const first = 16

// measure is what each of so many players takes while nobody answers them.
func (w *Waiting) measure(site func(service, token, keys string) string) (kib float64, err error) {
	h, err := newHouse()
	if err != nil {
		return 0, err
	}
	defer h.close()
	keys, err := h.vaultKeys()
	if err != nil {
		return 0, err
	}
	release := make(chan struct{})
	var holds atomic.Bool
	var arrived atomic.Int64
	slow, address, err := serve(func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if holds.Load() {
			arrived.Add(1)
			<-release
		}
		_, _ = io.WriteString(out, tokens)
	})
	if err != nil {
		return 0, err
	}
	defer slow.Close()
	admin := loopback.FreeAddress()
	caddy, err := h.launch(admin, fmt.Sprintf("\nhttp://%s {\nbind 127.0.0.1\n%s\n}", h.withAddr, site(address, address, keys)), h.withAddr, admin)
	if err != nil {
		return 0, err
	}
	defer caddy.stop()
	all, err := crowd.New(w.Players, w.Protocol, h.withAddr, nil)
	if err != nil {
		return 0, err
	}
	defer all.Close()
	for i := range first { // what a process takes once is none of who waits
		if _, err := all.Ask(i, "getDeviceAuthToken", upgradeOf(w.Players+i)); err != nil {
			return 0, err
		}
	}
	holds.Store(true)
	idle, err := memoryOf(caddy, currentMemory)
	if err != nil {
		return 0, err
	}
	var calls sync.WaitGroup
	for i := range w.Players {
		calls.Go(func() { _, _ = all.Ask(i, "getDeviceAuthToken", upgradeOf(i)) })
	}
	defer calls.Wait()
	defer close(release)

	ctx, cancel := context.WithTimeout(context.Background(), 19*time.Second)
	defer cancel()
	for int(arrived.Load()) < w.Players {
		waiting, err := waitingAt(ctx, admin)
		if err != nil {
			return 0, err
		}
		if int(arrived.Load())+waiting >= w.Players {
			break
		}
		if ctx.Err() != nil {
			return 0, errors.New("not all players came in time")
		}
		time.Sleep(50 * time.Millisecond)
	}
	full, err := memoryOf(caddy, peakMemory)
	return (full - idle) * 1024 / float64(w.Players), err
}

// waitingAt is how many wait for a place, by Caddy's metrics.
func waitingAt(ctx context.Context, admin string) (n int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Accept-Encoding", "identity") // what gzip takes is not the players'
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if _, value, found := strings.Cut(string(text), "\ncaddy_smapi_upgrade_exchanges_waiting "); found {
		_, err = fmt.Sscan(value, &n)
	}
	return n, err
}
