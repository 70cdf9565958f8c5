package caddymodule_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// strictOld is an old service that reads by the schema's order, as strict stacks do, and knows nothing of OAuth. It has
// testuser with 12345, sessions of getSessionId, and the token old-token of the home Sonos_abc123.
type strictOld struct {
	*server
	kind string

	mu       sync.Mutex
	sessions map[string]bool
	begun    int
	user     string
	password string
	faults   map[string]string // by method: what it says instead

	calls atomic.Int64 // that were answered well
}

func strict(t testing.TB, kind string) *strictOld {
	o := &strictOld{kind: kind, sessions: map[string]bool{}, user: "testuser", password: "12345", faults: map[string]string{}}
	o.server = serve(t, o.answer)
	return o
}

// with changes the old service.
func (o *strictOld) with(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

type oldOrder struct {
	Header struct {
		Credentials struct {
			Order []struct {
				XMLName xml.Name
			} `xml:",any"`
		} `xml:"credentials"`
	} `xml:"Header"`
}

type oldEnvelope struct {
	Parts struct {
		SessionID string `xml:"sessionId"`
		Login     *struct {
			Username string `xml:"username"`
			Password string `xml:"password"`
		} `xml:"login"`
		LoginToken *struct {
			Token       string `xml:"token"`
			Key         string `xml:"key"`
			HouseholdID string `xml:"householdId"`
		} `xml:"loginToken"`
	} `xml:"Header>credentials"`
	Body struct {
		Call struct {
			XMLName  xml.Name
			Username string `xml:"username"`
			Password string `xml:"password"`
		} `xml:",any"`
	} `xml:"Body"`
}

var schemaOrder = []string{"zonePlayerId", "deviceId", "deviceProvider", "deviceCert", "account", "context"}

func fault(code string) string {
	return `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>` + code +
		`</faultcode><faultstring>of the old service</faultstring></s:Fault></s:Body></s:Envelope>`
}

func (o *strictOld) answer(w http.ResponseWriter, r *http.Request) {
	status, body := o.says(r)
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("X-Old", "1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (o *strictOld) says(r *http.Request) (int, string) {
	body, _ := io.ReadAll(r.Body)
	o.mu.Lock()
	defer o.mu.Unlock()
	var e oldEnvelope
	var order oldOrder
	if xml.Unmarshal(body, &e) != nil || xml.Unmarshal(body, &order) != nil {
		return 400, "malformed"
	}
	method := e.Body.Call.XMLName.Local
	if f := o.faults[method]; f != "" {
		return 500, f
	}
	if action := r.Header.Get("SOAPAction"); !strings.Contains(action, "#"+method) {
		return 400, "the SOAPAction is " + action
	}
	if method == "getSessionId" {
		if e.Body.Call.Username != o.user || e.Body.Call.Password != o.password {
			return 500, fault("Client.LoginInvalid")
		}
		o.begun++
		id := fmt.Sprintf("marker-session-%d", o.begun)
		o.sessions[id] = true
		return 200, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><getSessionIdResponse xmlns="http://www.sonos.com/Services/1.1"><getSessionIdResult>` +
			id + `</getSessionIdResult></getSessionIdResponse></s:Body></s:Envelope>`
	}
	at, kind := 0, "anonymous"
	for _, el := range order.Header.Credentials.Order {
		name := el.XMLName.Local
		if name == "login" || name == "loginToken" || name == "sessionId" {
			kind, name = name, "account"
		}
		i := slices.Index(schemaOrder, name)
		if el.XMLName.Space != "http://www.sonos.com/Services/1.1" || i < at {
			return 400, name + " is out of order"
		}
		at = i
	}
	p := e.Parts
	switch {
	case map[string]string{"anonymous": "anonymous", "login": "login", "loginToken": "login_token", "sessionId": "session_id"}[kind] != o.kind:
		return 500, fault("Client.LoginUnsupported")
	case kind == "sessionId" && !o.sessions[p.SessionID]:
		return 500, fault("s:Client.SessionIdInvalid")
	case kind == "login" && (p.Login.Username != o.user || p.Login.Password != o.password):
		return 500, fault("Client.LoginInvalid")
	case kind == "loginToken" && (p.LoginToken.Token != "old-token" || p.LoginToken.Key != "old-key" || p.LoginToken.HouseholdID != "Sonos_abc123"):
		return 500, fault("Client.LoginUnauthorized")
	}
	o.calls.Add(1)
	return 200, method + "Response of the old service"
}

// withOld is a site whose handler has an old service.
func withOld(endpoint *rotating, old *server, keys, kind string, more ...string) string {
	return withVault(endpoint, old, keys, append([]string{"old_service " + kind,
		"exchange login", "exchange anonymous urn:example:anonymous {\nparam password 12345\n}",
		"exchange login_token urn:example:token {\nparam password 12345\nparam token {smapi.token}\n}"}, more...)...)
}

// upgradeRequests are the upgrade calls of what was each kind of account.
var upgradeRequests = map[string]string{
	"session_id": "upgrade.xml", "login": "upgrade.xml", "login_token": "login-token.xml", "anonymous": "anonymous.xml",
}

const everyday = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><credentials xmlns="http://www.sonos.com/Services/1.1">` +
	`<deviceId>00-0E-58-5B-06-D6:8</deviceId><deviceProvider>Sonos</deviceProvider>%s</credentials></s:Header><s:Body>` +
	`<%s xmlns="http://www.sonos.com/Services/1.1"><id>a &amp; b</id></%[2]s></s:Body></s:Envelope>`

// browse is an everyday call of a home with this pair.
func (s *site) browse(t testing.TB, method, authToken, key string) answer {
	t.Helper()
	return s.do(t, s.browsing(t, method, "<loginToken><token>"+authToken+"</token><key>"+key+"</key><householdId>Sonos_abc123_1</householdId></loginToken>", ""))
}

func (s *site) browsing(t testing.TB, method, account, authorization string) *http.Request {
	r := s.request(t, fmt.Appendf(nil, everyday, account, method))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+method+`"`)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

func (s *site) upgradeOf(t testing.TB, kind string) (authToken, key string) {
	t.Helper()
	got := s.post(t, file(t, "requests", upgradeRequests[kind]))
	if authToken, key = tokensOf(got); !strings.HasPrefix(authToken, "smv1.") || !strings.HasPrefix(key, "smv1") {
		t.Fatalf("the upgrade got %+v", got)
	}
	return authToken, key
}

func checkServed(t testing.TB, got answer) {
	t.Helper()
	if got.status != 200 || !strings.HasSuffix(got.body, "Response of the old service") || got.header.Get("X-Old") != "1" {
		t.Fatalf("got %+v", got)
	}
}

// checkOld tells whether the old service has heard of what is none of its business.
func (o *strictOld) checkOld(t testing.TB) (heard []received) {
	t.Helper()
	heard = o.asked()
	for _, r := range heard {
		var header strings.Builder
		_ = r.Header.Write(&header)
		if all := header.String() + r.body; strings.Contains(all, "smv1") || strings.Contains(all, "marker-access") || strings.Contains(all, "marker-refresh") ||
			r.Header.Get("Authorization") != "" {
			t.Errorf("the old service was told\n%s", all)
		}
	}
	return heard
}

func TestAnUpgradedHomeBrowsesAnOldServiceThatNeverLearnsOfIt(t *testing.T) {
	for kind := range upgradeRequests {
		t.Run(kind, func(t *testing.T) {
			endpoint, old := rotate(t, 3600), strict(t, kind)
			s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), kind))
			authToken, key := s.upgradeOf(t, kind)
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
					s.browsing(t, method, account, ""),
					s.browsing(t, method, bare, "Bearer "+authToken),
					s.browsing(t, method, bare, authToken),
					s.browsing(t, method, "", authToken),
				} {
					checkServed(t, s.do(t, r))
					heard := old.checkOld(t)
					last := heard[len(heard)-1]
					if want := fmt.Sprintf(everyday, native, method); last.body != want || last.ContentLength != int64(len(want)) {
						t.Errorf("the old service got\n%s\nwant\n%s", last.body, want)
					}
					checkServed(t, s.do(t, s.browsing(t, method, native, ""))) // a home that is not upgraded, at the same time
					old.asked()
				}
			}
			if old.begun > 1 {
				t.Errorf("%d sessions were begun", old.begun)
			}
			log := s.log(t)
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
	endpoint, old := rotate(t, 3600), strict(t, "session_id")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "session_id"))
	authToken, key := s.upgradeOf(t, "session_id")
	for round := 1; round <= 3; round++ {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { checkServed(t, s.browse(t, "getLastUpdate", authToken, key)) })
		}
		all.Wait()
		old.with(func() {
			if old.begun != round {
				t.Errorf("%d sessions were begun in round %d", old.begun, round)
			}
			clear(old.sessions) // it forgets them all
		})
	}
	// It forgets again before the call is repeated: then that is what the home is told, and the call is not made for ever.
	old.with(func() { old.faults["getMetadata"] = fault("Client.SessionIdInvalid") })
	old.asked()
	if got := s.browse(t, "getMetadata", authToken, key); got.status != 500 || got.body != fault("Client.SessionIdInvalid") {
		t.Errorf("got %+v", got)
	}
	if n := len(old.asked()); n != 3 { // the call, getSessionId, the call
		t.Errorf("the old service was asked %d times", n)
	}
}

