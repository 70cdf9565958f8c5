package caddymodule_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// form is what a token endpoint was asked, once.
func form(t testing.TB, endpoint *caddytest.Server) (url.Values, http.Header) {
	t.Helper()
	asked := endpoint.Asked()
	if len(asked) != 1 {
		t.Fatalf("%d POSTs", len(asked))
	}
	values, err := url.ParseQuery(asked[0].Text)
	if err != nil {
		t.Fatal(err)
	}
	return values, asked[0].Header
}

const tokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

// Each kind of account, by a request as its players send it.
func TestEveryKindOfAccountIsExchangedAsConfigured(t *testing.T) {
	t.Setenv("SMAPI_TEST_REALM", "listeners {smapi.password}")
	for _, test := range []struct {
		name, request, options string
		want                   url.Values
	}{
		{"a user name and a password", "upgrade.xml", "", url.Values{
			"grant_type": {"password"}, "username": {"testuser"}, "password": {"12345"},
		}},
		{"the same, said", "upgrade.xml", "exchange login password", url.Values{
			"grant_type": {"password"}, "username": {"testuser"}, "password": {"12345"},
		}},
		{"with more fields", "upgrade.xml", "exchange login {\nparam device {smapi.device_provider}/{smapi.device_id}\n}", url.Values{
			"grant_type": {"password"}, "username": {"testuser"}, "password": {"12345"}, "device": {"Sonos/00-0E-58-5B-06-D6:8"},
		}},
		{"in other words", "upgrade.xml", "exchange login {\nparam username music\\{{smapi.username}\\}\n}", url.Values{
			"grant_type": {"password"}, "username": {"music{testuser}"}, "password": {"12345"},
		}},
		{"at Auth0", "upgrade.xml", `exchange login http://auth0.com/oauth/grant-type/password-realm {
			param username {smapi.username}
			param password {smapi.password}
			param realm {env.SMAPI_TEST_REALM}
		}`, url.Values{
			"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"},
			"username":   {"testuser"}, "password": {"12345"}, "realm": {"listeners {smapi.password}"},
		}},
		{"a session id", "session-id.xml", `exchange session_id urn:example:session {
			param session {smapi.session_id}
			param home {smapi.household_id}
		}`, url.Values{
			"grant_type": {"urn:example:session"}, "session": {"old-session"}, "home": {"Sonos_abc123"},
		}},
		{"a DeviceLink token", "login-token.xml", `exchange login_token {
			param subject_token {smapi.token}
			param subject_token_type urn:ietf:params:oauth:token-type:access_token
			param actor_token {smapi.key}
		}`, url.Values{
			"grant_type": {tokenExchange}, "subject_token": {"old-token"}, "actor_token": {"old-key"},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
		}},
		{"a JWT", "login-token.xml", "exchange login_token urn:ietf:params:oauth:grant-type:jwt-bearer {\nparam assertion {smapi.token}\n}", url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {"old-token"},
		}},
		{"nobody", "anonymous.xml", "exchange anonymous urn:example:anonymous {\nparam home {smapi.household_id}\n}", url.Values{
			"grant_type": {"urn:example:anonymous"}, "home": {"Sonos_abc123"},
		}},
		{"one kind of many", "session-id.xml", `exchange login
		exchange session_id urn:example:session {
			param session {smapi.session_id}
		}
		exchange anonymous urn:example:anonymous`, url.Values{
			"grant_type": {"urn:example:session"}, "session": {"old-session"},
		}},
		{"with what is said of all", "session-id.xml", `scope one two
		param home {smapi.household_id}
		param resource outside
		exchange session_id urn:example:session {
			param session {smapi.session_id}
			param resource inside
		}`, url.Values{
			"grant_type": {"urn:example:session"}, "session": {"old-session"}, "scope": {"one two"},
			"home": {"Sonos_abc123"}, "resource": {"inside"},
		}},
		{"with a scope of its own", "anonymous.xml", "scope outside\nexchange anonymous urn:example:anonymous {\nparam scope inside\n}", url.Values{
			"grant_type": {"urn:example:anonymous"}, "scope": {"inside"},
		}},
		{"without what is empty", "anonymous.xml", "param home {smapi.household_id}\nexchange anonymous urn:example:anonymous {\nparam nothing \"\"\n}", url.Values{
			"grant_type": {"urn:example:anonymous"}, "home": {"Sonos_abc123"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
			s := caddytest.Run(t, caddytest.Directive(endpoint, old, test.options))
			caddytest.CheckAnswer(t, s.Post(t, caddytest.File(t, "requests", test.request)), "upgraded.xml")
			if got, _ := form(t, endpoint); got.Encode() != test.want.Encode() {
				t.Errorf("the form is %v, want %v", got, test.want)
			}
			if n := len(old.Asked()); n != 0 {
				t.Errorf("the old service was asked %d times", n)
			}
		})
	}
}

