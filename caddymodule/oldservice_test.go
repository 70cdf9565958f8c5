package caddymodule_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// withOld is a site whose handler has an old service.
func withOld(endpoint *caddytest.Rotating, old *caddytest.Server, keys, kind string, more ...string) string {
	return caddytest.WithVault(endpoint, old, keys, append([]string{"old_service " + kind,
		"exchange login", "exchange anonymous urn:example:anonymous {\nparam password 12345\n}",
		"exchange login_token urn:example:token {\nparam password 12345\nparam token {smapi.token}\n}"}, more...)...)
}

func checkServed(t testing.TB, got caddytest.Answer) {
	t.Helper()
	if got.Status != 200 || !strings.Contains(got.Body, ">of the old service</") || got.Header.Get("X-Old") != "1" {
		t.Fatalf("got %+v", got)
	}
}

func TestAnUpgradedHomeBrowsesAnOldServiceThatNeverLearnsOfIt(t *testing.T) {
	for kind := range caddytest.UpgradeRequests {
		t.Run(kind, func(t *testing.T) {
			endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, kind)
			s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), kind))
			authToken, key := s.UpgradeOf(t, kind)
			account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>Sonos_abc123_1</householdId></loginToken>"
			bare := "<loginToken><householdId>Sonos_abc123_1</householdId></loginToken>"
			native := map[string]string{
				"session_id":  "<sessionId>marker-session-1</sessionId>",
				"login":       "<login><username>testuser</username><password>12345</password></login>",
				"login_token": "<loginToken><token>old-token</token><key>old-key</key><householdId>Sonos_abc123</householdId></loginToken>",
				"anonymous":   "",
			}[kind]
			for _, method := range []string{"getMetadata", "getLastUpdate", "search", "reportPlaySeconds", "aMethodOfTomorrow"} {
				for _, r := range []*http.Request{
					s.Browsing(t, method, account, ""),
					s.Browsing(t, method, bare, "Bearer "+authToken),
					s.Browsing(t, method, bare, authToken),
					s.Browsing(t, method, "", authToken),
				} {
					checkServed(t, s.Do(t, r))
					heard := old.Check(t)
					last := heard[len(heard)-1]
					if want := fmt.Sprintf(caddytest.Everyday, native, method); last.Text != want || last.ContentLength != int64(len(want)) {
						t.Errorf("the old service got\n%s\nwant\n%s", last.Text, want)
					}
					checkServed(t, s.Do(t, s.Browsing(t, method, native, ""))) // a home that is not upgraded, at the same time
					old.Asked()
				}
			}
			if old.Begun > 1 {
				t.Errorf("%d sessions were begun", old.Begun)
			}
			log := s.Log(t)
			for _, secret := range []string{"smv1", "marker-", "testuser", "old-key"} {
				if strings.Contains(log, secret) {
					t.Errorf("the log has %s: %s", secret, log[strings.Index(log, secret)-200:][:260])
				}
			}
			if !strings.Contains(log, `"outcome":"translated"`) {
				t.Error("the log does not tell")
			}
		})
	}
}

func TestSessionsAreSharedAndBegunAnewOnlyWhenTheyAreForgotten(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	for round := 1; round <= 3; round++ {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { checkServed(t, s.Browse(t, "getLastUpdate", authToken, key)) })
		}
		all.Wait()
		old.With(func() {
			if old.Begun != round {
				t.Errorf("%d sessions were begun in round %d", old.Begun, round)
			}
			clear(old.Sessions) // it forgets them all
		})
	}
	// It forgets again before the call is repeated: then that is what the home is told, and the call is not made for ever.
	old.With(func() { old.Faults["getMetadata"] = caddytest.Fault("Client.SessionIdInvalid") })
	old.Asked()
	if got := s.Browse(t, "getMetadata", authToken, key); got.Status != 500 || got.Body != caddytest.Fault("Client.SessionIdInvalid") {
		t.Errorf("got %+v", got)
	}
	if n := len(old.Asked()); n != 3 { // the call, getSessionId, the call
		t.Errorf("the old service was asked %d times", n)
	}
}