func TestSessionsOutliveAReload(t *testing.T) {
	endpoint, old, keys, storage := rotate(t, 3600), strict(t, "session_id"), vaultFile(t), t.TempDir()
	site := withOld(endpoint, old.server, keys, "session_id")
	s := caddyRunOn(t, storage, site)
	authToken, key := s.upgradeOf(t, "session_id")
	checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
	s = caddyRunOn(t, storage, site)
	r := s.browsing(t, "getLastUpdate", "", authToken)
	r.Host = "music.example"
	checkServed(t, s.do(t, s.browsing(t, "getLastUpdate", "", authToken)))
	old.with(func() {
		if old.begun > 2 { // the address of the second one is another
			t.Errorf("%d sessions", old.begun)
		}
	})
}

func TestWhatTheOldServiceSaysIsPassedOn(t *testing.T) {
	endpoint, old := rotate(t, 3600), strict(t, "session_id")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "session_id"))
	authToken, key := s.upgradeOf(t, "session_id")
	checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
	for _, at := range []string{"getMetadata", "getSessionId"} {
		old.with(func() { clear(old.faults); clear(old.sessions) })
		if at == "getMetadata" {
			checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
		}
		for _, code := range []string{"Server.ServiceUnavailable", "Client.LoginUnauthorized", "Client.LoginDisabled", "Client.ItemNotFound"} {
			if at == "getSessionId" && code == "Client.LoginDisabled" {
				break // the one before it is what it says for 30 s
			}
			old.with(func() { clear(old.faults); old.faults[at] = fault(code) })
			if got := s.browse(t, "getMetadata", authToken, key); got.status != 500 || got.body != fault(code) || got.header.Get("X-Old") != "1" {
				t.Errorf("%s from %s: %+v", code, at, got)
			}
			if at == "getSessionId" && code == "Server.ServiceUnavailable" {
				old.with(func() { clear(old.faults) })
				checkServed(t, s.browse(t, "getMetadata", authToken, key))
				old.with(func() { clear(old.sessions) })
			}
		}
	}
}

