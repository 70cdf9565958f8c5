package command

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// says is what an authorization server answers.
type says struct {
	status int
	body   string
}

var (
	tokensIssued  = says{200, `{"access_token":"a-token","refresh_token":"a-key"}`}
	invalidGrant  = says{400, `{"error":"invalid_grant","error_description":"secret-of-the-server"}`}
	invalidClient = says{401, `{"error":"invalid_client"}`}
)

// authorization is an authorization server that knows one account, and keeps who asks.
type authorization struct {
	*httptest.Server
	wrongPassword, wrongSecret, locked says

	// latin1 reads a form as ISO-8859-1 unless its charset is said, utf8 reads it as UTF-8 in any case.
	latin1, utf8 bool

	mu    sync.Mutex
	asked []string // right, wrong password, wrong secret, locked
}

func (a *authorization) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	_, secret, _ := r.BasicAuth()
	if form.Has("client_secret") {
		secret = form.Get("client_secret")
	}
	who, answer := "right", tokensIssued
	switch {
	case secret != "the-secret" && secret != "" && form.Get("password") == "right": // who is not blamed
		who, answer = "wrong secret", a.wrongSecret
	case form.Get("username") == "mallory":
		who, answer = "locked", a.locked
	case form.Get("password") == beyond && (a.latin1 == strings.Contains(r.Header.Get("Content-Type"), "utf-8") || a.utf8):
		who = "beyond ASCII"
	case form.Get("password") == beyond:
		who, answer = "misread", a.wrongPassword
	case form.Get("password") != "right":
		who, answer = "wrong password", a.wrongPassword
	}
	a.mu.Lock()
	a.asked = append(a.asked, who)
	a.mu.Unlock()
	w.WriteHeader(answer.status)
	_, _ = io.WriteString(w, answer.body)
}

// tried is the report of a check of one handler with these options more.
func (a *authorization) tried(t *testing.T, options string) *diagnose.Checked {
	t.Helper()
	return a.triedWith(t, options, "right")
}

func (a *authorization) triedWith(t *testing.T, options, password string) *diagnose.Checked {
	t.Helper()
	a.Server = httptest.NewServer(a)
	defer a.Close()
	config := fmt.Sprintf(`{"admin":{"disabled":true},"storage":{"module":"file_system","root":%q},"apps":{"http":{"servers":{"srv0":{"listen":["127.0.0.1:0"],
		"routes":[{"handle":[{"handler":"smapi_upgrade","token_endpoint":"%s/token","client_id":"client"%s}]}]}}}}}`, t.TempDir(), a.URL, options)
	trial, err := diagnose.Prepare([]byte(config), "", smapi.Login)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	if got, want := trial.WithSecret(), strings.Contains(options, "client_secret"); got != want {
		t.Errorf("a client secret is tried is %v, want %v", got, want)
	}
	r := trial.Run(context.Background(), diagnose.Tries{
		Account: smapi.Credentials{Kind: smapi.Login, Username: "user", Password: password},
		Locked:  &smapi.Credentials{Kind: smapi.Login, Username: "mallory", Password: "right"},
	})
	x := r.Handlers[0]
	if r.State != x.State {
		t.Errorf("the report is %s and its handler %s", r.State, x.State)
	}
	return x
}

// finding is the one of a check, as a line.
func finding(x *diagnose.Checked, check string) string {
	for _, f := range x.Checks {
		if f.Check == check {
			return fmt.Sprintf("%s: %s => %s", f.State, f.Says, f.Fix)
		}
	}
	return ""
}

// beyond is a password with a character beyond ASCII.
const beyond = "pa\u00dfword"

