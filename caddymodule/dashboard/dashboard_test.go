package dashboard

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/history"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func TestEveryOutcomeIsDrawnButWhatIsForwarded(t *testing.T) {
	for _, o := range flow.Outcomes() {
		if groups[o] == "" || (groups[o] == OldOnly) != (o == flow.Forwarded) {
			t.Errorf("%s is in the group %q", o, groups[o])
		}
	}
	for _, group := range []Group{Served, Moving, SignIn, AskWait} {
		for file, text := range map[string]string{"page.js": `["` + string(group) + `", `, "page.css": ".chart ." + string(group) + " "} {
			if content, _ := files.ReadFile(file); !strings.Contains(string(content), text) {
				t.Errorf("%s lacks %s", file, text)
			}
		}
	}
}

// wrong is a value with everything that can be wrong.
func wrong() *Value {
	soon, past := now.Add(48*time.Hour), now.Add(-48*time.Hour)
	blown := FuseStatus{Blown: true, Blew: &FuseTries{Tried: 40, Rejected: 30, OAuthError: "invalid_grant"}}
	failing := Endpoint{EndpointStatus: EndpointStatus{
		Endpoint: "https://auth.example.com/token", Breaker: "open", HoldSeconds: 30, Waiting: 12, OldestWaitingSeconds: 9,
		LoginFuse: blown, RefreshFuse: blown, OldService: &OldServiceStatus{Fuse: blown},
		Last5Minutes:  map[flow.Outcome]uint64{flow.Misconfigured: 3, flow.Overloaded: 2},
		Misconfigured: &history.Fault{Outcome: flow.Misconfigured, Fix: "check client_id"},
		Secrets:       []secret.Status{{Field: "client_secret", Stale: true}, {Field: "transport", Expires: &soon}},
	}, ServerCertificateEnds: &past}
	refusing := Endpoint{EndpointStatus: EndpointStatus{
		Endpoint: "https://other.example.com/token", Breaker: "closed", LoginFuse: FuseStatus{FuseTries: FuseTries{Tried: 50, Rejected: 20}},
		Last5Minutes: map[flow.Outcome]uint64{flow.Unavailable: 10, flow.Upgraded: 50},
	}}
	tried := Endpoint{EndpointStatus: EndpointStatus{Endpoint: "https://tried.example.com/token", Breaker: "half-open"}}
	return New(now, []Endpoint{failing, refusing, tried}, []VaultStatus{{Failing: true, Unwritten: 7}})
}

func TestWhatIsWrongIsSaidInASentenceWithItsChapterOfTheHandbook(t *testing.T) {
	text, err := os.ReadFile("../../docs/handbook.md")
	if err != nil {
		t.Fatal(err)
	}
	chapters := map[string]bool{}
	for _, title := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		chapters[strings.ReplaceAll(strings.ToLower(strings.Trim(title[1], "?:")), " ", "-")] = true
	}
	all := append(wrong().Findings, New(now, nil, nil).Findings...)
	said := ""
	for _, f := range all {
		chapter, ok := strings.CutPrefix(f.Link, handbook)
		if !ok || !chapters[chapter] {
			t.Errorf("the handbook has no chapter %s", f.Link)
		}
		if !strings.HasSuffix(f.Says, ".") && !strings.HasSuffix(f.Says, "check client_id.") {
			t.Errorf("%q is no sentence", f.Says)
		}
		said += f.Says + "\n"
	}
	for _, text := range []string{
		"no smapi_upgrade", "fuse of upgrades is blown: 30 of 40 accounts were refused, mostly invalid_grant.", "fuse of refreshes", "fuse of the old service",
		"is left alone", "is tried again", "wait, for 30 s", "12 calls wait", "misconfigured: check client_id.", "2 calls of the last 5 minutes had no place",
		"10 calls of the last 5 minutes had no good answer", "20 of 50 accounts", "The file of client_secret", "client certificate ends on 6 May 2026",
		"certificate of the token endpoint has ended on 2 May 2026", "storage of the vault fails", "7 objects",
	} {
		if !strings.Contains(said, text) {
			t.Errorf("nothing says %q:\n%s", text, said)
		}
	}
	if page, _ := files.ReadFile("page.html"); !strings.Contains(string(page), handbook+"the-page") || !chapters["the-page"] {
		t.Error("the page leads to no chapter about it")
	}
}

func TestNothingIsWrongWithAQuietEndpoint(t *testing.T) {
	far := now.Add(365 * 24 * time.Hour)
	quiet := Endpoint{EndpointStatus: EndpointStatus{
		Endpoint: "https://auth.example.com/token", Breaker: "closed", Waiting: 3, OldestWaitingSeconds: 1,
		LoginFuse:    FuseStatus{Percent: 50, FuseTries: FuseTries{Tried: 100, Rejected: 5}},
		Last5Minutes: map[flow.Outcome]uint64{flow.Upgraded: 1000, flow.Unavailable: 1, flow.Rejected: 5},
		Secrets:      []secret.Status{{Field: "transport", Expires: &far}},
	}, ServerCertificateEnds: &far}
	if found := New(now, []Endpoint{quiet}, []VaultStatus{{}}).Findings; len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

func TestThePageLoadsNothingButItsOwnFiles(t *testing.T) {
	for path, contentType := range map[string]string{
		Path: "text/html; charset=utf-8", Path + "page.css": "text/css; charset=utf-8", Path + "page.js": "text/javascript; charset=utf-8", Path + "page.json": "application/json",
	} {
		w := httptest.NewRecorder()
		found := Serve(w, httptest.NewRequest(http.MethodGet, path, nil), wrong)
		if !found || w.Header().Get("Content-Type") != contentType || w.Body.Len() == 0 {
			t.Errorf("%s: %v, %v", path, found, w.Header())
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; ") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
	}
	if Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, Path+"../x", nil), wrong) || Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, Path+"status_test.go", nil), wrong) {
		t.Error("it serves what is none of its files")
	}
	script, _ := files.ReadFile("page.js")
	for _, way := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"} {
		if strings.Contains(string(script), way) {
			t.Errorf("the script has %s, by which text becomes more than text", way)
		}
	}
}
