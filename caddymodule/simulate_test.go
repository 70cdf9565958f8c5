package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"
)

func simulation(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return command(t, append([]string{"simulate"}, args...)...)
}

func simulate(t testing.TB, stdin string, args ...string) commanded {
	t.Helper()
	return smapiUpgrade(t, strings.NewReader(stdin), append([]string{"simulate"}, args...)...)
}

// What varies in a summary.
var varying = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`\d+(\.\d+)? (µs|ms|s)\b`), "<time>"},
	{regexp.MustCompile(`\d+(\.\d+)? calls/s`), "<rate> calls/s"},
	{regexp.MustCompile(`("(seconds|calls_per_second|p\d\d|max)": )[0-9.e-]+`), "$1<number>"},
	{regexp.MustCompile(`(support: |"references": \[\s*")[A-Z2-7]{8}.*`), "$1<references>"},
	{regexp.MustCompile(`http://127.0.0.1:\d+`), "http://localhost:8088"},
}

// session is what a terminal would show, without what varies.
func session(t *testing.T, got commanded, args ...string) string {
	t.Helper()
	for line := range strings.Lines(got.stdout + got.stderr) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("a line of more than 80 columns: %s", line)
		}
	}
	text := fmt.Sprintf("$ caddy smapi-upgrade simulate %s\n%s%s[exit status %d]\n\n", strings.Join(args, " "), got.stdout, got.stderr, got.code)
	for _, v := range varying {
		text = v.is.ReplaceAllString(text, v.as)
	}
	return text
}

func checkSession(t *testing.T, got commanded, name string, args ...string) {
	t.Helper()
	recorded(t, []byte(session(t, got, args...)), filepath.Join(testdata, "commands", "simulate-"+name+".txt"))
}

// decides is a token endpoint that answers by who asks.
func decides(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	switch name := form.Get("username"); {
	case strings.HasSuffix(name, "7"):
		says(400, `{"error":"invalid_grant"}`)(w, r)
	case strings.HasSuffix(name, "9"):
		says(500, "")(w, r)
	default:
		issuesTokens(w, r)
	}
}

func TestSimulateSaysWhatPlayersAreTold(t *testing.T) {
	rejects, breaks := says(400, `{"error":"invalid_grant"}`), says(500, "")
	oldFault := says(500, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>`+
		`<faultcode>s:Server</faultcode><faultstring>what is that?</faultstring></s:Fault></s:Body></s:Envelope>`)
	nickname := says(200, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`+
		`<getDeviceAuthTokenResponse xmlns="http://www.sonos.com/Services/1.1"><getDeviceAuthTokenResult>`+
		`<authToken>a</authToken><privateKey>b</privateKey><userInfo><userIdHashCode>c</userIdHashCode><nickname>d</nickname></userInfo>`+
		`</getDeviceAuthTokenResult></getDeviceAuthTokenResponse></s:Body></s:Envelope>`)
	teapot := says(http.StatusTeapot, "the old service")
	for name, test := range map[string]struct {
		endpoint, old http.HandlerFunc
		more          string
		args          []string
	}{
		"one":         {issuesTokens, teapot, "", nil},
		"upgraded":    {issuesTokens, teapot, "", []string{"--accounts", "30", "--households", "10"}},
		"mixed":       {decides, teapot, "", []string{"--accounts", "40", "--seed", "7"}},
		"rejected":    {rejects, teapot, "", []string{"--accounts", "2"}},
		"not-linked":  {rejects, teapot, "on_rejected not_linked", []string{"--accounts", "2"}},
		"unavailable": {breaks, teapot, "", []string{"--accounts", "2"}},
		"old-service": {issuesTokens, teapot, "mode observe", []string{"--accounts", "2"}},
		"old-fault":   {issuesTokens, oldFault, "households 0%", []string{"--accounts", "2"}},
		"nickname":    {issuesTokens, nickname, "mode observe", []string{"--accounts", "2"}},
		"session-id":  {issuesTokens, teapot, "exchange session_id {\nparam subject_token {smapi.session_id}\n}", []string{"--credentials", "session_id", "--accounts", "12"}},
		"login-token": {issuesTokens, teapot, "exchange login_token {\nparam subject_token {smapi.token}\nparam key {smapi.key}\n}", []string{"--credentials", "login_token", "--accounts", "12"}},
		"anonymous":   {issuesTokens, teapot, "exchange anonymous urn:x:household {\nparam household {smapi.household_id}\n}", []string{"--credentials", "anonymous", "--accounts", "12"}},
		"no-exchange": {issuesTokens, teapot, "", []string{"--credentials", "anonymous"}},
		"repeat-lost": {issuesTokens, teapot, "", []string{"--accounts", "30", "--repeat-lost", "10%"}},
		"json":        {decides, teapot, "", []string{"--accounts", "10", "--repeat-lost", "20%", "--concurrency", "1", "--json"}},
		"rate":        {issuesTokens, teapot, "", []string{"--accounts", "5", "--rate", "100"}},
		"households":  {issuesTokens, teapot, "households 50%", []string{"--accounts", "40", "--seed", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := caddyRun(t, directive(serve(t, test.endpoint), serve(t, test.old), test.more))
			args := append([]string{s.url}, test.args...)
			checkSession(t, simulate(t, "", args...), name, args...)
		})
	}
}