// Two old services may stand behind one host, at one path even. Neither gets the sessions of the other.
func TestTheSessionsOfOneOldServiceAreNotAnothers(t *testing.T) {
	for name, routes := range map[string]string{
		"handle_path":          "handle_path /a* {\nONE\n}\nhandle_path /b* {\nTWO\n}",
		"a rewrite in front":   "route {\n@a path /a*\n@b path /b*\nvars @a a 1\nvars @b b 1\nrewrite * /soap\n@one vars a 1\n@two vars b 1\nhandle @one {\nONE\n}\nhandle @two {\nTWO\n}\n}",
		"a query":              "@a query of=a\n@b query of=b\nhandle @a {\nONE\n}\nhandle @b {\nTWO\n}",
		"a query that is gone": "@a query of=a\n@b query of=b\nhandle @a {\nrewrite * /smapi\nONE\n}\nhandle @b {\nrewrite * /smapi\nTWO\n}",
		"one handler for both": "route {\nHANDLER\nhandle_path /a* {\nreverse_proxy FIRST\n}\nhandle_path /b* {\nreverse_proxy SECOND\n}\n}",
	} {
		endpoint, keys := caddytest.Rotate(t, 3600), caddytest.VaultFile(t)
		one, two := caddytest.Strict(t, "session_id"), caddytest.Strict(t, "session_id")
		two.Begun = 100 // so that they give other ids
		site := withOld(endpoint, one.Server, keys, "session_id")
		handler, _, _ := strings.Cut(site, "\treverse_proxy ")
		s := caddytest.Run(t, strings.NewReplacer("ONE", site, "TWO", withOld(endpoint, two.Server, keys, "session_id"),
			"HANDLER", handler, "FIRST", one.URL, "SECOND", two.URL).Replace(routes))
		at := func(of string, r *http.Request) caddytest.Answer {
			if r.URL.Path, r.URL.RawQuery = "/"+of+r.URL.Path, "of="+of; name == "a host" {
				r.Host, r.URL.Path, r.URL.RawQuery = of+"."+r.URL.Host, "/smapi", ""
			}
			return s.Do(t, r)
		}
		authToken, _ := caddytest.TokensOf(at("a", s.Request(t, caddytest.File(t, "requests", "upgrade.xml"))))
		for range 3 {
			for _, of := range []string{"a", "b"} {
				checkServed(t, at(of, s.Browsing(t, "getMetadata", "", authToken)))
			}
		}
		for _, old := range []*caddytest.StrictService{one, two} {
			old.With(func() {
				if n := len(old.Sessions); n != 1 {
					t.Errorf("%s: %d sessions were begun", name, n)
				}
			})
		}
	}
}

// What the old service says of itself holds nobody: the next call asks again.
func TestOnlyARefusalOfTheAccountHoldsItsSession(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	for _, code := range []string{"Server", "s:Server", "Server.ServiceUnknownError", "Server.ServiceUnavailable", "Client.Throttled"} {
		old.With(func() { clear(old.Sessions); old.Faults["getSessionId"] = caddytest.Fault(code) })
		if got := s.Browse(t, "getMetadata", authToken, key); got.Body != caddytest.Fault(code) {
			t.Errorf("%s: %+v", code, got)
		}
		old.With(func() { clear(old.Faults) })
		if got := s.Browse(t, "getMetadata", authToken, key); got.Status != 200 {
			t.Errorf("after %s: %+v", code, got)
		}
	}

	for _, status := range []int{200, 400, 401, 403, 500} {
		old := caddytest.Serve(t, caddytest.Says(status, caddytest.Fault("Client.LoginUnauthorized")))
		s := caddytest.Run(t, withOld(endpoint, old, caddytest.VaultFile(t), "session_id"))
		authToken, key := s.UpgradeOf(t, "session_id")
		old.Asked()
		for range 3 {
			if got := s.Browse(t, "getMetadata", authToken, key); got.Status != status || got.Body != caddytest.Fault("Client.LoginUnauthorized") {
				t.Errorf("%d: %+v", status, got)
			}
		}
		if n := len(old.Asked()); n != 1 {
			t.Errorf("with status %d it was asked %d times", status, n)
		}
	}
}

