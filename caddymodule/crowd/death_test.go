package crowd_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

func TestANodeThatDiesInAStormLosesNobody(t *testing.T) {
	t.Parallel()
	const accounts = 300
	endpoint := caddytest.Count(t, caddytest.Takes(20*time.Millisecond, 6))
	var nodes []*exec.Cmd
	var addresses []string
	for range 3 {
		address := loopback.FreeAddress()
		nodes = append(nodes, caddytest.Node(t, fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}", address,
			caddytest.Directive(endpoint.Server, caddytest.OldService(t), "max_in_flight 2"))))
		addresses = append(addresses, address)
	}
	balancer := loopback.FreeAddress()
	caddytest.Node(t, fmt.Sprintf("http://%s {\nbind 127.0.0.1\nreverse_proxy %s {\nlb_try_duration 2s\nfail_duration 1s\n}\n}",
		balancer, strings.Join(addresses, " ")))
	for _, address := range append(addresses, balancer) {
		caddytest.Reachable(t, address)
	}
	s := &caddytest.Site{URL: "http://" + balancer}
	client := caddytest.Player(t)

	var players sync.WaitGroup
	for i := range accounts {
		players.Go(func() {
			for try := range 20 { // as players do
				a, err := caddytest.Ask(t, client, s, caddytest.Account(t, "player"+strconv.Itoa(i)))
				if err == nil && a.Status != http.StatusBadGateway {
					switch caddytest.Told(t, a) {
					case "upgraded":
						return
					case "blank":
						t.Errorf("player %d was signed out", i)
						return
					}
				}
				time.Sleep(time.Duration(50+try) * time.Millisecond)
			}
			t.Errorf("player %d was lost", i)
		})
	}
	for endpoint.Posts.Load() < accounts/3 {
		time.Sleep(time.Millisecond) // until the storm is well under way
	}
	_ = nodes[1].Process.Kill()
	players.Wait()
	if n, most := endpoint.Posts.Load(), endpoint.Most.Load(); n > accounts+accounts/3 || most > 6 {
		t.Errorf("%d POSTs for %d accounts, %d of them at once", n, accounts, most)
	}
	t.Logf("%d POSTs for %d accounts", endpoint.Posts.Load(), accounts)
}