func TestCheckTriesCharactersBeyondASCIIAtTheCostOfOneFailedLogin(t *testing.T) {
	for _, test := range []struct {
		name, options string
		latin1, utf8  bool
		asked         []string
		check         string
		wants         string
	}{
		{"read as ISO-8859-1", "", true, false, []string{"beyond ASCII", "misread"}, "form_charset", "problem: needed"},
		{"read as ISO-8859-1", "", true, false, []string{"beyond ASCII", "misread"}, "right credentials", "=> form_charset utf-8"},
		{"read as UTF-8", "", false, true, []string{"beyond ASCII", "beyond ASCII", "wrong password", "locked"}, "form_charset", "ok: not needed"},
		{"configured", `,"form_charset":"utf-8"`, true, false, []string{"beyond ASCII", "wrong password", "locked"}, "right credentials", "ok: upgraded"},
		{"wrong anyway", "", false, false, []string{"misread"}, "right credentials", "could be a second failed login"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &authorization{wrongPassword: invalidGrant, locked: invalidGrant, latin1: test.latin1, utf8: test.utf8}
			x := a.triedWith(t, `,"client_auth":"none"`+test.options, beyond)
			if got := finding(x, test.check); !strings.Contains(got, test.wants) {
				t.Errorf("no %q in: %s", test.wants, got)
			}
			if !slices.Equal(a.asked, test.asked) {
				t.Errorf("the server was asked for %q, want %q", a.asked, test.asked)
			}
			failed := 0
			for _, who := range a.asked {
				if who == "misread" || who == "wrong password" {
					failed++
				}
			}
			if failed != 1 {
				t.Errorf("%d failed logins", failed)
			}
		})
	}
}

const basic = `,"client_secret":"the-secret"`

func TestCheckSaysWhatARefusalWouldDoToListeners(t *testing.T) {
	denied := says{403, `{"error":"access_denied"}`}
	for _, test := range []struct {
		name             string
		password, secret says
		locked           says
		options          string
		check            string
		wants            []string
	}{
		{"a client of its own", invalidGrant, invalidClient, invalidGrant, basic, "wrong secret", []string{"ok: misconfigured", "invalid_client, status 401", "no rejection", "=> "}},
		{"by post", invalidGrant, invalidClient, invalidGrant, basic + `,"client_auth":"post"`, "wrong secret", []string{"ok: misconfigured"}},
		{"basic_raw", invalidGrant, invalidClient, invalidGrant, basic + `,"client_auth":"basic_raw"`, "wrong secret", []string{"ok: misconfigured"}},
		{"access_denied of a changed secret", invalidGrant, denied, invalidGrant, basic + `,"on_error":{"access_denied":"rejected"}`, "wrong secret",
			[]string{"fix: rejected", "sign listeners out", "=> on_error access_denied misconfigured, in the place of"}},
		{"a listener has to act", invalidGrant, says{400, `{"error":"login_required"}`}, invalidGrant, basic, "wrong secret", []string{"fix: rejected", "=> on_error login_required misconfigured"}},
		{"the same as of a wrong password", invalidGrant, invalidGrant, invalidGrant, basic, "wrong secret", []string{"fix: rejected", "have the server say invalid_client", "leave fuse on"}},
		{"a bare status", invalidGrant, says{403, ""}, invalidGrant, basic + `,"on_error":{"403":"rejected"}`, "wrong secret", []string{"fix: rejected", "=> on_error 403 misconfigured"}},
		{"an outage", invalidGrant, says{500, ""}, invalidGrant, basic, "wrong secret", []string{"ok: unavailable", "no rejection"}},
		{"whoever asks", invalidGrant, tokensIssued, invalidGrant, basic, "wrong secret", []string{"fix: accepted", "demand the secret"}},

		{"an error of its own", says{400, `{"error":"bad_login"}`}, invalidClient, invalidGrant, basic, "wrong credentials", []string{"fix: misconfigured", "=> on_error bad_login rejected"}},
		{"Dex", denied, invalidClient, invalidGrant, basic, "wrong credentials", []string{"fix: misconfigured", "=> on_error access_denied rejected"}},
		{"an error for all", denied, denied, invalidGrant, basic, "wrong credentials", []string{"fix: misconfigured", "invalid_grant. Do not name it by on_error"}},
		{"a status for all", says{403, ""}, says{403, ""}, invalidGrant, basic, "wrong credentials", []string{"fix: misconfigured", "invalid_grant. Do not name it by on_error"}},
		{"a page", says{403, "<html>"}, invalidClient, invalidGrant, basic, "wrong credentials", []string{"fix: misconfigured", "on_error cannot name"}},
		{"a page for another client", says{403, ""}, says{403, "<html>"}, invalidGrant, basic, "wrong credentials", []string{"=> on_error 403 rejected"}},
		{"a number", says{400, `{"error":"17003"}`}, invalidClient, invalidGrant, basic, "wrong credentials", []string{"=> on_error 17003 rejected"}},
		{"a number of no error", says{400, `{"error":"99"}`}, invalidClient, invalidGrant, basic, "wrong credentials", []string{"on_error cannot name"}},
		{"no name", says{400, `{"error":"wrong password"}`}, invalidClient, invalidGrant, basic, "wrong credentials", []string{"fix: misconfigured", "other, status 400", "on_error cannot name"}},

		{"as a wrong password", invalidGrant, invalidClient, invalidGrant, basic, "locked account", []string{"ok: rejected", "keep failed_logins below"}},
		{"as a wrong password, unguarded", invalidGrant, invalidClient, invalidGrant, basic + `,"failed_logins":"off"`, "locked account", []string{"fix: rejected", "=> set failed_logins below"}},
		{"an error of the lock", invalidGrant, invalidClient, says{400, `{"error":"account_locked"}`}, basic, "locked account", []string{"fix: misconfigured", "=> on_error account_locked unavailable"}},
		{"an error that signs out", invalidGrant, invalidClient, says{400, `{"error":"interaction_required"}`}, basic, "locked account", []string{"fix: rejected", "sign its listener out", "=> on_error interaction_required unavailable"}},
		{"423", invalidGrant, invalidClient, says{423, ""}, basic, "locked account", []string{"fix: misconfigured", "=> on_error 423 unavailable"}},
		{"server_error", invalidGrant, invalidClient, says{500, `{"error":"server_error"}`}, basic, "locked account", []string{"ok: unavailable", "asked for again later", "=> "}},
		{"too many", invalidGrant, invalidClient, says{429, `{"error":"too_many_attempts"}`}, basic, "locked account", []string{"ok: unavailable"}},
		{"as the client", invalidGrant, invalidClient, invalidClient, basic, "locked account", []string{"ok: misconfigured", "keeps what it has"}},
		{"not locked", invalidGrant, invalidClient, tokensIssued, basic, "locked account", []string{"fix: accepted: it is not locked"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &authorization{wrongPassword: test.password, wrongSecret: test.secret, locked: test.locked}
			x := a.tried(t, test.options)
			got := finding(x, test.check)
			for _, want := range test.wants {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in: %s", want, got)
				}
			}
			if strings.Contains(got, "secret-of-the-server") {
				t.Errorf("it shows the server's text: %s", got)
			}
			if want := []string{"right", "wrong secret", "wrong password", "locked"}; !slices.Equal(a.asked, want) {
				t.Errorf("the server was asked for %q, want %q", a.asked, want)
			}
		})
	}
}