func TestSessionsOutliveAReload(t *testing.T) {
	endpoint, old, keys, storage := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id"), caddytest.VaultFile(t), t.TempDir()
	site := withOld(endpoint, old.Server, keys, "session_id")
	s := caddytest.RunOn(t, storage, site)
	authToken, key := s.UpgradeOf(t, "session_id")
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
	s = caddytest.RunOn(t, storage, site)
	r := s.Browsing(t, "getLastUpdate", "", authToken)
	r.Host = "music.example"
	checkServed(t, s.Do(t, s.Browsing(t, "getLastUpdate", "", authToken)))
	old.With(func() {
		if old.Begun > 2 { // the address of the second one is another
			t.Errorf("%d sessions", old.Begun)
		}
	})
}

func TestWhatTheOldServiceSaysIsPassedOn(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
	for _, at := range []string{"getMetadata", "getSessionId"} {
		old.With(func() { clear(old.Faults); clear(old.Sessions) })
		if at == "getMetadata" {
			checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
		}
		for _, code := range []string{"Server.ServiceUnavailable", "Client.LoginUnauthorized", "Client.LoginDisabled", "Client.ItemNotFound"} {
			if at == "getSessionId" && code == "Client.LoginDisabled" {
				break // the one before it is what it says for 30 s
			}
			old.With(func() { clear(old.Faults); old.Faults[at] = caddytest.Fault(code) })
			if got := s.Browse(t, "getMetadata", authToken, key); got.Status != 500 || got.Body != caddytest.Fault(code) || got.Header.Get("X-Old") != "1" {
				t.Errorf("%s from %s: %+v", code, at, got)
			}
			if at == "getSessionId" && code == "Server.ServiceUnavailable" {
				old.With(func() { clear(old.Faults) })
				checkServed(t, s.Browse(t, "getMetadata", authToken, key))
				old.With(func() { clear(old.Sessions) })
			}
		}
	}
}

func TestAnOldServiceThatIsDownIsAsThroughABareProxy(t *testing.T) {
	for _, kind := range []string{"session_id", "login"} {
		endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, kind)
		s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), kind))
		authToken, key := s.UpgradeOf(t, kind)
		old.Close()
		if got := s.Browse(t, "getMetadata", authToken, key); got.Status != http.StatusBadGateway {
			t.Errorf("%s: %+v", kind, got)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	nonsense := caddytest.Serve(t, caddytest.Says(200, "<html>"))
	endpoint := caddytest.Rotate(t, 3600)
	s := caddytest.Run(t, withOld(endpoint, nonsense, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	if got := s.Browse(t, "getMetadata", authToken, key); got.Status != http.StatusBadGateway {
		t.Errorf("nonsense: %+v", got)
	}
}

func TestTokensThatRunOutAreRefreshedHereAndThePlayerSeesNothing(t *testing.T) {
	t.Parallel()
	const life = time.Hour
	environment, step := stepClocks(t)
	endpoint, old, keys := caddytest.Rotate(t, life.Seconds()), caddytest.Strict(t, "login"), caddytest.VaultFile(t)
	c := caddytest.StartCluster(t, 3, withOld(endpoint, old.Server, keys, "login"), environment)
	authToken, key := c.Sites[0].UpgradeOf(t, "login")
	for lives := range 2 {
		step(life)
		before := endpoint.Refreshes.Load()
		var all sync.WaitGroup
		for i := range 24 {
			all.Go(func() { checkServed(t, c.Sites[i%3].Browse(t, "getLastUpdate", authToken, key)) })
		}
		all.Wait()
		if n := endpoint.Refreshes.Load() - before; n != 1 {
			t.Errorf("life %d: %d refreshes", lives, n)
		}
	}
	old.Check(t)
	// And as with a vault where the player asks itself.
	got := c.Sites[1].Refresh(t, authToken, key)
	if a, k := caddytest.TokensOf(got); got.Status != 200 || a != authToken || k != key {
		t.Errorf("a refresh got %+v", got)
	}
}

func TestAHomeWhoseTokensAreRefusedSignsInAgainAndThenGoesOn(t *testing.T) {
	const life = time.Hour
	step := stepClock(t)
	endpoint, old := caddytest.Rotate(t, life.Seconds()), caddytest.Strict(t, "login")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "login", "remember_rejected off"))
	authToken, key := s.UpgradeOf(t, "login")
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
	endpoint.Revoke()
	step(life)
	old.Asked()
	before := endpoint.Refreshes.Load()
	for range 5 {
		caddytest.CheckAnswer(t, s.Browse(t, "getLastUpdate", authToken, key), "auth-token-expired.xml")
	}
	if n := endpoint.Refreshes.Load() - before; n != 1 || len(old.Asked()) != 0 {
		t.Errorf("the endpoint was asked %d times, or the old service was", n)
	}
	if again, _ := s.UpgradeOf(t, "login"); again != authToken {
		t.Error("it has another token")
	}
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
}