func TestAKindWithoutAnExchangeSignsInAgain(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "exchange anonymous urn:example:anonymous"))
	for _, request := range []string{"upgrade.xml", "session-id.xml", "login-token.xml"} {
		caddytest.CheckAnswer(t, s.Post(t, caddytest.File(t, "requests", request)), "reauthorize.xml")
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

const exchangesTokens = `exchange login_token {
	param subject_token {smapi.token}
}`

func TestAnAccountThatWaitsForItsListenerIsNotExchanged(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), exchangesTokens))
	caddytest.CheckAnswer(t, s.Post(t, caddytest.File(t, "requests", "login-token-needs-reauth.xml")), "reauthorize.xml")
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

func TestATokenInTheAuthorizationHeaderIsExchanged(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(endpoint, old, exchangesTokens))
	for i, value := range []string{"header-token-%d", "Bearer header-token-%d"} {
		r := s.Request(t, caddytest.File(t, "requests", "login-token-in-authorization.xml"))
		r.Header.Set("Authorization", fmt.Sprintf(value, i))
		caddytest.CheckAnswer(t, s.Do(t, r), "upgraded.xml")
		if got, _ := form(t, endpoint); got.Get("subject_token") != fmt.Sprint("header-token-", i) {
			t.Errorf("the form is %v", got)
		}
	}

	// Something in front may have taken the header: no reason to sign anybody out.
	if got := s.Post(t, caddytest.File(t, "requests", "login-token-in-authorization.xml")); got.Status != http.StatusTeapot {
		t.Errorf("without the header: %+v", got)
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs without a token", n)
	}
}

func TestHeadersGoOutWithTheExchange(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), `header auth0-forwarded-for {client_ip}
		header X-Home {smapi.household_id}
		header X-Device {smapi.device_provider}:{smapi.device_id}
		header X-Fixed one
		header X-Fixed two
		header X-Nothing {header.X-Absent}
		header User-Agent example`))
	caddytest.CheckAnswer(t, s.Upgrade(t), "upgraded.xml")
	_, header := form(t, endpoint)
	for name, want := range map[string]string{
		"Auth0-Forwarded-For": "127.0.0.1", "X-Home": "Sonos_abc123", "X-Device": "Sonos:00-0E-58-5B-06-D6:8",
		"X-Fixed": "one, two", "X-Nothing": "", "User-Agent": "example", "Content-Type": "application/x-www-form-urlencoded",
	} {
		if got := strings.Join(header.Values(name), ", "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	// What a player says may be no header. The account is upgraded without.
	body := bytes.Replace(caddytest.File(t, "requests", "upgrade.xml"), []byte("Sonos_abc123"), []byte("a\nb"), 1)
	caddytest.CheckAnswer(t, s.Post(t, body), "upgraded.xml")
	if _, header := form(t, endpoint); len(header.Values("X-Home")) != 0 {
		t.Errorf("X-Home is %q", header.Values("X-Home"))
	}
}

// latin1 is a token endpoint that reads a form as ISO-8859-1 unless it is told otherwise, as older Java servers do.
func latin1(username, password string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil {
			panic(err)
		}
		read := func(field string) string {
			text := r.PostFormValue(field)
			if params["charset"] == "utf-8" {
				return text
			}
			var mangled strings.Builder
			for _, b := range []byte(text) {
				mangled.WriteRune(rune(b))
			}
			return mangled.String()
		}
		if read("username") != username || read("password") != password {
			caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
			return
		}
		caddytest.IssuesTokens(w, r)
	}
}

