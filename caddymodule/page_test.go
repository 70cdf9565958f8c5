package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// drawn is what the page draws.
func drawn(t testing.TB, o *caddytest.Operated) (v dashboard.Value) {
	t.Helper()
	got := o.Admin.Get(t, "/smapi_upgrade/page.json")
	if err := json.Unmarshal([]byte(got.Body), &v); err != nil || got.Status != http.StatusOK || len(v.Endpoints) != 1 {
		t.Fatalf("%v: %+v", err, got)
	}
	return v
}

func TestThePageIsReadOnly(t *testing.T) {
	o := caddytest.Operate(t, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)))
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "", 200}, {"HEAD", "", 200}, {"GET", "page.css", 200}, {"GET", "page.js", 200}, {"GET", "page.json", 200},
		{"POST", "", 405}, {"PUT", "page.json", 405}, {"DELETE", "page.js", 405},
		{"GET", "page.html", 404}, {"GET", "status.go", 404}, {"GET", "more/page.js", 404},
	} {
		r, err := http.NewRequest(test.method, o.Admin.URL+"/smapi_upgrade/"+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Close = true
		if got := o.Do(t, r); got.Status != test.status {
			t.Errorf("%s %s: %+v", test.method, test.path, got)
		}
	}
}

func TestThePageTellsDistinctAccounts(t *testing.T) {
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.FormValue("username"), "stranger") {
			caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	})
	o := caddytest.Operate(t, caddytest.Directive(endpoint, caddytest.OldService(t), "replay off"))
	for i := range 30 {
		o.Post(t, caddytest.Account(t, fmt.Sprint("listener", i%10)))
	}
	for i := range 8 {
		o.Post(t, caddytest.Account(t, fmt.Sprint("stranger", i)))
	}
	got := drawn(t, o).Endpoints[0]
	if a := got.Accounts; a.Upgraded != 10 || a.Refused != 8 || a.SignedIn != 0 || a.Doubted != 0 {
		t.Errorf("%+v", a)
	}
	counted := map[string]uint32{}
	for outcome, steps := range got.Day.Counts {
		for _, n := range steps {
			counted[outcome.String()] += n
		}
	}
	if counted["upgraded"] != 30 || counted["rejected"] != 8 || len(counted) != 2 {
		t.Errorf("%v", counted)
	}
	if faults := got.Faults; len(faults) != 4 || faults[0].Outcome.String() != "rejected" || !strings.Contains(o.Log(t), `"reference":"`+faults[0].Reference+`"`) {
		t.Errorf("%+v", faults)
	}
}

func TestThePageTellsTheRecordsOfTheVaultByHowTheyCame(t *testing.T) {
	step := stepClock(t)
	keys := caddytest.VaultFile(t)
	o := caddytest.Operate(t, caddytest.WithVault(caddytest.Rotate(t, 3600), caddytest.OldService(t), keys))
	for i := range 3 {
		o.Post(t, caddytest.Account(t, fmt.Sprint("listener", i)))
	}
	caddymodule.Forget(t.Context())
	v := drawn(t, o)
	if got := v.Endpoints[0].Vaults; len(got) != 1 || got[0] != keys || v.Vaults[0].KeyFile != keys || v.Vaults[0].Came != nil {
		t.Errorf("before all are counted: %q, %+v", got, v.Vaults)
	}
	for range 24 {
		step(time.Hour)
		caddymodule.Forget(t.Context())
	}
	if got := drawn(t, o).Vaults[0].Came; got == nil || *got != (dashboard.VaultCame{Upgraded: 3}) {
		t.Errorf("%+v", got)
	}
}

// With an exchange that asks for no credentials the authorization server vouches for nobody.
func TestThePageTellsThatAnybodyCanBeUpgraded(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	for options, want := range map[string]bool{
		"exchange login": false, "exchange anonymous urn:example:anonymous": true, "exchange anonymous urn:example:anonymous\nmode observe": false,
	} {
		if got := drawn(t, caddytest.Operate(t, caddytest.Directive(endpoint, old, options))).Endpoints[0].AnybodyIsUpgraded; got != want {
			t.Errorf("%s: %v", options, got)
		}
	}
}

func TestWhatThePageDrawsSurvivesAReload(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	o := caddytest.Operate(t, caddytest.Directive(endpoint, old))
	o.Upgrade(t)
	o = caddytest.Operate(t, "header X-Config 2\n"+caddytest.Directive(endpoint, old)) // in the place of the first
	if got := drawn(t, o).Endpoints[0]; got.Accounts.Upgraded != 1 || len(got.Day.Counts) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestTheStatusOutlivesAConfigurationWithoutTheHandler(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	o := caddytest.Operate(t, caddytest.Directive(endpoint, old))
	o.Upgrade(t)
	o.Call(t, "getMetadata", "forward-get-metadata.xml")
	before := caddytest.OnlyEndpoint(t, o)
	caddytest.Operate(t, "respond ok")
	o = caddytest.Operate(t, caddytest.Directive(endpoint, old))
	after := caddytest.OnlyEndpoint(t, o)
	if after.SinceStart["upgraded"] != 1 || after.SinceStart["forwarded"] != 1 || !after.Since.Equal(before.Since) || drawn(t, o).Endpoints[0].Accounts.Upgraded != 1 {
		t.Errorf("%+v, and before %+v", after, before)
	}
	o = caddytest.Operate(t, strings.Replace(caddytest.Directive(endpoint, old), "the-id", "another-id", 1))
	if got := caddytest.OnlyEndpoint(t, o); len(got.SinceStart) != 0 {
		t.Errorf("another client: %+v", got)
	}
}

func TestTheStatusHasExchangeTimesAndTheFixOfWhatIsMisconfigured(t *testing.T) {
	refuses := atomic.Bool{}
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if refuses.Load() {
			caddytest.Says(http.StatusUnauthorized, `{"error":"invalid_client"}`)(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	})
	o := caddytest.Operate(t, caddytest.Directive(endpoint, caddytest.OldService(t)))
	if got := caddytest.OnlyEndpoint(t, o); got.Exchanges != nil || got.Misconfigured != nil {
		t.Errorf("before a call: %+v", got)
	}
	o.Upgrade(t)
	o.Upgrade(t) // the same again, which is none
	refuses.Store(true)
	got := o.Post(t, caddytest.Account(t, "another"))
	status := caddytest.OnlyEndpoint(t, o)
	if x := status.Exchanges; x == nil || x.Exchanges != 2 || x.Median <= 0 || x.Median > x.Most || x.Most > x.Longest {
		t.Errorf("%+v", x)
	}
	if m := status.Misconfigured; m == nil || !strings.Contains(m.Fix, "client_id") || !strings.Contains(got.Body, m.Reference) || m.At.IsZero() {
		t.Errorf("%+v", m)
	}
}