func TestAHomeIsServedOnWhileTheAuthorizationServerIsDown(t *testing.T) {
	step := stepClock(t)
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id {\ngrace 2h\n}"))
	authToken, key := s.UpgradeOf(t, "session_id")
	endpoint.Close()
	step(90 * time.Minute)
	for range 10 {
		checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
	}
	if log := s.Log(t); strings.Count(log, "served a home although") != 1 {
		t.Error("the log does not tell, or more than once in 30 s")
	}
	step(2 * time.Hour)
	old.Asked()
	caddytest.CheckAnswer(t, s.Browse(t, "getLastUpdate", authToken, key), "service-unavailable.xml")
	if len(old.Asked()) != 0 {
		t.Error("the old service was asked")
	}
}

func TestAPasswordThatTheOldServiceNoLongerTakesHasTheListenerSignIn(t *testing.T) {
	for _, kind := range []string{"session_id", "login"} {
		endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, kind)
		s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), kind))
		authToken, key := s.UpgradeOf(t, kind)
		checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
		old.With(func() { old.Password = "another"; clear(old.Sessions) })
		for range 3 {
			caddytest.CheckAnswer(t, s.Browse(t, "getLastUpdate", authToken, key), "auth-token-expired.xml")
		}
		if n := old.Begun; n > 1 {
			t.Errorf("%s: %d sessions", kind, n)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestThatTheOldServiceRefusesMostAccountsIsDoubted(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "login")
	o := caddytest.Operate(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "login"))
	s := o.Site
	var pairs [][2]string
	for i := range 40 {
		body := strings.ReplaceAll(string(caddytest.File(t, "requests", "upgrade.xml")), "Sonos_abc123", fmt.Sprint("Sonos_", i))
		authToken, key := caddytest.TokensOf(s.Post(t, []byte(body)))
		pairs = append(pairs, [2]string{authToken, key})
	}
	old.With(func() { old.Password = "another" })
	expired := 0
	for _, p := range pairs {
		if strings.Contains(s.Browse(t, "getLastUpdate", p[0], p[1]).Body, "AuthTokenExpired") {
			expired++
		}
	}
	if expired == 0 || expired >= 20 {
		t.Errorf("%d of %d were told to sign in again", expired, len(pairs))
	}
	if n := o.Scrape(t)["caddy_smapi_upgrade_fuses_blown"]; n != 1 {
		t.Errorf("%v fuses are blown", n)
	}
}