func TestAnOldServiceThatIsDownIsAsThroughABareProxy(t *testing.T) {
	for _, kind := range []string{"session_id", "login"} {
		endpoint, old := rotate(t, 3600), strict(t, kind)
		s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), kind))
		authToken, key := s.upgradeOf(t, kind)
		old.Close()
		if got := s.browse(t, "getMetadata", authToken, key); got.status != http.StatusBadGateway {
			t.Errorf("%s: %+v", kind, got)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	nonsense := serve(t, says(200, "<html>"))
	endpoint := rotate(t, 3600)
	s := caddyRun(t, withOld(endpoint, nonsense, vaultFile(t), "session_id"))
	authToken, key := s.upgradeOf(t, "session_id")
	if got := s.browse(t, "getMetadata", authToken, key); got.status != http.StatusBadGateway {
		t.Errorf("nonsense: %+v", got)
	}
}

func TestTokensThatRunOutAreRefreshedHereAndThePlayerSeesNothing(t *testing.T) {
	const life = time.Hour
	step := stepClock(t)
	endpoint, old, keys := rotate(t, life.Seconds()), strict(t, "login"), vaultFile(t)
	c := startCluster(t, 3, withOld(endpoint, old.server, keys, "login"))
	authToken, key := c.sites[0].upgradeOf(t, "login")
	for lives := range 3 {
		step(life)
		before := endpoint.refreshes.Load()
		var all sync.WaitGroup
		for i := range 24 {
			all.Go(func() { checkServed(t, c.sites[i%3].browse(t, "getLastUpdate", authToken, key)) })
		}
		all.Wait()
		if n := endpoint.refreshes.Load() - before; n != 1 {
			t.Errorf("life %d: %d refreshes", lives, n)
		}
	}
	old.checkOld(t)
	// And as with a vault where the player asks itself.
	got := c.sites[1].refresh(t, authToken, key)
	if a, k := tokensOf(got); got.status != 200 || a != authToken || k != key {
		t.Errorf("a refresh got %+v", got)
	}
}

