package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// admin is an admin API that says this, and its address.
func admin(t testing.TB, status int, body string) string {
	t.Helper()
	return strings.TrimPrefix(caddytest.Serve(t, caddytest.Says(status, body)).URL, "http://")
}

func TestTheStatusIsATableOf80Columns(t *testing.T) {
	got := here(t, nil, "status", "--address", admin(t, 200, string(caddytest.File(t, "commands", "status.json"))))
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	session(t, got, "status")
	recorded(t, got.stdout, "status")
}

func TestTheRecordedStatusIsWhatTheAdminAPISays(t *testing.T) {
	d := json.NewDecoder(strings.NewReader(string(caddytest.File(t, "commands", "status.json"))))
	d.DisallowUnknownFields()
	if err := d.Decode(new(dashboard.Status)); err != nil {
		t.Error(err)
	}
}

func TestTheStatusEndsWithAStatusForScripts(t *testing.T) {
	for _, test := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"no handler", []string{"--address", admin(t, 200, `{"endpoints":[]}`)}, 1, "has no smapi_upgrade", ""},
		{"a Caddy without the module", []string{"--address", admin(t, 404, ``)}, 3, "", "Error: the admin API at"},
		{"no Caddy", []string{"--address", caddytest.DeadAddress(t)}, 3, "", "Error: the admin API at"},
		{"no address", []string{"--address", "no port:x:y"}, 3, "", "Error: the admin API at"},
		{"an argument", []string{"now"}, 2, "", "it takes no arguments"},
		{"a flag", []string{"--now"}, 2, "", "unknown flag: --now"},
		{"a short interval", []string{"--watch", "--interval", "1ms"}, 2, "", "at least 100ms"},
		{"no configuration", []string{"--config", "/nonexistent/Caddyfile"}, 2, "", "no such file"},
	} {
		got := here(t, nil, append([]string{"status"}, test.args...)...)
		if got.code != test.code || !strings.Contains(got.stdout, test.stdout) || !strings.Contains(got.stderr, test.stderr) {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

// A socket that only its owner can open keeps other users of the host from the admin API.
func TestTheStatusIsAskedForWhereTheConfigurationSays(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	global := "admin unix/" + socket + "|0600"
	caddyRun(t, global, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t), ""))
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket is %v, %v", info, err)
	}
	config := caddytest.Write(t, filepath.Join(dir, "Caddyfile"), "{\n"+global+"\n}\n:8080 {\nrespond ok\n}\n")
	other := caddytest.Write(t, filepath.Join(dir, "other.json"), `{"admin":{"listen":"unix/{env.SMAPI_TEST_SOCKET}"}}`)
	t.Setenv("SMAPI_TEST_SOCKET", socket)
	t.Chdir(dir)
	for _, args := range [][]string{
		nil, {"--config", config}, {"--config", other}, {"--address", "unix/" + socket}, {"--address", "unix/" + socket + "|0600"},
	} {
		got := process(t, nil, append([]string{"status"}, args...)...)
		if got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, "closed: all is well") {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := here(t, nil, "ready"); got != (commanded{}) {
		t.Errorf("it is not ready: %+v", got)
	}
	caddytest.Write(t, config, "{\nadmin localhost:1\nmarker\n}\n")
	if got := here(t, nil, "status"); got.code != 2 || !strings.Contains(unwrapped(got.stderr), "Caddyfile, which says where the admin API is:") {
		t.Errorf("%+v", got)
	}
}
