package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// commanded is what a command has printed, and its exit code.
type commanded struct {
	stdout, stderr string
	code           int
}

// smapiUpgrade runs a command beside the Caddy of this process.
func smapiUpgrade(t testing.TB, args ...string) commanded {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(self, append([]string{"smapi-upgrade"}, args...)...)
	cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return commanded{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func TestAKeyFileIsMadeAndAddedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault.json")
	made := smapiUpgrade(t, "vault", "keygen", path)
	if info, err := os.Stat(path); made.code != 0 || err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got %+v, %v", made, err)
	}
	first := keyIDs(t, path)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	added := smapiUpgrade(t, "vault", "keygen", path)
	if then := keyIDs(t, path); added.code != 0 || len(then) != 3 || then[1] != first[0] || then[2] != first[1] {
		t.Errorf("got %+v: %v, then %v", added, first, then)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode has become %v, %v", info.Mode(), err)
	}
	caddytest.Write(t, path, "marker-damaged")
	if refused := smapiUpgrade(t, "vault", "keygen", path); refused.code != 2 || strings.Contains(refused.stderr, "marker") {
		t.Errorf("got %+v", refused)
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(files) != 1 {
		t.Errorf("there are %v", files)
	}
}

func keyIDs(t *testing.T, path string) (ids []string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []struct{ Kid, K string }
	}
	if err := json.Unmarshal(content, &set); err != nil {
		t.Fatal(err)
	}
	for _, key := range set.Keys {
		ids = append(ids, key.Kid)
	}
	return ids
}

func TestTheVaultsCommandsWorkBesideTheCaddyThatRuns(t *testing.T) {
	endpoint, old, keys := caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)
	storage := t.TempDir()
	directives := caddytest.WithVault(endpoint, old, keys)
	s := caddytest.RunOn(t, storage, directives)
	config := filepath.Join(t.TempDir(), "Caddyfile")
	caddytest.Write(t, config, fmt.Sprintf("{\nstorage file_system %s\n}\nhttp://127.0.0.1:1 {\n%s\n}", storage, directives))
	run := func(args ...string) commanded {
		t.Helper()
		return smapiUpgrade(t, append([]string{"vault"}, append(args, "--config", config)...)...)
	}
	request := string(caddytest.File(t, "requests", "upgrade.xml"))
	upgrade := func(home, user string) (authToken, handle string) {
		t.Helper()
		return caddytest.TokensOf(s.Post(t, []byte(strings.NewReplacer("Sonos_abc123", home, "testuser", user).Replace(request))))
	}
	upgrade("home1", "ella")
	_, handle := upgrade("home2", "ella")
	upgrade("home2", "max")

	if got := run("status"); got.code != 0 || !strings.Contains(got.stdout, "records                3\n") {
		t.Errorf("got %+v", got)
	}
	if added := smapiUpgrade(t, "vault", "keygen", keys); added.code != 0 {
		t.Fatalf("got %+v", added)
	}
	caddytest.Eventually(t, "it comes to that", func() bool { return strings.Contains(s.Log(t), "a secret was read again") })
	var rotated []struct {
		Sealed     int `json:"sealed_anew"`
		Unreadable int
	}
	if got := run("rotate", "--json"); got.code != 0 || json.Unmarshal([]byte(got.stdout), &rotated) != nil || rotated[0].Sealed != 3 {
		t.Errorf("got %+v", got)
	}
	if got := s.Refresh(t, "another", handle); got.Status != 200 {
		t.Errorf("after that: %+v", got)
	}
	if got := run("forget", "--account", "ella"); got.code != 0 || !strings.Contains(got.stdout, "records forgotten      2\n") {
		t.Errorf("got %+v", got)
	}
	if got := run("forget", "--household", "home2", "--json"); got.code != 0 || !strings.Contains(got.stdout, `"forgotten": 1`) {
		t.Errorf("got %+v", got)
	}
	if got := run("status", "--open", "--json"); got.code != 0 || !strings.Contains(got.stdout, `"records": 0`) {
		t.Errorf("got %+v", got)
	}
	for _, args := range [][]string{{"forget"}, {"forget", "--household", "a", "--account", "b"}, {"status", "x"}, {"x"}} {
		if got := run(args...); got.code != 2 {
			t.Errorf("%v: %+v", args, got)
		}
	}
	caddytest.Write(t, config, "http://127.0.0.1:1 {\n"+caddytest.Directive(endpoint.Server, old)+"\n}")
	if got := run("status"); got.code != 2 || !strings.Contains(got.stderr, "no smapi_upgrade of the configuration has a vault") {
		t.Errorf("got %+v", got)
	}
	checkNoMarker(t, "the log", s.Log(t))
}