func TestAHomeWhoseTokensAreRefusedSignsInAgainAndThenGoesOn(t *testing.T) {
	const life = time.Hour
	step := stepClock(t)
	endpoint, old := rotate(t, life.Seconds()), strict(t, "login")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "login", "remember_rejected off"))
	authToken, key := s.upgradeOf(t, "login")
	checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
	endpoint.mu.Lock()
	for family := range endpoint.issued + 1 {
		endpoint.revoked[family] = true
	}
	endpoint.mu.Unlock()
	step(life)
	old.asked()
	before := endpoint.refreshes.Load()
	for range 5 {
		checkAnswer(t, s.browse(t, "getLastUpdate", authToken, key), "auth-token-expired.xml")
	}
	if n := endpoint.refreshes.Load() - before; n != 1 || len(old.asked()) != 0 {
		t.Errorf("the endpoint was asked %d times, or the old service was", n)
	}
	if again, _ := s.upgradeOf(t, "login"); again != authToken {
		t.Error("it has another token")
	}
	checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
}

func TestAHomeIsServedOnWhileTheAuthorizationServerIsDown(t *testing.T) {
	step := stepClock(t)
	endpoint, old := rotate(t, 3600), strict(t, "session_id")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "session_id {\ngrace 2h\n}"))
	authToken, key := s.upgradeOf(t, "session_id")
	endpoint.Close()
	step(90 * time.Minute)
	for range 10 {
		checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
	}
	if log := s.log(t); strings.Count(log, "served a home on") != 1 {
		t.Error("the log does not tell, or more than once in 30 s")
	}
	step(2 * time.Hour)
	old.asked()
	checkAnswer(t, s.browse(t, "getLastUpdate", authToken, key), "service-unavailable.xml")
	if len(old.asked()) != 0 {
		t.Error("the old service was asked")
	}
}

func TestAPasswordThatTheOldServiceNoLongerTakesHasTheListenerSignIn(t *testing.T) {
	for _, kind := range []string{"session_id", "login"} {
		endpoint, old := rotate(t, 3600), strict(t, kind)
		s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), kind))
		authToken, key := s.upgradeOf(t, kind)
		checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
		old.with(func() { old.password = "another"; clear(old.sessions) })
		for range 3 {
			checkAnswer(t, s.browse(t, "getLastUpdate", authToken, key), "auth-token-expired.xml")
		}
		if n := old.begun; n > 1 {
			t.Errorf("%s: %d sessions", kind, n)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestThatTheOldServiceRefusesMostAccountsIsDoubted(t *testing.T) {
	endpoint, old := rotate(t, 3600), strict(t, "login")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "login"))
	var pairs [][2]string
	for i := range 40 {
		body := strings.ReplaceAll(string(file(t, "requests", "upgrade.xml")), "Sonos_abc123", fmt.Sprint("Sonos_", i))
		authToken, key := tokensOf(s.post(t, []byte(body)))
		pairs = append(pairs, [2]string{authToken, key})
	}
	old.with(func() { old.password = "another" })
	expired := 0
	for _, p := range pairs {
		if strings.Contains(s.browse(t, "getLastUpdate", p[0], p[1]).body, "AuthTokenExpired") {
			expired++
		}
	}
	if expired == 0 || expired >= 20 {
		t.Errorf("%d of %d were told to sign in again", expired, len(pairs))
	}
}