func TestNothingOfOursReachesTheOldServiceThatIsNotUnderstood(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "login")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "login"))
	authToken, key := s.UpgradeOf(t, "login")
	account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>Sonos_abc123_1</householdId></loginToken>"
	old.Asked()

	forged := authToken[:len(authToken)-1] + string(authToken[len(authToken)-1]^1)
	caddytest.CheckAnswer(t, s.Browse(t, "getMetadata", forged, "other"), "auth-token-expired.xml")

	for name, change := range map[string]func(*http.Request){
		"two accounts": func(r *http.Request) { *r = *s.Browsing(t, "getMetadata", account+account, "") },
		"a login beside it": func(r *http.Request) {
			*r = *s.Browsing(t, "getMetadata", account+"<login><username>testuser</username><password>12345</password></login>", "")
		},
		"a body over 64 KiB": func(r *http.Request) { *r = *s.Browsing(t, "getMetadata", account+strings.Repeat(" ", 1<<16), "") },
		"no XML":             func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"no XML, by Authorization": func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", authToken)
		},
		"GET by Authorization": func(r *http.Request) {
			*r = *s.Browsing(t, "getMetadata", "", "Bearer "+authToken)
			r.Method, r.Body, r.ContentLength = http.MethodGet, nil, 0
		},
		"chunked and long": func(r *http.Request) {
			*r = *s.Browsing(t, "getMetadata", strings.Repeat(" ", 1<<16)+account, "")
			r.ContentLength = -1
		},
	} {
		r := s.Browsing(t, "getMetadata", account, "")
		change(r)
		if got := s.Do(t, r); got.Status != 500 || !strings.Contains(got.Body, "Server.ServiceUnavailable") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if heard := old.Check(t); len(heard) != 0 {
		t.Errorf("the old service heard of %d requests", len(heard))
	}
	if !strings.Contains(s.Log(t), `"outcome":"refused"`) {
		t.Error("the log does not tell")
	}
}

func TestAnUpgradeCallOfAHomeThatIsUpgradedGetsItsPairAgain(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "login")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "login"))
	authToken, key := s.UpgradeOf(t, "login")
	logins := endpoint.Logins.Load()
	body := strings.NewReplacer("old-token", authToken, "old-key", key).Replace(string(caddytest.File(t, "requests", "login-token.xml")))
	if a, k := caddytest.TokensOf(s.Post(t, []byte(body))); a != authToken || k != key {
		t.Errorf("got %q, %q", a, k)
	}
	r := s.Browsing(t, "refreshAuthToken", "<loginToken><householdId>Sonos_abc123</householdId></loginToken>", authToken)
	if a, k := caddytest.TokensOf(s.Do(t, r)); a != authToken || k != key {
		t.Errorf("a refresh without a key got %q, %q", a, k)
	}
	if endpoint.Logins.Load() != logins || len(old.Asked()) != 0 {
		t.Error("somebody was asked")
	}
}

func TestHomesFromBeforeAreServedByWhatARefreshBrings(t *testing.T) {
	endpoint, old, keys, storage := caddytest.Rotate(t, 3600), caddytest.Strict(t, "login"), caddytest.VaultFile(t), t.TempDir()
	endpoint.Extra = `"legacy_user":"testuser","legacy_password":"12345",`
	before := caddytest.RunOn(t, storage, caddytest.WithVault(endpoint, old.Server, keys))
	authToken, key := caddytest.TokensOf(before.Upgrade(t))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s := caddytest.RunOn(t, storage, withOld(endpoint, old.Server, keys, "login {\nusername {token.legacy_user}\npassword {token.legacy_password}\n}"))
	for range 3 {
		checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
	}
	if n := endpoint.Refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	old.Check(t)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	// What only an upgrade fills they do not have.
	s = caddytest.RunOn(t, storage, withOld(endpoint, old.Server, keys, "login"))
	caddytest.CheckAnswer(t, s.Browse(t, "getLastUpdate", authToken, key), "auth-token-expired.xml")
}

