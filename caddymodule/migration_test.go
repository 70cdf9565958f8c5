package caddymodule_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

func checkForwarded(t testing.TB, got caddytest.Answer) {
	t.Helper()
	if got.Status != http.StatusTeapot {
		t.Errorf("not forwarded: %+v", got)
	}
}

func TestSessionsExpireOnDemand(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	for _, test := range []struct {
		name, options string
		expire        bool
	}{
		{"by default", "", false},
		{"on demand", "expire_session_ids", true},
		{"while signing everyone out", "expire_session_ids\nmode reauthorize", true},
		{"while observing", "expire_session_ids\nmode observe", false},
		{"while some homes stay", "expire_session_ids\nhouseholds 99%", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := caddytest.Run(t, caddytest.Directive(endpoint, old, test.options))
			got := s.Call(t, "getSessionId", "get-session-id.xml")
			if !test.expire {
				checkForwarded(t, got)
				return
			}
			caddytest.CheckAnswer(t, got, "auth-token-expired.xml")
			if !strings.Contains(s.Log(t), `"outcome":"expired"`) {
				t.Error("the log does not tell")
			}
		})
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

func TestWhatIsNotInForceIsWarnedOf(t *testing.T) {
	for options, warning := range map[string]string{
		"expire_session_ids\nhouseholds 10%":    "expire_session_ids has no effect before households 100%",
		"refresh_auth_tokens\nmode reauthorize": "refresh_auth_tokens is not in force",
	} {
		s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t), options))
		if !strings.Contains(s.Log(t), warning) {
			t.Errorf("%q: no warning of %q", options, warning)
		}
	}
}

