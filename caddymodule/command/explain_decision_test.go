package command

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/capture"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

const anyEndpoint = `"token_endpoint":"https://token-endpoint.invalid","client_id":"client","client_secret":"client-secret"`

// everyKind exchanges all kinds of credentials and answers all methods.
const everyKind = `{` + anyEndpoint + `,"expire_session_ids":true,"refresh_auth_tokens":true,"exchange":[
	{"credentials":"login"},
	{"credentials":"session_id","param":{"subject_token":["{smapi.session_id}"]}},
	{"credentials":"login_token","param":{"subject_token":["{smapi.token}"],"actor_token":["{smapi.key}"]}},
	{"credentials":"anonymous","param":{"home":["{smapi.household_id}"]}}]}`

// What the requests have that is about a listener, and the client's secret.
var ofListeners = []string{"testuser", "12345", "Sonos_abc123", "old-session", "old-token", "old-key", "other-token", "other-key", "client-secret"}

func TestWhatIsExplainedIsWhatIsDecidedAndShowsNoSecret(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(caddytest.Testdata, "requests", "*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	for name, options := range map[string]string{
		"the defaults": string(configuration.Default().Raw),
		"every kind":   everyKind,
		"few homes":    `{` + anyEndpoint + `,"households":"1%","refresh_auth_tokens":true}`,
		"reauthorize":  `{"mode":"reauthorize","expire_session_ids":true,"refresh_auth_tokens":true}`,
		"observe":      `{"mode":"observe","expire_session_ids":true,"refresh_auth_tokens":true}`,
	} {
		c := configuration.Handler{At: "apps/http/servers/srv0", Raw: json.RawMessage(options)}
		o, err := c.Options()
		if err != nil {
			t.Fatal(name, err)
		}
		s, err := o.Resolve(caddy.NewReplacer(), nil)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, file := range files {
			t.Run(name+", "+filepath.Base(file), func(t *testing.T) {
				envelope, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				asked, err := capture.Read(bytes.NewReader(envelope))
				if err != nil {
					t.Fatal(err)
				}
				all, err := diagnose.Explain(asked, []configuration.Handler{c})
				if err != nil {
					t.Fatal(err)
				}
				checkDecision(t, &all.Handlers[0], &s.Policy, envelope, s.Methods)
				shown, err := json.Marshal(all)
				if err != nil {
					t.Fatal(err)
				}
				for _, secret := range ofListeners {
					if strings.Contains(string(shown), secret) {
						t.Errorf("it shows %s: %s", secret, shown)
					}
				}
			})
		}
	}
}

// checkDecision compares an explanation with what a handler decides.
func checkDecision(t *testing.T, x *diagnose.Explained, p *flow.Policy, envelope []byte, methods []smapi.Method) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "/", bytes.NewReader(envelope))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	call, peeked, why := smapi.Read(r, methods)
	if x.BytesRead != peeked || (x.Call != nil) != (call != nil) {
		t.Fatalf("%d bytes are read and a call is %v, want %d and %v", x.BytesRead, x.Call != nil, peeked, call != nil)
	}
	if call == nil {
		_, clear := why.(smapi.NoCall)
		if x.Answered || x.Forwarded != why.Error() || x.Ambiguous == clear {
			t.Errorf("it is forwarded because %q, want %q", x.Forwarded, why)
		}
		return
	}
	d := *p.Decide(call)
	observed := p.Mode == flow.ModeObserve && d.Outcome != flow.Forwarded
	answered := d.Outcome != flow.Forwarded && !observed
	if x.Call.Method != call.Method || x.Call.Credentials != call.Credentials.Kind || x.Rule != p.Says(&d) {
		t.Errorf("it is %s with %s: %s; want %s with %s: %s",
			x.Call.Method, x.Call.Credentials, x.Rule, call.Method, call.Credentials.Kind, p.Says(&d))
	}
	if x.Answered != answered || x.Observed != observed || (x.Forwarded == "") != answered {
		t.Errorf("answered %v, observed %v, forwarded %q; want %v, %v", x.Answered, x.Observed, x.Forwarded, answered, observed)
	}
	if (x.Exchange != nil) != (d.Rule != nil) {
		t.Errorf("an exchange is %v, want %v", x.Exchange != nil, d.Rule != nil)
	}
	if d.Rule == nil && d.Outcome != flow.Forwarded && x.Told[0].Outcome != d.Outcome {
		t.Errorf("it is %s, want %s", x.Told[0].Outcome, d.Outcome)
	}
}