func TestAServerThatWantsTheCharsetSaidIsToldIt(t *testing.T) {
	sample := caddytest.File(t, "requests", "upgrade.xml")
	for _, test := range []struct{ username, password, option, answer, contentType string }{
		{"testuser", "paßword", "", "reauthorize.xml", "application/x-www-form-urlencoded"},
		{"testuser", "password", "", "upgraded.xml", "application/x-www-form-urlencoded"},
		{"testuser", "paßword", "form_charset utf-8", "upgraded.xml", "application/x-www-form-urlencoded; charset=utf-8"},
		{"björk", "12345", "form_charset utf-8", "upgraded.xml", "application/x-www-form-urlencoded; charset=utf-8"},
	} {
		endpoint := caddytest.Serve(t, latin1(test.username, test.password))
		s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), test.option, "header X-Home {smapi.household_id}"))
		caddytest.CheckAnswer(t, s.Post(t, []byte(strings.NewReplacer("testuser", test.username, "12345", test.password).Replace(string(sample)))), test.answer)
		if _, header := form(t, endpoint); header.Get("Content-Type") != test.contentType {
			t.Errorf("%q: Content-Type is %q", test.option, header.Get("Content-Type"))
		}
	}
}

// What a site that says no charset was refused is no rejection at one that does.
func TestARejectionForWantOfACharsetIsNoOthers(t *testing.T) {
	s := caddytest.Run(t, fmt.Sprintf(`route {
		smapi_upgrade /bare/* %[1]s {
			client_id id
			client_auth none
		}
		smapi_upgrade /said/* %[1]s {
			client_id id
			client_auth none
			form_charset utf-8
		}
	}`, caddytest.Serve(t, latin1("testuser", "paßword")).URL))
	body := bytes.Replace(caddytest.File(t, "requests", "upgrade.xml"), []byte("12345"), []byte("paßword"), 1)
	caddytest.CheckAnswer(t, (&caddytest.Site{URL: s.URL + "/bare"}).Post(t, body), "reauthorize.xml")
	caddytest.CheckAnswer(t, (&caddytest.Site{URL: s.URL + "/said"}).Post(t, body), "upgraded.xml")
}

// A log or another handler could print them.
func TestThePlaceholdersOfACallExistNowhereElse(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, "log_append seen [{smapi.password}{http.smapi.password}{smapi.household_id}]\n"+
		caddytest.Directive(endpoint, caddytest.OldService(t), "header X-Home {smapi.household_id}", exchangesPasswords))
	caddytest.CheckAnswer(t, s.Upgrade(t), "upgraded.xml")
	log := s.Log(t)
	if strings.Contains(log, "12345") || strings.Contains(log, "Sonos_abc123") || !strings.Contains(log, `"seen":"[`) {
		t.Errorf("the log is %s", log)
	}
}

const exchangesPasswords = `exchange login urn:example:password {
	param user {smapi.username}
	param secret {smapi.password}
}`