func TestTwoOfTheHandlerInOneRouteAreWarnedOf(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	one := strings.Split(caddytest.Directive(endpoint, old), "\n\treverse_proxy")[0] + "\n"
	for directives, warns := range map[string]bool{
		one:                               false,
		one + one:                         true,
		"route {\n" + one + one + "}":     true,
		"handle /a {\n" + one + one + "}": true,
		"handle /a {\n" + one + "}\nhandle {\n" + one + "}": false,
	} {
		log := caddytest.Run(t, directives).Log(t)
		if n := strings.Count(log, "there are two smapi_upgrade in this route"); (n > 0) != warns {
			t.Errorf("%d warnings for %s", n, directives)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// What a refresh is answered with, by what the token endpoint says.
func TestTokensAreRefreshedOnDemand(t *testing.T) {
	for _, test := range []struct {
		name, options, request string
		says                   http.HandlerFunc
		posts                  int
		answer, outcome        string
	}{
		{"a new pair", "", "refresh-auth-token.xml", caddytest.IssuesTokens, 1, "refreshed.xml", "refreshed"},
		{"a new pair, the token elsewhere", "", "refresh-auth-token-in-authorization.xml", caddytest.IssuesTokens, 1, "refreshed.xml", "refreshed"},
		{"the old key stays", "", "refresh-auth-token.xml", caddytest.Says(200, `{"access_token":"new-token"}`), 1, "refreshed-same-key.xml", "refreshed"},
		{
			"the old key stays, not the fallback", "private_key refresh_token none", "refresh-auth-token.xml",
			caddytest.Says(200, `{"access_token":"new-token"}`), 1, "refreshed-same-key.xml", "refreshed",
		},
		{"a dead key", "", "refresh-auth-token.xml", caddytest.Says(400, `{"error":"invalid_grant"}`), 1, "auth-token-expired.xml", "rejected"},
		{"a dead key at Dex", "", "refresh-auth-token.xml", caddytest.Says(400, `{"error":"invalid_request"}`), 1, "auth-token-expired.xml", "rejected"},
		{
			"a dead key with not_linked", "on_rejected not_linked", "refresh-auth-token.xml",
			caddytest.Says(400, `{"error":"invalid_grant"}`), 1, "auth-token-expired.xml", "rejected",
		},
		{"an account that waits for its listener", "", "refresh-auth-token-needs-reauth.xml", caddytest.IssuesTokens, 0, "auth-token-expired.xml", "rejected"},
		{"an outage", "", "refresh-auth-token.xml", caddytest.Says(503, ``), 1, "service-unavailable.xml", "unavailable"},
		{"a client that is refused", "", "refresh-auth-token.xml", caddytest.Says(401, `{"error":"invalid_client"}`), 1, "service-unavailable.xml", "misconfigured"},
		{"no token", "", "refresh-auth-token.xml", caddytest.Says(200, `{"refresh_token":"new-key"}`), 1, "service-unavailable.xml", "misconfigured"},
		{"a home that was upgraded when more were", "households 0%", "refresh-auth-token.xml", caddytest.IssuesTokens, 1, "refreshed.xml", "refreshed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint, old := caddytest.Serve(t, test.says), caddytest.OldService(t)
			s := caddytest.Run(t, caddytest.Directive(endpoint, old, "refresh_auth_tokens", "scope offline_access", "param audience music", test.options))
			caddytest.CheckAnswer(t, s.Call(t, "refreshAuthToken", test.request), test.answer)
			if !strings.Contains(s.Log(t), `"outcome":"`+test.outcome+`"`) {
				t.Errorf("the log does not tell of %s", test.outcome)
			}
			if n := len(old.Asked()); n != 0 {
				t.Errorf("the old service was asked %d times", n)
			}
			if test.posts == 0 {
				if n := len(endpoint.Asked()); n != 0 {
					t.Errorf("%d POSTs", n)
				}
				return
			}
			got, _ := form(t, endpoint)
			if got.Encode() != "audience=music&grant_type=refresh_token&refresh_token=old-key" {
				t.Errorf("the form is %v", got)
			}
		})
	}
}

func TestWhatCannotBeRefreshedHereIsForwarded(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	for options, requests := range map[string][]string{
		"":                                      {"refresh-auth-token.xml"},
		"refresh_auth_tokens\nmode observe":     {"refresh-auth-token.xml"},
		"refresh_auth_tokens\nmode reauthorize": {"refresh-auth-token.xml"},
		"refresh_auth_tokens":                   {"ambiguous-refresh-no-key.xml", "ambiguous-refresh-login.xml", "ambiguous-refresh-two-tokens.xml"},
	} {
		s := caddytest.Run(t, caddytest.Directive(endpoint, old, options))
		for _, request := range requests {
			checkForwarded(t, s.Call(t, "refreshAuthToken", request))
		}
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

// Each controller of a home refreshes for itself, and asks again when an answer is lost. Servers that rotate
// refresh tokens take the second use of one for a theft.
func TestOneRefreshTokenIsUsedOnce(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "refresh_auth_tokens", "replay off", "param home {smapi.device_id}"))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			body := bytes.Replace(caddytest.File(t, "requests", "refresh-auth-token.xml"), []byte("D6:8"), fmt.Appendf(nil, "D6:%d", i), 1)
			r := s.Request(t, body)
			r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
			caddytest.CheckAnswer(t, s.Do(t, r), "refreshed.xml")
		})
	}
	all.Wait()
	caddytest.CheckAnswer(t, s.Call(t, "refreshAuthToken", "refresh-auth-token.xml"), "refreshed.xml")
	form(t, endpoint)
}

