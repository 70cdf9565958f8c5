package crowd_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// What the page draws is kept in the vault when a process ends, and the accounts that other instances have seen are added.
func TestTheHistoryOutlivesTheProcessAndHasTheAccountsOfAllInstances(t *testing.T) {
	t.Parallel()
	endpoint, old, keys, storage := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t), t.TempDir()
	dataOf := map[string]string{"one": t.TempDir(), "another": t.TempDir()} // where Caddy has the name of the instance
	// during runs an instance, and ends it as an operator does.
	during := func(instance string, do func(s *caddytest.Site, page func() dashboard.Endpoint)) {
		t.Helper()
		address, admin := loopback.FreeAddress(), loopback.FreeAddress()
		node := caddytest.NodeWith(t, []string{"XDG_DATA_HOME=" + dataOf[instance]}, fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}", address, caddytest.WithVault(endpoint, old, keys)),
			"storage file_system "+storage, "admin "+admin)
		caddytest.Reachable(t, address)
		do(&caddytest.Site{URL: "http://" + address}, func() dashboard.Endpoint {
			var v dashboard.Value
			got := (&caddytest.Site{URL: "http://" + admin}).Get(t, "/smapi_upgrade/page.json")
			if err := json.Unmarshal([]byte(got.Body), &v); err != nil || len(v.Endpoints) != 1 {
				t.Fatalf("%v: %+v", err, got)
			}
			return v.Endpoints[0]
		})
		stop, err := http.Post("http://"+admin+"/stop", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		stop.Body.Close()
		if err := node.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	upgrade := func(names ...string) func(s *caddytest.Site, _ func() dashboard.Endpoint) {
		return func(s *caddytest.Site, _ func() dashboard.Endpoint) {
			for _, name := range names {
				if authToken, _ := caddytest.TokensOf(s.Post(t, caddytest.Account(t, name))); authToken == "" {
					t.Errorf("%s is not upgraded", name)
				}
			}
		}
	}
	during("one", upgrade("anna", "bert", "carl"))
	during("another", upgrade("carl", "dora"))
	var first dashboard.Endpoint
	for range 2 { // a restart adds nothing of its own
		during("one", func(_ *caddytest.Site, page func() dashboard.Endpoint) {
			var got dashboard.Endpoint
			caddytest.Eventually(t, "the accounts of both instances are there", func() bool {
				got = page()
				return got.Accounts.Upgraded == 4
			})
			sum := uint32(0)
			for _, n := range got.Day.Counts[flow.Upgraded] {
				sum += n
			}
			if got.SinceStart[flow.Upgraded] != 3 || sum != 3 || got.Last5Minutes[flow.Upgraded] > 3 {
				t.Errorf("%v in all, %d of the day, %v lately", got.SinceStart, sum, got.Last5Minutes)
			}
			if first.Since.IsZero() {
				first = got
			}
			if !got.Since.Equal(first.Since) {
				t.Errorf("counted since %v, and then since %v", first.Since, got.Since)
			}
		})
	}
}
