package caddymodule_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
)

// admin is an admin API that says this, and its address.
func admin(t testing.TB, status int, body string) string {
	t.Helper()
	return strings.TrimPrefix(serve(t, says(status, body)).URL, "http://")
}

func TestTheStatusIsATableOf80Columns(t *testing.T) {
	got := smapiUpgrade(t, nil, "status", "--address", admin(t, 200, string(file(t, "commands", "status.json"))))
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	recorded(t, []byte(got.stdout), filepath.Join(testdata, "commands", "status.txt"))
	for line := range strings.Lines(got.stdout) {
		if width := len([]rune(strings.TrimSuffix(line, "\n"))); width > 80 {
			t.Errorf("%d columns: %s", width, line)
		}
	}
	if strings.Contains(got.stdout, "\x1b") {
		t.Error("escape codes in a pipe")
	}
}

func TestTheRecordedStatusIsWhatTheAdminAPISays(t *testing.T) {
	d := json.NewDecoder(strings.NewReader(string(file(t, "commands", "status.json"))))
	d.DisallowUnknownFields()
	if err := d.Decode(new(caddymodule.Status)); err != nil {
		t.Error(err)
	}
}

func TestTheStatusEndsWithAStatusForScripts(t *testing.T) {
	o := operate(t, directive(serve(t, issuesTokens), oldService(t)))
	o.upgrade(t)
	address := strings.TrimPrefix(o.admin.url, "http://")
	for _, test := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"a handler", []string{"--address", address}, 0, "upgraded                 1               1 ", ""},
		{"its JSON", []string{"--json", "--address", address}, 0, `"since_start":{"upgraded":1}`, ""},
		{"no handler", []string{"--address", admin(t, 200, `{"endpoints":[]}`)}, 1, "has no smapi_upgrade", ""},
		{"a Caddy without the module", []string{"--address", admin(t, 404, ``)}, 3, "", "Error: the admin API at"},
		{"no Caddy", []string{"--address", deadAddress(t)}, 3, "", "Error: the admin API at"},
		{"no address", []string{"--address", "no port:x:y"}, 3, "", "Error: the admin API at"},
		{"an argument", []string{"now"}, 2, "", "it takes no arguments"},
		{"a flag", []string{"--now"}, 2, "", "unknown flag: --now"},
		{"a short interval", []string{"--watch", "--interval", "1ms"}, 2, "", "at least 100ms"},
	} {
		got := smapiUpgrade(t, nil, append([]string{"status"}, test.args...)...)
		if got.code != test.code || !strings.Contains(got.stdout, test.stdout) || !strings.Contains(got.stderr, test.stderr) {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestTheStatusIsWatchedUntilItIsInterrupted(t *testing.T) {
	address := admin(t, http.StatusOK, string(file(t, "commands", "status.json")))
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