func TestOnlyAClientWithASecretIsTriedWithAWrongOne(t *testing.T) {
	a := &authorization{wrongPassword: invalidGrant, locked: invalidGrant}
	x := a.tried(t, `,"client_auth":"none"`)
	if got := finding(x, "wrong secret"); got != "" || x.WrongSecret != nil {
		t.Error(got)
	}
	if want := []string{"right", "wrong password", "locked"}; !slices.Equal(a.asked, want) {
		t.Errorf("the server was asked for %q, want %q", a.asked, want)
	}
}

// What check says to add is an option that loads, whatever the server calls its errors.
func TestTheOnErrorThatCheckSaysToAddLoads(t *testing.T) {
	for name, says := range map[string]bool{
		"account_locked": true, "account-locked": true, "a.b": true, "17003": true, "e0000011": true, "2fa": true, "403": true,
		"99": false, "0403": false, "4xx": false, "401-1": false, "other": false, "": true,
	} {
		tried := diagnose.Tried{Error: name, Status: 403, OfStatus: true}
		line := tried.OnError(token.Rejected)
		if (line != "") != says {
			t.Errorf("of %q it says %q", name, line)
		}
		if line == "" {
			continue
		}
		text := "example.com {\n\tsmapi_upgrade https://a.example/token {\n\t\tclient_id id\n\t\tclient_auth none\n\t\t" + line + "\n\t}\n}\n"
		if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