func TestNothingOfOursReachesTheOldServiceThatIsNotUnderstood(t *testing.T) {
	endpoint, old := rotate(t, 3600), strict(t, "login")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "login"))
	authToken, key := s.upgradeOf(t, "login")
	account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>Sonos_abc123_1</householdId></loginToken>"
	old.asked()

	forged := authToken[:len(authToken)-1] + string(authToken[len(authToken)-1]^1)
	checkAnswer(t, s.browse(t, "getMetadata", forged, "other"), "auth-token-expired.xml")

	for name, change := range map[string]func(*http.Request){
		"two accounts": func(r *http.Request) { *r = *s.browsing(t, "getMetadata", account+account, "") },
		"a login beside it": func(r *http.Request) {
			*r = *s.browsing(t, "getMetadata", account+"<login><username>testuser</username><password>12345</password></login>", "")
		},
		"a body over 64 KiB": func(r *http.Request) { *r = *s.browsing(t, "getMetadata", account+strings.Repeat(" ", 1<<16), "") },
		"no XML":             func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"no XML, by Authorization": func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", authToken)
		},
		"GET by Authorization": func(r *http.Request) {
			*r = *s.browsing(t, "getMetadata", "", "Bearer "+authToken)
			r.Method, r.Body, r.ContentLength = http.MethodGet, nil, 0
		},
		"chunked and long": func(r *http.Request) {
			*r = *s.browsing(t, "getMetadata", strings.Repeat(" ", 1<<16)+account, "")
			r.ContentLength = -1
		},
	} {
		r := s.browsing(t, "getMetadata", account, "")
		change(r)
		if got := s.do(t, r); got.status != 500 || !strings.Contains(got.body, "Server.ServiceUnavailable") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if heard := old.checkOld(t); len(heard) != 0 {
		t.Errorf("the old service heard of %d requests", len(heard))
	}
	if !strings.Contains(s.log(t), `"outcome":"refused"`) {
		t.Error("the log does not tell")
	}
}

func TestAnUpgradeCallOfAHomeThatIsUpgradedGetsItsPairAgain(t *testing.T) {
	endpoint, old := rotate(t, 3600), strict(t, "login")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "login"))
	authToken, key := s.upgradeOf(t, "login")
	logins := endpoint.logins.Load()
	body := strings.NewReplacer("old-token", authToken, "old-key", key).Replace(string(file(t, "requests", "login-token.xml")))
	if a, k := tokensOf(s.post(t, []byte(body))); a != authToken || k != key {
		t.Errorf("got %q, %q", a, k)
	}
	r := s.browsing(t, "refreshAuthToken", "<loginToken><householdId>Sonos_abc123</householdId></loginToken>", authToken)
	if a, k := tokensOf(s.do(t, r)); a != authToken || k != key {
		t.Errorf("a refresh without a key got %q, %q", a, k)
	}
	if endpoint.logins.Load() != logins || len(old.asked()) != 0 {
		t.Error("somebody was asked")
	}
}

func TestHomesFromBeforeAreServedByWhatARefreshBrings(t *testing.T) {
	endpoint, old, keys, storage := rotate(t, 3600), strict(t, "login"), vaultFile(t), t.TempDir()
	endpoint.extra = `"legacy_user":"testuser","legacy_password":"12345",`
	before := caddyRunOn(t, storage, withVault(endpoint, old.server, keys))
	authToken, key := tokensOf(before.upgrade(t))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s := caddyRunOn(t, storage, withOld(endpoint, old.server, keys, "login {\nusername {token.legacy_user}\npassword {token.legacy_password}\n}"))
	for range 3 {
		checkServed(t, s.browse(t, "getLastUpdate", authToken, key))
	}
	if n := endpoint.refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	old.checkOld(t)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	// What only an upgrade fills they do not have.
	s = caddyRunOn(t, storage, withOld(endpoint, old.server, keys, "login"))
	checkAnswer(t, s.browse(t, "getLastUpdate", authToken, key), "auth-token-expired.xml")
}

func TestWhatOldServiceNeedsIsThereBeforeAHomeIsUpgraded(t *testing.T) {
	endpoint, old := rotate(t, 3600), strict(t, "login")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "login {\npassword {token.legacy_password}\n}"))
	checkAnswer(t, s.upgrade(t), "service-unavailable.xml")
	if log := s.log(t); !strings.Contains(log, "old_service needs token.legacy_password") {
		t.Error("the log does not tell")
	}
	if files, _ := filepath.Glob(filepath.Join("smapi_upgrade", "*")); len(files) != 0 {
		t.Error(files)
	}
}