// Two sites may share a token endpoint and a client, and tell it apart who asks.
func TestWhatOneSiteIsGivenIsNotWhatAnotherIs(t *testing.T) {
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		caddytest.Says(200, fmt.Sprintf(`{"access_token":"%s%s","refresh_token":"k"}`, r.Header.Get("X-Tenant"), r.PostFormValue("tenant")))(w, r)
	})
	s := caddytest.Run(t, fmt.Sprintf(`route {
		smapi_upgrade /jazz/* %[1]s {
			client_id id
			client_auth none
			header X-Tenant jazz
		}
		smapi_upgrade /rock/* %[1]s {
			client_id id
			client_auth none
			header X-Tenant rock
		}
		smapi_upgrade /folk/* %[1]s {
			client_id id
			client_auth none
			param tenant folk
		}
	}`, endpoint.URL))
	for _, tenant := range []string{"jazz", "rock", "folk"} {
		at := &caddytest.Site{URL: s.URL + "/" + tenant}
		if token, _ := caddytest.Pair(t, at.Upgrade(t).Body); token != tenant {
			t.Errorf("%s is given the token of %s", tenant, token)
		}
	}
}

func TestAnotherDeviceOfTheHomeIsTheSameCall(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.Says(400, `{"error":"invalid_grant"}`))
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "param device {smapi.device_id}", "header X-Device {smapi.device_id}"))
	for i := range 5 {
		body := bytes.Replace(caddytest.File(t, "requests", "upgrade.xml"), []byte("D6:8"), fmt.Appendf(nil, "D6:%d", i), 1)
		caddytest.CheckAnswer(t, s.Post(t, body), "reauthorize.xml")
	}
	if n := len(endpoint.Asked()); n != 1 {
		t.Errorf("%d failed logins", n)
	}
}

func TestACallWithoutItsProofIsForwarded(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "exchange login_token urn:x {\nparam subject_token {smapi.key}\n}"))
	body := bytes.Replace(caddytest.File(t, "requests", "login-token.xml"), []byte("old-key"), nil, 1)
	if got := s.Post(t, body); got.Status != http.StatusTeapot {
		t.Errorf("%+v", got)
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

// A server that refuses a long header would seem to fail for all.
func TestALongHeaderIsLeftOut(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "header X-Said {header.X-Said}", "replay off"))
	for _, length := range []int{1024, 1025} {
		r := s.Request(t, caddytest.File(t, "requests", "upgrade.xml"))
		r.Header.Set("X-Said", strings.Repeat("x", length))
		caddytest.CheckAnswer(t, s.Do(t, r), "upgraded.xml")
		if _, header := form(t, endpoint); (header.Get("X-Said") != "") != (length == 1024) {
			t.Errorf("of %d bytes arrive %d", length, len(header.Get("X-Said")))
		}
	}
	body := bytes.Replace(caddytest.File(t, "requests", "upgrade.xml"), []byte("00-0E-58-5B-06-D6:8"), bytes.Repeat([]byte("x"), 256), 1)
	if got := s.Post(t, body); got.Status != http.StatusTeapot {
		t.Errorf("a long deviceId: %+v", got)
	}
}

func TestOnErrorSaysWhatAFailureMeans(t *testing.T) {
	const locked = `{"error":"account_locked"}`
	for _, test := range []struct {
		name, options string
		says          http.HandlerFunc
		answer        string
	}{
		{"a bare 403", "on_error 403 rejected", caddytest.Says(403, ""), "reauthorize.xml"},
		{"another bare status", "on_error 403 rejected", caddytest.Says(401, ""), "service-unavailable.xml"},
		{"an error of the server's own", "on_error account_locked rejected", caddytest.Says(500, locked), "reauthorize.xml"},
		{"an error that means something else here", "on_error invalid_grant unavailable", caddytest.Says(400, `{"error":"invalid_grant"}`), "service-unavailable.xml"},
		{"a refused client is no refused listener", "on_error 401 rejected", caddytest.Says(401, `{"error":"invalid_client"}`), "service-unavailable.xml"},
		{"an error of no fixed meaning", "on_error 400 rejected", caddytest.Says(400, locked), "reauthorize.xml"},
		{"in one exchange", "exchange login {\non_error 403 rejected\n}", caddytest.Says(403, ""), "reauthorize.xml"},
		{"in another exchange", "exchange login\nexchange anonymous urn:x {\non_error 403 rejected\n}", caddytest.Says(403, ""), "service-unavailable.xml"},
		{"in one exchange other than in all", "on_error 403 rejected\nexchange login {\non_error 403 unavailable\n}", caddytest.Says(403, ""), "service-unavailable.xml"},
		{"a success", "on_error 400 rejected", caddytest.IssuesTokens, "upgraded.xml"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, test.says), caddytest.OldService(t), test.options))
			caddytest.CheckAnswer(t, s.Upgrade(t), test.answer)
			if strings.Contains(test.options, "account_locked") && !strings.Contains(s.Log(t), `"oauth_error":"account_locked"`) {
				t.Error("the log does not name the error that on_error names")
			}
		})
	}
}