// Every call of the day before, and what would become of it.
func TestObservingForwardsEverythingAndTellsWhatWouldBecomeOfIt(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(endpoint, old, "mode observe", "expire_session_ids", "refresh_auth_tokens", `exchange login
		exchange login_token `+tokenExchange+` {
			param subject_token {smapi.token}
		}`))
	for _, test := range []struct{ method, request, want string }{
		{"getDeviceAuthToken", "upgrade.xml", `"login|would":"exchange","grant_type":"password"`},
		{"getDeviceAuthToken", "login-token.xml", `"login_token|would":"exchange","grant_type":"` + tokenExchange + `"`},
		{"getDeviceAuthToken", "login-token-needs-reauth.xml", `"login_token|would":"reauthorize"`},
		{"getDeviceAuthToken", "session-id.xml", `"session_id|would":"reauthorize"`},
		{"getDeviceAuthToken", "anonymous.xml", `"anonymous|would":"reauthorize"`},
		{"getSessionId", "get-session-id.xml", `"login|would":"expired"`},
		{"refreshAuthToken", "refresh-auth-token.xml", `"login_token|would":"exchange","grant_type":"refresh_token"`},
	} {
		checkForwarded(t, s.Call(t, test.method, test.request))
		if got := old.Asked(); len(got) != 1 || got[0].Text != string(caddytest.File(t, "requests", test.request)) {
			t.Errorf("%s: forwarded as %v", test.request, got)
		}
		kind, would, _ := strings.Cut(test.want, "|")
		lines := strings.Split(strings.TrimSpace(s.Log(t)), "\n")
		i := slices.IndexFunc(lines, func(line string) bool {
			return strings.Contains(line, "observed a call") && strings.Contains(line, `"method":"`+test.method+`"`) &&
				strings.Contains(line, `"outcome":"observed","credentials":`+kind+`"`) && strings.Contains(line, `"`+would)
		})
		if i < 0 {
			t.Errorf("%s: the log lacks %s", test.request, test.want)
		}
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

func TestReauthorizingAsksNobody(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "mode reauthorize"))
	for _, request := range []string{"upgrade.xml", "login-token.xml", "session-id.xml", "anonymous.xml"} {
		caddytest.CheckAnswer(t, s.Post(t, caddytest.File(t, "requests", request)), "reauthorize.xml")
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

func TestNoTokenEndpointIsNeededWhereNoneIsAsked(t *testing.T) {
	for mode, status := range map[string]int{"observe": http.StatusTeapot, "reauthorize": http.StatusOK} {
		s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade {\nmode %s\n}\nreverse_proxy %s", mode, caddytest.OldService(t).URL))
		if got := s.Upgrade(t); got.Status != status {
			t.Errorf("%s: %+v", mode, got)
		}
	}
}

// Ten thousand homes on two processes.
func TestTheSameHomesAreChosenEverywhereAndTheFewAreAmongTheMore(t *testing.T) {
	t.Parallel()
	const homes = 1000 // how exact the shares are is the chosen's own test
	shares := []string{"1%", "10%", "50%"}
	chosen := map[string][2]map[string]bool{}
	for n := range 2 {
		address := loopback.FreeAddress()
		var routes strings.Builder
		for i, share := range shares {
			fmt.Fprintf(&routes, "smapi_upgrade /%d/* {\nmode reauthorize\nhouseholds %s\n}\n", i, share)
		}
		caddytest.Node(t, fmt.Sprintf("http://%s {\nbind 127.0.0.1\nroute {\n%srespond 418\n}\n}",
			address, routes.String()))
		caddytest.Reachable(t, address)
		for i, share := range shares {
			s := &caddytest.Site{URL: fmt.Sprintf("http://%s/%d", address, i)}
			both := chosen[share]
			both[n] = homesUpgraded(t, s, homes)
			chosen[share] = both
		}
	}
	var fewer map[string]bool
	for i, share := range shares {
		here, there := chosen[share][0], chosen[share][1]
		if !maps.Equal(here, there) {
			t.Errorf("%s: %d homes here and %d there are not the same", share, len(here), len(there))
		}
		for home := range fewer {
			if !here[home] {
				t.Errorf("%s lack %s, which is among %s", share, home, shares[i-1])
			}
		}
		if len(here) <= len(fewer) || len(here) == homes {
			t.Errorf("%s are %d homes", share, len(here))
		}
		fewer = here
	}
}

// homesUpgraded sends an upgrade call from each home and returns those whose call was answered.
func homesUpgraded(t *testing.T, s *caddytest.Site, homes int) map[string]bool {
	t.Helper()
	client := caddytest.Player(t)
	template := caddytest.File(t, "requests", "anonymous.xml")
	upgraded := make(map[string]bool)
	var mu sync.Mutex
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < homes; i += 8 {
				home := fmt.Sprintf("Sonos_%08x", i)
				a, err := caddytest.Ask(t, client, s, bytes.Replace(template, []byte("Sonos_abc123"), []byte(home), 1))
				switch {
				case err != nil:
					t.Error(err)
					return
				case a.Status == http.StatusOK:
					mu.Lock()
					upgraded[home] = true
					mu.Unlock()
				case a.Status != http.StatusTeapot:
					t.Errorf("%+v", a)
				}
			}
		})
	}
	all.Wait()
	return upgraded
}