func TestSimulateTellsAServiceThatIsNotThere(t *testing.T) {
	args := []string{"http://" + deadAddress(t), "--accounts", "3"}
	checkSession(t, simulate(t, "", args...), "nobody", args...)
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
		all.WriteString(session(t, got, test.args...))
	}
	recorded(t, []byte(all.String()), filepath.Join(testdata, "commands", "simulate-refuses.txt"))
}

func TestSimulateAsksAnotherHostWhereItIsAllowed(t *testing.T) {
	s := serve(t, says(http.StatusOK, string(file(t, "answers", "upgraded.xml"))))
	elsewhere := strings.Replace(s.URL, "127.0.0.1", "0.0.0.0", 1) // which is no loopback address, and yet leads there
	got := simulate(t, "", elsewhere, "--yes-this-is-my-service")
	if got.code != 0 || len(s.asked()) != 1 {
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
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		if form.Get("password") != "marker <&> 2" {
			t.Errorf("the password is %q", form.Get("password"))
		}
		if name := form.Get("username"); name == "marker-lost" {
			says(400, `{"error":"invalid_grant","error_description":"marker"}`)(w, r)
			return
		}
		says(200, `{"access_token":"marker-token","refresh_token":"marker-key"}`)(w, r)
	})
	s := caddyRun(t, directive(endpoint, oldService(t)))
	const accounts = "marker-1\tmarker <&> 2\nmarker-2\tmarker <&> 2\nmarker-lost\tmarker <&> 2\n"
	path := filepath.Join(t.TempDir(), "accounts")
	write(t, path, accounts)
	for name, got := range map[string]commanded{
		"from a file":    simulate(t, "", s.url, "--from", path),
		"from stdin":     simulate(t, accounts, s.url, "--from", "-", "--seed", "2", "--repeat-lost", "50%"),
		"as JSON":        simulate(t, accounts, s.url, "--from", "-", "--seed", "3", "--json"),
		"malformed":      simulate(t, accounts+"marker-3", s.url, "--from", "-"),
		"another host":   simulate(t, accounts, "http://smapi.invalid/", "--from", "-"),
		"with a timeout": simulate(t, accounts, s.url, "--from", "-", "--seed", "4", "--timeout", "1ms"),
	} {
		if strings.Contains(got.stdout+got.stderr, "marker") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if n := len(endpoint.asked()); n < 7 { // without those that are cut short
		t.Errorf("%d logins", n)
	}
}

func TestALostAnswerCostsNoSecondLogin(t *testing.T) {
	var logins atomic.Int32
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
		logins.Add(1)
		issuesTokens(w, r)
	})
	s := caddyRun(t, directive(endpoint, oldService(t)))
	got := simulate(t, "", s.url, "--accounts", "40", "--repeat-lost", "100%")
	if got.code != 0 || logins.Load() != 40 {
		t.Errorf("%d logins: %+v", logins.Load(), got)
	}
}

func TestSimulateSumsUpWhenItIsInterrupted(t *testing.T) {
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	endpoint := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	s := caddyRun(t, directive(endpoint, oldService(t)))
	defer close(release) // exchanges that were begun are ended, also without their players
	args := []string{s.url, "--accounts", "10", "--concurrency", "2"}
	cmd := simulation(t, args...)
	wait := start(t, cmd)
	<-arrived
	<-arrived
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	checkSession(t, wait(), "interrupted", args...)
}

func TestTheFamilyOfCommandsExplainsItself(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"help": {"smapi-upgrade"}, "unknown": {"smapi-upgrade", "upgrade"},
		"no number": {"smapi-upgrade", "simulate", "http://localhost:1", "--accounts", "many"},
	} {
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), asCaddy+"=1")
		got := start(t, cmd)()
		wanted := map[string]string{"help": "simulate ", "unknown": "--help", "no number": "--help"}[name]
		if code := map[string]int{"unknown": 2, "no number": 2}[name]; got.code != code || !strings.Contains(got.stdout+got.stderr, wanted) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestSimulateExplainsItself(t *testing.T) {
	checkSession(t, simulate(t, "", "--help"), "help", "--help")
}
