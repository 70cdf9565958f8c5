package command

import (
	"encoding/xml"
	"fmt"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// strictOld is an old service with sessions that knows the test account alone, and is behind a host and a path.
type strictOld struct {
	*caddytest.Server
	mu    sync.Mutex
	heard []string // the methods
}

const oldAnswer = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>%s</s:Body></s:Envelope>`

func oldFault(code string) string {
	return fmt.Sprintf(oldAnswer, "<s:Fault><faultcode>"+code+"</faultcode><faultstring>marker-text</faultstring></s:Fault>")
}

func strictSessions(t *testing.T, user, password string) *strictOld {
	o := new(strictOld)
	o.Server = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, body := o.says(r, user, password)
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	return o
}

func (o *strictOld) says(r *http.Request, user, password string) (int, string) {
	var e struct {
		Credentials struct {
			SessionID string                       `xml:"sessionId"`
			All       []struct{ XMLName xml.Name } `xml:",any"`
		} `xml:"Header>credentials"`
		Body struct {
			Call struct {
				XMLName  xml.Name
				Username string `xml:"username"`
				Password string `xml:"password"`
			} `xml:",any"`
		} `xml:"Body"`
	}
	body, _ := io.ReadAll(r.Body)
	if r.URL.Path != "/smapi" || r.Host != "music.example.com" || xml.Unmarshal(body, &e) != nil ||
		strings.Contains(string(body)+r.Header.Get("Authorization"), "smv1") {
		return 404, "not here"
	}
	method := e.Body.Call.XMLName.Local
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard = append(o.heard, method)
	switch {
	case method == "getSessionId" && (e.Body.Call.Username != user || e.Body.Call.Password != password):
		return 500, oldFault("Client.LoginInvalid")
	case method == "getSessionId":
		return 200, fmt.Sprintf(oldAnswer, `<getSessionIdResponse xmlns="http://www.sonos.com/Services/1.1"><getSessionIdResult>marker-id</getSessionIdResult></getSessionIdResponse>`)
	case e.Credentials.SessionID != "marker-id":
		return 500, oldFault("Client.LoginUnsupported")
	}
	return 200, fmt.Sprintf(oldAnswer, `<`+method+`Response xmlns="http://www.sonos.com/Services/1.1"><x/></`+method+`Response>`)
}

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
			old, endpoint := strictSessions(t, "marker-user", test.password), caddytest.Serve(t, knows(issues, rejects))
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
			old.mu.Lock()
			defer old.mu.Unlock()
			if heard := strings.Join(old.heard, " "); test.code == 0 && heard != "getSessionId getMetadata" {
				t.Errorf("the old service heard %s", heard)
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