func TestHouseholdsAreAPercentageInJSONToo(t *testing.T) {
	for value, ok := range map[string]bool{
		`"10%"`: true, `10`: true, `"0%"`: true, `"0.5%"`: true, `"100%"`: true,
		`"101%"`: false, `-1`: false, `"-1%"`: false, `100.1`: false, `"NaN%"`: false, `"10"`: false, `""`: false, `true`: false,
	} {
		if err := provision(t, handlerJSON(`,"households":`+value)); (err == nil) != ok {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// In a ramp a DeviceLink service that refreshes by itself has two populations.
func TestARefreshOfAKeyOfTheOldServiceReachesIt(t *testing.T) {
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("refresh_token") == "ours" {
			caddytest.IssuesTokens(w, r)
			return
		}
		caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
	})
	old := caddytest.OldService(t)
	o := caddytest.Operate(t, caddytest.Directive(endpoint, old, "refresh_auth_tokens", "households 0%"))
	before := o.Scrape(t)
	sample := caddytest.File(t, "requests", "refresh-auth-token.xml")
	refresh := func(key string) (*http.Request, []byte) {
		body := bytes.Replace(sample, []byte("old-key"), []byte(key), 1)
		r := o.Request(t, body)
		r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
		return r, body
	}
	const others = 50 // more than blow a fuse
	for i := range others {
		r, body := refresh(fmt.Sprint("marker-key-", i))
		r.Header.Set("X-Other", "kept")
		r.ContentLength = int64(len(body) * (i % 2)) // known, or in chunks
		if i%2 == 0 {
			r.ContentLength = -1
		}
		checkForwarded(t, o.Do(t, r))
		got := old.Asked()
		if len(got) != 1 || got[0].Text != string(body) || got[0].ContentLength != r.ContentLength || got[0].Header.Get("X-Other") != "kept" {
			t.Fatalf("the old service got %+v", got)
		}
	}
	r, _ := refresh("marker-key-0") // again, which is remembered
	checkForwarded(t, o.Do(t, r))
	if n := len(endpoint.Asked()); n != others {
		t.Errorf("%d POSTs for %d keys", n, others)
	}
	if got := caddytest.OnlyEndpoint(t, o); got.RefreshFuse.Blown || got.RefreshFuse.Tried != 0 {
		t.Errorf("the fuse is %+v", got.RefreshFuse)
	}
	if n := o.Scrape(t)[requests("refreshAuthToken", "forwarded", "login_token")] - before[requests("refreshAuthToken", "forwarded", "login_token")]; n != others+1 {
		t.Errorf("%v are counted as forwarded", n)
	}
	log := o.Log(t)
	if n := strings.Count(log, `"smapi_outcome":"forwarded"`); n != others+1 {
		t.Errorf("%d lines of the access log say forwarded", n)
	}
	if !strings.Contains(log, "forwarded a call, as the token endpoint refused it") || strings.Contains(log, `"outcome":"rejected"`) {
		t.Error("the log does not say that they were forwarded")
	}
	checkNoMarker(t, "the log", log)
	old.Asked()
	r, _ = refresh("ours") // of a home that was chosen when more were
	caddytest.CheckAnswer(t, o.Do(t, r), "refreshed.xml")
	checkForwarded(t, o.Call(t, "refreshAuthToken", "refresh-auth-token-needs-reauth.xml"))
	if n := len(endpoint.Asked()); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

// Homes that are chosen have the fuse blown; who is not chosen is in the old service's hands as before.
func TestABlownFuseKeepsNoKeyFromTheOldService(t *testing.T) {
	old := caddytest.OldService(t)
	s := caddytest.Run(t, fmt.Sprintf(`route {
		smapi_upgrade /chosen/* %[1]s {
			client_id id
			client_auth none
			refresh_auth_tokens
		}
		smapi_upgrade /others/* %[1]s {
			client_id id
			client_auth none
			refresh_auth_tokens
			households 0%%
		}
		reverse_proxy %[2]s
	}`, caddytest.Serve(t, caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)).URL, old.URL))
	ask := func(path, key string) caddytest.Answer {
		at := &caddytest.Site{URL: s.URL + path}
		r := at.Request(t, bytes.Replace(caddytest.File(t, "requests", "refresh-auth-token.xml"), []byte("old-key"), []byte(key), 1))
		r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
		return at.Do(t, r)
	}
	for i := range 30 {
		ask("/chosen", fmt.Sprint("key-", i))
	}
	caddytest.CheckAnswer(t, ask("/chosen", "last"), "service-unavailable.xml")
	checkForwarded(t, ask("/others", "last")) // whose rejection is remembered
	checkForwarded(t, ask("/others", "other"))
}