// A secret is in nothing that an operator can see, nor on disk, whatever the old service says.
func TestNothingSecretGetsOutOfAnOldService(t *testing.T) {
	received := collect(t)
	endpoint, old := rotate(t, 3600), strict(t, "session_id")
	endpoint.extra = `"legacy_password":"marker-password",`
	o := operate(t, "tracing {\nspan request\n}\n"+withOld(endpoint, old.server, vaultFile(t), "session_id {\npassword {token.legacy_password}\n}"))
	old.with(func() { old.password, old.user = "marker-password", "marker-user" })
	authToken, key := tokensOf(o.post(t, marked(t, "upgrade.xml")))
	if !strings.HasPrefix(authToken, "smv1.") {
		t.Fatal("no upgrade")
	}
	account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>marker-household_1</householdId></loginToken>"
	calls := func() {
		for _, r := range []*http.Request{
			o.browsing(t, "getMetadata", account, ""),
			o.browsing(t, "getMetadata", "", "Bearer "+authToken),
			o.browsing(t, "getMetadata", account+account, ""),
			o.browsing(t, "getMetadata", account+strings.Repeat(" ", 1<<16), ""),
			o.browsing(t, "getMetadata", account+"<!", ""),
		} {
			if got := o.do(t, r); got.status == 500 && strings.Contains(got.body, "reference") {
				checkNoMarker(t, "a fault", got.body)
			}
		}
	}
	calls()
	if old.calls.Load() != 2 {
		t.Fatal("the old service was not called") // which would prove nothing
	}
	for _, method := range []string{"getSessionId", "getMetadata"} {
		for _, says := range []string{fault("Client.SessionIdInvalid"), "marker-password", fault("marker-password"), fault("Client.LoginInvalid")} {
			old.with(func() { clear(old.faults); clear(old.sessions); old.faults[method] = says })
			calls()
		}
	}
	old.Close()
	calls()
	log := o.log(t)
	checkNoMarker(t, "the log", log)
	for _, part := range []string{authToken[5:], key[4:]} {
		if strings.Contains(log, part) {
			t.Error("the log has a token of ours")
		}
	}
	for _, path := range []string{"/metrics", "/config/", "/smapi_upgrade/status", "/smapi_upgrade/ready", "/smapi_upgrade/page.json"} {
		got := o.admin.get(t, path)
		if got.status != http.StatusOK {
			t.Fatalf("%s: %+v", path, got)
		}
		checkNoMarker(t, path, got.body)
		if path == "/smapi_upgrade/status" && !strings.Contains(got.body, `"old_service":{"sessions":1,`) {
			t.Error(got.body)
		}
		if path == "/metrics" {
			for _, want := range []string{`outcome="translated"} `, `outcome="refused"} `, `old_sessions_total{result="begun"} `, "old_sessions 1"} {
				if !strings.Contains(strings.ReplaceAll(got.body, `credentials="login_token",`, ""), want) {
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
	endpoint, old := rotate(t, 3600), strict(t, "login")
	s := caddyRun(t, withOld(endpoint, old.server, vaultFile(t), "login"))
	log := s.log(t)
	for _, want := range []string{
		`"exchange":"anonymous","placeholders":["smapi.username","smapi.password"]`,
		"homes that were upgraded before old_service was on sign in again",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

func TestAListenerWhoSignsInBrowsesTheOldServiceToo(t *testing.T) {
	d, old := newDeviceServer(t), strict(t, "session_id")
	s := caddyRun(t, directive(d.server, old.server, "refresh_auth_tokens", "vault "+vaultFile(t), d.signIn(),
		"old_service session_id {\nusername {token.legacy_user}\npassword {token.legacy_password}\n}"))
	l := s.link(t)
	d.answers(says(200, `{"access_token":"marker-access","refresh_token":"marker-refresh","expires_in":3600,"legacy_user":"testuser","legacy_password":"12345"}`))
	authToken, key := tokensOf(s.poll(t, l))
	if !strings.HasPrefix(authToken, "smv1.") {
		t.Fatalf("the authToken is %q", authToken)
	}
	checkServed(t, s.browse(t, "getMetadata", authToken, key))

	// The home's app links a second account, with the token of the first in its header. That is answered here as ever.
	old.asked()
	body := strings.Replace(string(file(t, "requests", "sign-in-get-app-link.xml")), "</credentials>",
		"<loginToken><token>"+authToken+"</token></loginToken></credentials>", 1)
	if got := s.ask(t, "getAppLink", []byte(body)); got.status != 200 || !strings.Contains(got.body, "<linkCode>") {
		t.Errorf("got %+v", got)
	}
	if heard := old.checkOld(t); len(heard) != 0 {
		t.Error("the old service was asked")
	}
}
