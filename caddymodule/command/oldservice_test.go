package command

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// The account goes the whole way: through the handler as it is configured, and what is behind it.
func TestCheckCallsTheOldServiceAsAnUpgradedHome(t *testing.T) {
	for _, test := range []struct {
		name, password, options, behind string
		code, logins                    int
	}{
		{"served", "marker-password", "session_id", "reverse_proxy OLD", 0, 2},
		{"observed", "marker-password", "session_id\nmode observe\nhouseholds 10%\nexpire_session_ids", "reverse_proxy OLD", 0, 2},
		{"another-password", "marker-other", "session_id", "reverse_proxy OLD", 3, 2},
		{"another-kind", "marker-password", "login", "reverse_proxy OLD", 3, 2},
		{"no-field", "marker-password", "login {\nusername {token.legacy_user}\n}", "reverse_proxy OLD", 3, 2},
		{"down", "marker-password", "session_id", "reverse_proxy " + caddytest.DeadAddress(t), 3, 2},
		{"nobody", "marker-password", "session_id", "respond nothing", 3, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			old, endpoint := caddytest.Strict(t, "session_id"), caddytest.Serve(t, knows(issues, rejects))
			old.User, old.Password = "marker-user", test.password
			temporary := t.TempDir()
			t.Setenv("TMPDIR", temporary)
			storage := filepath.Join(t.TempDir(), "storage")
			config := caddytest.Write(t, filepath.Join(t.TempDir(), "Caddyfile"), fmt.Sprintf(`{
				admin off
				storage file_system %s
			}
			http://other.example.com {
				respond "another site"
			}
			http://music.example.com {
				encode
				respond /health ok
				handle /smapi* {
					smapi_upgrade %s/token {
						client_id the-id
						client_auth none
						refresh_auth_tokens
						vault %s
						old_service %s
					}
					%s
				}
				handle {
					respond "another service"
				}
			}`, storage, endpoint.URL, caddytest.VaultFile(t), test.options, strings.ReplaceAll(test.behind, "OLD", old.URL)))
			got := here(t, strings.NewReader(testAccount["login"]), "check", "--config", config, "--yes")
			checkSession(t, got, test.code, "check-old-service-"+test.name, "check --yes")
			logins := 0
			for _, body := range endpoint.Asked() {
				if strings.Contains(body.Text, "password=marker-password") {
					logins++
				}
			}
			if logins != test.logins {
				t.Errorf("%d logins with the right password, want %d", logins, test.logins)
			}
			heard := ""
			for _, r := range old.Check(t) {
				if heard += r.Header.Get("SOAPAction"); r.Host != "music.example.com" || r.URL.Path != "/smapi" {
					t.Errorf("the old service was asked at %s%s", r.Host, r.URL.Path)
				}
			}
			if test.code == 0 && heard != `"http://www.sonos.com/Services/1.1#getSessionId""http://www.sonos.com/Services/1.1#getMetadata"` {
				t.Errorf("the old service heard %s", heard)
			}
			stacks := make([]byte, 1<<20)
			if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("history.(*Keeper).run")) {
				t.Error("a history is still kept, which will write into the folder that was removed")
			}
			for _, folder := range []string{temporary, storage} {
				err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
					if err == nil && !entry.IsDir() {
						t.Errorf("%s is left", path)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}