// wellKnown is an authorization server with metadata at a path, which it is asked for once.
func wellKnown(t *testing.T, path string, metadata func(issuer string) string) *caddytest.Server {
	t.Helper()
	var s *caddytest.Server
	s = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case path:
			_, _ = io.WriteString(w, metadata(s.URL))
		case "/oauth2/token":
			caddytest.IssuesTokens(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	return s
}

func TestTheTokenEndpointIsFoundByItsIssuer(t *testing.T) {
	tells := func(suffix string) func(string) string {
		return func(issuer string) string {
			return fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q}`, issuer+suffix, issuer+"/oauth2/token")
		}
	}
	for _, test := range []struct {
		name, path, issuer string
		metadata           func(string) string
		answer, log        string
	}{
		{"OpenID Connect", "/.well-known/openid-configuration", "", tells(""), "upgraded.xml", ""},
		{"OpenID Connect, with a path", "/realms/music/.well-known/openid-configuration", "/realms/music", tells("/realms/music"), "upgraded.xml", ""},
		{"OpenID Connect, with a slash", "/.well-known/openid-configuration", "/", tells("/"), "upgraded.xml", ""},
		{"RFC 8414", "/.well-known/oauth-authorization-server", "", tells(""), "upgraded.xml", ""},
		{"RFC 8414, with a path", "/.well-known/oauth-authorization-server/music", "/music", tells("/music"), "upgraded.xml", ""},
		{"another's", "/.well-known/openid-configuration", "", tells("/other"), "service-unavailable.xml", "another issuer"},
		{"nothing", "/elsewhere", "", tells(""), "service-unavailable.xml", `"outcome":"misconfigured"`},
		{"a captive page", "/.well-known/openid-configuration", "", func(string) string { return "<html>" }, "service-unavailable.xml", `"outcome":"unavailable"`},
		{"a token endpoint in the clear", "/.well-known/openid-configuration", "", func(issuer string) string {
			return fmt.Sprintf(`{"issuer":%q,"token_endpoint":"http://auth.example.com/token"}`, issuer)
		}, "service-unavailable.xml", "http beyond loopback"},
		{"no token endpoint", "/.well-known/openid-configuration", "", func(issuer string) string {
			return fmt.Sprintf(`{"issuer":%q}`, issuer)
		}, "service-unavailable.xml", `"outcome":"misconfigured"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			auth := wellKnown(t, test.path, test.metadata)
			s := caddytest.Run(t, fmt.Sprintf("smapi_upgrade {\nissuer %s%s\nclient_id id\nclient_auth none\nreplay off\n}", auth.URL, test.issuer))
			if n := len(auth.Asked()); n != 0 {
				t.Errorf("asked %d times before the first call", n)
			}
			for range 2 {
				caddytest.CheckAnswer(t, s.Upgrade(t), test.answer)
			}
			if log := s.Log(t); !strings.Contains(log, test.log) {
				t.Errorf("the log lacks %q: %s", test.log, log)
			}
			gets := 0
			for _, r := range auth.Asked() {
				if r.Method == http.MethodGet {
					gets++
				} else if r.URL.Path != "/oauth2/token" {
					t.Errorf("a password went to %s", r.URL.Path)
				}
			}
			if test.answer == "upgraded.xml" && gets > 2 {
				t.Errorf("the metadata was asked for %d times", gets)
			}
		})
	}
}

