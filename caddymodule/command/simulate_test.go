package command

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func simulate(t testing.TB, stdin string, args ...string) commanded {
	t.Helper()
	return here(t, strings.NewReader(stdin), append([]string{"simulate"}, args...)...)
}

// decides is a token endpoint that answers by who asks.
func decides(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	switch name := form.Get("username"); {
	case strings.HasSuffix(name, "7"):
		caddytest.Says(400, `{"error":"invalid_grant"}`)(w, r)
	case strings.HasSuffix(name, "9"):
		caddytest.Says(500, "")(w, r)
	default:
		caddytest.IssuesTokens(w, r)
	}
}

// loggedIn is an old service that knows nothing but logins.
func loggedIn(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if strings.Contains(string(body), "oken>") || strings.Contains(r.Header.Get("Authorization"), "Bearer") || !strings.Contains(string(body), "login>") {
		caddytest.Says(500, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>`+
			`<faultcode>Client.LoginInvalid</faultcode><faultstring>who is that?</faultstring></s:Fault></s:Body></s:Envelope>`)(w, r)
		return
	}
	_, method, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
	caddytest.Says(200, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`+
		`<`+method+`Response xmlns="http://www.sonos.com/Services/1.1"/></s:Body></s:Envelope>`)(w, r)
}

func TestSimulateSaysWhatPlayersAreTold(t *testing.T) {
	rejects, breaks := caddytest.Says(400, `{"error":"invalid_grant"}`), caddytest.Says(500, "")
	oldFault := caddytest.Says(500, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>`+
		`<faultcode>s:Server</faultcode><faultstring>what is that?</faultstring></s:Fault></s:Body></s:Envelope>`)
	nickname := caddytest.Says(200, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`+
		`<getDeviceAuthTokenResponse xmlns="http://www.sonos.com/Services/1.1"><getDeviceAuthTokenResult>`+
		`<authToken>a</authToken><privateKey>b</privateKey><userInfo><userIdHashCode>c</userIdHashCode><nickname>d</nickname></userInfo>`+
		`</getDeviceAuthTokenResult></getDeviceAuthTokenResponse></s:Body></s:Envelope>`)
	for name, test := range map[string]struct {
		endpoint, old http.HandlerFunc
		more          string
		args          []string
		code          int
	}{
		"one":         {caddytest.IssuesTokens, caddytest.Teapot, "", nil, 0},
		"upgraded":    {caddytest.IssuesTokens, caddytest.Teapot, "", []string{"--accounts", "30", "--households", "10"}, 0},
		"mixed":       {decides, caddytest.Teapot, "", []string{"--accounts", "40", "--seed", "7"}, 3},
		"rejected":    {rejects, caddytest.Teapot, "", []string{"--accounts", "2"}, 1},
		"not-linked":  {rejects, caddytest.Teapot, "on_rejected not_linked", []string{"--accounts", "2"}, 1},
		"unavailable": {breaks, caddytest.Teapot, "", []string{"--accounts", "2"}, 3},
		"old-service": {caddytest.IssuesTokens, caddytest.Teapot, "mode observe", []string{"--accounts", "2"}, 3},
		"old-fault":   {caddytest.IssuesTokens, oldFault, "households 0%", []string{"--accounts", "2"}, 3},
		"nickname":    {caddytest.IssuesTokens, nickname, "mode observe", []string{"--accounts", "2"}, 3},
		"session-id":  {caddytest.IssuesTokens, caddytest.Teapot, "exchange session_id {\nparam subject_token {smapi.session_id}\n}", []string{"--credentials", "session_id", "--accounts", "12"}, 0},
		"login-token": {caddytest.IssuesTokens, caddytest.Teapot, "exchange login_token {\nparam subject_token {smapi.token}\nparam key {smapi.key}\n}", []string{"--credentials", "login_token", "--accounts", "12"}, 0},
		"anonymous":   {caddytest.IssuesTokens, caddytest.Teapot, "exchange anonymous urn:x:household {\nparam household {smapi.household_id}\n}", []string{"--credentials", "anonymous", "--accounts", "12"}, 0},
		"no-exchange": {caddytest.IssuesTokens, caddytest.Teapot, "", []string{"--credentials", "anonymous"}, 1},
		"repeat-lost": {caddytest.IssuesTokens, caddytest.Teapot, "", []string{"--accounts", "30", "--repeat-lost", "10%"}, 0},
		"json":        {decides, caddytest.Teapot, "", []string{"--accounts", "10", "--repeat-lost", "20%", "--concurrency", "1", "--json"}, 3},
		"rate":        {caddytest.IssuesTokens, caddytest.Teapot, "", []string{"--accounts", "5", "--rate", "100"}, 0},
		"after":       {caddytest.IssuesTokens, loggedIn, "refresh_auth_tokens\nvault " + caddytest.VaultFile(t) + "\nold_service login", []string{"--accounts", "6", "--after", "24"}, 0},
		"after-alone": {caddytest.IssuesTokens, loggedIn, "", []string{"--accounts", "6", "--after", "24"}, 3},
		"households":  {caddytest.IssuesTokens, caddytest.Teapot, "households 50%", []string{"--accounts", "40", "--seed", "3"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			site := caddyRun(t, "admin off", caddytest.Directive(caddytest.Serve(t, test.endpoint), caddytest.Serve(t, test.old), test.more))
			args := append([]string{site}, test.args...)
			checkSession(t, simulate(t, "", args...), test.code, "simulate-"+name, "simulate "+strings.Join(args, " "))
		})
	}
}

func TestSimulateTellsAServiceThatIsNotThere(t *testing.T) {
	args := []string{"http://" + caddytest.DeadAddress(t), "--accounts", "3"}
	checkSession(t, simulate(t, "", args...), 3, "simulate-nobody", "simulate "+strings.Join(args, " "))
}

func TestSimulateRefusesWhatItDoesNotUnderstand(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	t.Cleanup(server.Close)
	var all strings.Builder
	for _, test := range []struct {
		stdin string
		args  []string
	}{
		{"", nil},
		{"", []string{server.URL, "hunter2"}},
		{"", []string{"https://music.example.com/smapi"}},
		{"", []string{"http://0.0.0.0"}},
		{"", []string{"localhost:8088"}},
		{"", []string{"http://user:hunter2@localhost"}},
		{"", []string{server.URL, "--password=hunter2"}},
		{"", []string{server.URL, "--credentials", "basic"}},
		{"", []string{server.URL, "--accounts", "0"}},
		{"", []string{server.URL, "--households", "0"}},
		{"", []string{server.URL, "--rate", "0"}},
		{"", []string{server.URL, "--concurrency", "1001"}},
		{"", []string{server.URL, "--repeat-lost", "10"}},
		{"", []string{server.URL, "--timeout", "0s"}},
		{"user\thunter2\n", []string{server.URL, "--from", "-", "--accounts", "2"}},
		{"", []string{server.URL, "--credentials", "anonymous", "--from", "-"}},
		{"# none\n", []string{server.URL, "--from", "-"}},
		{"", []string{server.URL, "--from", "no-such-file"}},
		{"user\thunter2\n\nuser hunter2\n", []string{server.URL, "--from", "-"}},
		{"user\thunter2\n", []string{server.URL, "--from", "-", "--credentials", "session_id"}},
	} {
		got := simulate(t, test.stdin, test.args...)
		if got.code != 2 || got.stdout != "" || strings.Contains(got.stderr, "hunter2") {
			t.Errorf("%+v", got)
		}
		all.WriteString(session(t, got, "simulate "+strings.Join(test.args, " ")) + "\n")
	}
	recorded(t, all.String(), "simulate-refuses")
}

func TestSimulateAsksAnotherHostWhereItIsAllowed(t *testing.T) {
	s := caddytest.Serve(t, caddytest.Says(http.StatusOK, string(caddytest.File(t, "answers", "upgraded.xml"))))
	elsewhere := strings.Replace(s.URL, "127.0.0.1", "0.0.0.0", 1) // which is no loopback address, and yet leads there
	got := simulate(t, "", elsewhere, "--yes-this-is-my-service")
	if got.code != 0 || len(s.Asked()) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestSimulateTakesEveryLoopbackAddress(t *testing.T) {
	for _, host := range []string{"localhost:1", "LOCALHOST:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"} {
		if got := simulate(t, "", "http://"+host+"/x", "--timeout", "1s"); got.code != 3 {
			t.Errorf("%s: %+v", host, got)
		}
	}
	for _, host := range []string{"127.0.0.1.example.com", "localhost.example.com", "0x7f.1", "10.0.0.1", "[::]", "[fe80::1]", "2130706433"} {
		if got := simulate(t, "", "http://"+host+"/x", "--timeout", "1s"); got.code != 2 {
			t.Errorf("%s: %+v", host, got)
		}
	}
}

func TestSimulatePrintsNoCredentialsAndNoTokens(t *testing.T) {
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		if form.Get("password") != "marker <&> 2" {
			t.Errorf("the password is %q", form.Get("password"))
		}
		if name := form.Get("username"); name == "marker-lost" {
			caddytest.Says(400, `{"error":"invalid_grant","error_description":"marker"}`)(w, r)
			return
		}
		caddytest.Says(200, `{"access_token":"marker-token","refresh_token":"marker-key"}`)(w, r)
	})
	site := caddyRun(t, "admin off", caddytest.Directive(endpoint, caddytest.OldService(t), ""))
	const accounts = "marker-1\tmarker <&> 2\nmarker-2\tmarker <&> 2\nmarker-lost\tmarker <&> 2\n"
	path := filepath.Join(t.TempDir(), "accounts")
	caddytest.Write(t, path, accounts)
	for name, got := range map[string]commanded{
		"from a file":    simulate(t, "", site, "--from", path),
		"from stdin":     simulate(t, accounts, site, "--from", "-", "--seed", "2", "--repeat-lost", "50%"),
		"as JSON":        simulate(t, accounts, site, "--from", "-", "--seed", "3", "--json"),
		"malformed":      simulate(t, accounts+"marker-3", site, "--from", "-"),
		"another host":   simulate(t, accounts, "http://smapi.invalid/", "--from", "-"),
		"with a timeout": simulate(t, accounts, site, "--from", "-", "--seed", "4", "--timeout", "1ms"),
	} {
		if strings.Contains(got.stdout+got.stderr, "marker") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if n := len(endpoint.Asked()); n < 7 { // without those that are cut short
		t.Errorf("%d logins", n)
	}
}

func TestALostAnswerCostsNoSecondLogin(t *testing.T) {
	var logins atomic.Int32
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		logins.Add(1)
		caddytest.IssuesTokens(w, r)
	})
	site := caddyRun(t, "admin off", caddytest.Directive(endpoint, caddytest.OldService(t), ""))
	got := simulate(t, "", site, "--accounts", "40", "--repeat-lost", "100%")
	if got.code != 0 || logins.Load() != 40 {
		t.Errorf("%d logins: %+v", logins.Load(), got)
	}
}