func TestWhatOldServiceNeedsIsThereBeforeAHomeIsUpgraded(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "login")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "login {\npassword {token.legacy_password}\n}"))
	caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml")
	if log := s.Log(t); !strings.Contains(log, "old_service needs token.legacy_password") {
		t.Error("the log does not tell")
	}
	if files, _ := filepath.Glob(filepath.Join("smapi_upgrade", "*")); len(files) != 0 {
		t.Error(files)
	}
}

// A secret is in nothing that an operator can see, nor on disk, whatever the old service says.
func TestNothingSecretGetsOutOfAnOldService(t *testing.T) {
	received := collect(t)
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	endpoint.Extra = `"legacy_password":"marker-password",`
	o := caddytest.Operate(t, "tracing {\nspan request\n}\n"+withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id {\npassword {token.legacy_password}\n}"))
	old.With(func() { old.Password, old.User = "marker-password", "marker-user" })
	authToken, key := caddytest.TokensOf(o.Post(t, marked(t, "upgrade.xml")))
	if !strings.HasPrefix(authToken, "smv1.") {
		t.Fatal("no upgrade")
	}
	account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>marker-household_1</householdId></loginToken>"
	calls := func() {
		for _, r := range []*http.Request{
			o.Browsing(t, "getMetadata", account, ""),
			o.Browsing(t, "getMetadata", "", "Bearer "+authToken),
			o.Browsing(t, "getMetadata", account+account, ""),
			o.Browsing(t, "getMetadata", account+strings.Repeat(" ", 1<<16), ""),
			o.Browsing(t, "getMetadata", account+"<!", ""),
		} {
			if got := o.Do(t, r); got.Status == 500 && strings.Contains(got.Body, "reference") {
				checkNoMarker(t, "a fault", got.Body)
			}
		}
	}
	calls()
	if old.Calls.Load() != 2 {
		t.Fatal("the old service was not called") // which would prove nothing
	}
	for _, method := range []string{"getSessionId", "getMetadata"} {
		for _, says := range []string{caddytest.Fault("Client.SessionIdInvalid"), "marker-password", caddytest.Fault("marker-password"), caddytest.Fault("Client.LoginInvalid")} {
			old.With(func() { clear(old.Faults); clear(old.Sessions); old.Faults[method] = says })
			calls()
		}
	}
	old.Close()
	calls()
	log := o.Log(t)
	checkNoMarker(t, "the log", log)
	for _, part := range []string{authToken[5:], key[4:]} {
		if strings.Contains(log, part) {
			t.Error("the log has a token of ours")
		}
	}
	for _, path := range []string{"/metrics", "/config/", "/smapi_upgrade/status", "/smapi_upgrade/ready", "/smapi_upgrade/page.json"} {
		got := o.Admin.Get(t, path)
		if got.Status != http.StatusOK {
			t.Fatalf("%s: %+v", path, got)
		}
		checkNoMarker(t, path, got.Body)
		if path == "/smapi_upgrade/status" && !strings.Contains(got.Body, `"old_service":{"sessions":1,`) {
			t.Error(got.Body)
		}
		if path == "/metrics" {
			for _, want := range []string{`outcome="translated"} `, `outcome="refused"} `, `old_sessions_total{result="begun"} `, "old_sessions 1"} {
				if !strings.Contains(strings.ReplaceAll(got.Body, `credentials="login_token",`, ""), want) {
					t.Errorf("the metrics lack %s", want)
				}
			}
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	received.mu.Lock()
	defer received.mu.Unlock()
	checkNoMarker(t, "the spans", received.raw.String())
}

func TestWhatCannotWorkIsSaidAtLoad(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "login")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "login"))
	log := s.Log(t)
	for _, want := range []string{
		`"exchange":"anonymous","placeholders":["smapi.username","smapi.password"]`,
		"homes that were upgraded before old_service was on have to sign in again",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

func TestAListenerWhoSignsInBrowsesTheOldServiceToo(t *testing.T) {
	d, old := newDeviceServer(t), caddytest.Strict(t, "session_id")
	s := caddytest.Run(t, caddytest.Directive(d.Server, old.Server, "refresh_auth_tokens", "vault "+caddytest.VaultFile(t), d.signIn(),
		"old_service session_id {\nusername {token.legacy_user}\npassword {token.legacy_password}\n}"))
	l := s.Link(t)
	d.answers(caddytest.Says(200, `{"access_token":"marker-access","refresh_token":"marker-refresh","expires_in":3600,"legacy_user":"testuser","legacy_password":"12345"}`))
	authToken, key := caddytest.TokensOf(s.Poll(t, l))
	if !strings.HasPrefix(authToken, "smv1.") {
		t.Fatalf("the authToken is %q", authToken)
	}
	checkServed(t, s.Browse(t, "getMetadata", authToken, key))

	// The home's app links a second account, with the token of the first in its header. That is answered here as ever.
	old.Asked()
	body := strings.Replace(string(caddytest.File(t, "requests", "sign-in-get-app-link.xml")), "</credentials>",
		"<loginToken><token>"+authToken+"</token></loginToken></credentials>", 1)
	if got := s.Ask(t, "getAppLink", []byte(body)); got.Status != 200 || !strings.Contains(got.Body, "<linkCode>") {
		t.Errorf("got %+v", got)
	}
	if heard := old.Check(t); len(heard) != 0 {
		t.Error("the old service was asked")
	}
}

// Whoever goes back to observe means the homes that are not upgraded yet. The others would lose their music, and their tokens
// are none of the old service's business.
func TestObservingUpgradesNobodyAndServesUpgradedHomesOn(t *testing.T) {
	step := stepClock(t)
	endpoint, old, keys, storage := caddytest.Rotate(t, 3600), caddytest.Strict(t, "login"), caddytest.VaultFile(t), t.TempDir()
	authToken, key := caddytest.RunOn(t, storage, withOld(endpoint, old.Server, keys, "login")).UpgradeOf(t, "login")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s := caddytest.RunOn(t, storage, withOld(endpoint, old.Server, keys, "login", "mode observe", "expire_session_ids"))
	logins := endpoint.Logins.Load()
	for method, request := range map[string]string{"getDeviceAuthToken": "upgrade.xml", "getSessionId": "get-session-id.xml", "refreshAuthToken": "refresh-auth-token.xml"} {
		s.Call(t, method, request)
		if heard := old.Check(t); len(heard) != 1 || heard[0].Text != string(caddytest.File(t, "requests", request)) {
			t.Errorf("%s was forwarded as %v", request, heard)
		}
	}
	if n := strings.Count(s.Log(t), "observed a call"); n != 3 || endpoint.Logins.Load() != logins {
		t.Errorf("%d calls were observed, or somebody was asked", n)
	}

	account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>Sonos_abc123_1</householdId></loginToken>"
	checkServed(t, s.Browse(t, "getMetadata", authToken, key))
	step(time.Hour)
	checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
	if n := endpoint.Refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	old.Check(t)
	for _, got := range []caddytest.Answer{
		s.Refresh(t, authToken, key),
		s.Refresh(t, "marker-access-1", key), // of a home that was upgraded before there was an old_service
		s.Post(t, []byte(strings.NewReplacer("old-token", authToken, "old-key", key).Replace(string(caddytest.File(t, "requests", "login-token.xml"))))),
	} {
		if a, k := caddytest.TokensOf(got); a != authToken || k != key {
			t.Errorf("got %+v", got)
		}
	}
	if got := s.Do(t, s.Browsing(t, "getMetadata", account+account, "")); got.Status != 500 {
		t.Errorf("got %+v", got)
	}
	if heard := old.Check(t); len(heard) != 0 {
		t.Errorf("the old service heard of %v", heard)
	}
}