func TestAnOutageOfTheIssuerIsUnavailableUntilItEnds(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	down.Store(true)
	var auth *caddytest.Server
	auth = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.Method == http.MethodGet:
			fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, auth.URL, auth.URL+"/token")
		default:
			caddytest.IssuesTokens(w, r)
		}
	})
	s := caddytest.Apart(t, fmt.Sprintf("smapi_upgrade {\nissuer %s\nclient_id id\nclient_auth none\n}", auth.URL))
	caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml")
	if !strings.Contains(s.Log(t), `"outcome":"unavailable"`) {
		t.Error("the log does not call it an outage")
	}
	down.Store(false)
	caddytest.Eventually(t, "the outage ends", func() bool { return s.Upgrade(t).Status == http.StatusOK })
}

// Two sites may share a token endpoint and a client, and differ in what they make of its answers.
func TestWhatOneSiteCallsARejectionIsNoneAtAnother(t *testing.T) {
	for answers, request := range map[string][2]string{"getDeviceAuthToken": {"upgrade.xml", "reauthorize.xml"}, "refreshAuthToken": {"refresh-auth-token.xml", "auth-token-expired.xml"}} {
		endpoint := caddytest.Serve(t, caddytest.Says(503, ""))
		s := caddytest.Run(t, fmt.Sprintf(`route {
			smapi_upgrade /strict/* %[1]s {
				client_id id
				client_auth none
				refresh_auth_tokens
				on_error 503 rejected
			}
			smapi_upgrade /lenient/* %[1]s {
				client_id id
				client_auth none
				refresh_auth_tokens
			}
		}`, endpoint.URL))
		strict, lenient := &caddytest.Site{URL: s.URL + "/strict"}, &caddytest.Site{URL: s.URL + "/lenient"}
		caddytest.CheckAnswer(t, strict.Call(t, answers, request[0]), request[1])
		caddytest.CheckAnswer(t, lenient.Call(t, answers, request[0]), "service-unavailable.xml")
		if n := len(endpoint.Asked()); n > 1 {
			t.Errorf("%d POSTs", n) // the second of which might be another failed login
		}
	}
}

func TestPlayersWithoutAnAccountAreToldApartByTheirHomes(t *testing.T) {
	endpoint := caddytest.Serve(t, caddytest.Says(500, ""))
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "exchange anonymous urn:x"))
	for i := range 50 {
		s.Post(t, bytes.Replace(caddytest.File(t, "requests", "anonymous.xml"), []byte("Sonos_abc123"), fmt.Appendf(nil, "Sonos_%d", i), 1))
	}
	if n := len(endpoint.Asked()); n != 20 {
		t.Errorf("%d POSTs to an endpoint that fails for 20 homes", n)
	}
}

// What is sent as a refresh token tells one account from others, wherever the exchange has it from.
func TestWhoUpgradesByARefreshTokenGetsNobodyElsesTokens(t *testing.T) {
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		caddytest.Says(http.StatusOK, `{"access_token":"of-`+r.PostFormValue("refresh_token")+`","refresh_token":"next"}`)(w, r)
	})
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "refresh_auth_tokens", `exchange session_id refresh_token {
			param refresh_token {smapi.session_id}
		}
		exchange login_token refresh_token {
			param refresh_token {smapi.token}
		}`))
	for _, test := range []struct{ request, old string }{{"session-id", "old-session"}, {"login-token", "old-token"}} {
		for _, mine := range []string{"mine", "yours", "mine"} {
			body := bytes.ReplaceAll(caddytest.File(t, "requests", test.request+".xml"), []byte(test.old), []byte(mine))
			if authToken, _ := caddytest.TokensOf(s.Post(t, body)); authToken != "of-"+mine {
				t.Errorf("%s: %s gets the token %q", test.request, mine, authToken)
			}
		}
	}
	if n := len(endpoint.Asked()); n != 2 {
		t.Errorf("%d POSTs for two refresh tokens", n)
	}
}
