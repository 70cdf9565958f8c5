package command

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// What only a process shows: exit codes, flags, help, standard input and signals. The rest is tested in this process.

func TestAProcessSaysTheSameAndEndsWithAStatus(t *testing.T) {
	t.Parallel()
	secret := caddytest.Write(t, filepath.Join(t.TempDir(), "secret"), "marker-secret")
	checked := func(answer http.HandlerFunc, clientSecret string) []string {
		endpoint := caddytest.Serve(t, answer)
		return []string{"check", "--yes", "--config", configFile(t, fmt.Sprintf("smapi_upgrade %s/token?key=marker {\nclient_id the-id\nclient_secret %s\n}", endpoint.URL, clientSecret))}
	}
	byFile := "{file." + secret + "}"
	call := marked(t, "upgrade.xml")
	capture := caddytest.Write(t, filepath.Join(t.TempDir(), "capture"), string(httpCapture(call, xmlType, upgrade, length(call))))
	poll := caddytest.Write(t, filepath.Join(t.TempDir(), "capture"), string(marked(t, "forward-poll.xml")))
	simulated := func(endpoint http.HandlerFunc, args ...string) []string {
		return append([]string{"simulate", played(t, endpoint)}, args...)
	}
	for _, test := range []struct {
		golden, line string
		stdin        string
		args         []string
		code         int
	}{
		{"check-well", "check --yes", testAccount["login"], checked(knows(issues, rejects), byFile), 0},
		{"check-literal-secret", "check --yes", testAccount["login"], checked(knows(issues, rejects), "marker-secret"), 1},
		{"check-rejected", "check --yes", testAccount["login"], checked(rejects, byFile), 3},
		{"check-json", "check --yes --refresh --json", testAccount["login"], append(checked(knows(issues, rejects), byFile), "--refresh", "--json"), 0},
		{"process-check-no-yes", "check", testAccount["login"], []string{"check", "--config", configFile(t, "smapi_upgrade https://auth.example.com {\nclient_id id\nclient_auth none\n}")}, 2},
		{"explain-request", "explain capture", "", []string{"explain", capture}, 0},
		{"explain-poll", "explain capture", "", []string{"explain", poll}, 1},
		{"process-explain-nothing", "explain -", "", []string{"explain", "-"}, 2},
		{"simulate-one", "simulate http://localhost:9000", "", simulated(caddytest.Says(200, string(caddytest.File(t, "answers", "upgraded.xml")))), 0},
		{"simulate-rejected", "simulate http://localhost:9000 --accounts 2", "", simulated(caddytest.Says(200, string(caddytest.File(t, "answers", "reauthorize.xml"))), "--accounts", "2"), 1},
		{"process-simulate-nothing", "simulate http://localhost:9000 --from - --json", "marker\tmarker\n", simulated(caddytest.Says(502, ""), "--from", "-", "--json"), 3},
		{"process-simulate-elsewhere", "simulate https://music.example.com", "", []string{"simulate", "https://music.example.com"}, 2},
		{"process-status-no-handler", "status", "", []string{"status", "--address", admin(t, 200, `{"endpoints":[]}`)}, 1},
		{"process-unknown-flag", "status --now", "", []string{"status", "--now"}, 2},
		{"process-unknown-command", "upgrade", "", []string{"upgrade"}, 2},
		{"help", "", "", nil, 0},
		{"status-help", "status --help", "", []string{"status", "--help"}, 0},
		{"check-help", "check --help", "", []string{"check", "--help"}, 0},
		{"explain-help", "explain --help", "", []string{"explain", "--help"}, 0},
		{"simulate-help", "simulate --help", "", []string{"simulate", "--help"}, 0},
	} {
		t.Run(test.golden, func(t *testing.T) {
			checkSession(t, process(t, strings.NewReader(test.stdin), test.args...), test.code, test.golden, test.line)
		})
	}
}

// The time is that of the endpoint, and passes beside other processes.
func TestCheckSaysThatAnEndpointHangs(t *testing.T) {
	t.Parallel()
	endpoint := caddytest.Serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	secret := caddytest.Write(t, filepath.Join(t.TempDir(), "secret"), "marker-secret")
	config := configFile(t, fmt.Sprintf("smapi_upgrade %s/token?key=marker {\nclient_id the-id\nclient_secret {file.%s}\ntimeout 2s\n}", endpoint.URL, secret))
	checkSession(t, process(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes"), 3, "check-hangs", "check --yes")
	if n := len(endpoint.Asked()); n != 1 {
		t.Errorf("the endpoint was asked %d times", n)
	}
}

// played is a site with an answer for players.
func played(t testing.TB, answer http.HandlerFunc) string { return caddytest.Serve(t, answer).URL }

func TestHelpIsACommandToo(t *testing.T) {
	for asking, flagging := range map[string]string{
		"help": "--help", "help check": "check --help", "help status": "status --help", "help help": "help --help",
		"vault help": "vault --help", "help vault keygen": "vault keygen --help", "vault help keygen": "vault keygen --help",
	} {
		asked, flagged := process(t, nil, strings.Fields(asking)...), process(t, nil, strings.Fields(flagging)...)
		if asked != flagged || asked.code != 0 || asked.stdout == "" {
			t.Errorf("%s is\n%+v\nand %s is\n%+v", asking, asked, flagging, flagged)
		}
	}
	for _, args := range []string{"help upgrade", "vault help open", "vault open"} {
		if got := here(t, nil, strings.Fields(args)...); got.code != 2 || !strings.Contains(got.stderr, "no such command") {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// A command line stands in the shell's history and in the list of processes.
func TestNoHelpShowsAPasswordOnACommandLine(t *testing.T) {
	for _, command := range commands {
		for line := range strings.Lines(command().Example) {
			if text := strings.TrimSpace(line); strings.HasPrefix(text, "$") && strings.Contains(text, "password") {
				t.Errorf("%s: %s", command().Name(), text)
			}
		}
	}
}

func TestSimulateSumsUpWhenItIsInterrupted(t *testing.T) {
	arrived := make(chan struct{}, 10)
	site := caddytest.Serve(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	args := []string{"simulate", site.URL, "--accounts", "10", "--concurrency", "2"}
	cmd := command(t, args...)
	wait := start(t, cmd)
	<-arrived
	<-arrived
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	checkSession(t, wait(), 3, "simulate-interrupted", strings.Join(args, " "))
}

func TestTheStatusIsWatchedUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	address := admin(t, http.StatusOK, string(caddytest.File(t, "commands", "status.json")))
	cmd := command(t, "status", "--watch", "--interval", "100ms", "--address", address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	titles := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "https://auth.example.com/oauth2/token") {
			if titles++; titles == 3 {
				if err := cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := cmd.Wait(); err != nil || titles < 3 {
		t.Errorf("it showed %d times: %v", titles, err)
	}
}

func TestCheckWritesNoFileAndNoLog(t *testing.T) {
	endpoint, log := caddytest.Serve(t, knows(issues, rejects)), filepath.Join(t.TempDir(), "log")
	config := configFile(t, fmt.Sprintf("log {\noutput file %s\n}\nsmapi_upgrade %s/token {\nclient_id the-id\nclient_auth none\n}", log, endpoint.URL))
	got := process(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
	if got.code != 0 || strings.Contains(got.stderr, "{") {
		t.Errorf("exit status %d, %s", got.code, got.stderr)
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("the log was opened")
	}
}
