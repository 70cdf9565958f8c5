// Package dashboard is the page that shows an operator how a migration goes, and the values that it draws. It is read only, and
// knows no Caddy.
package dashboard

import (
	"embed"
	"encoding/json"
	"net/http"
	"path"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/history"
)

// Path is where the page is.
const Path = "/smapi_upgrade/"

// Value is all that the page draws.
type Value struct {
	At        time.Time       `json:"at"`
	Findings  []Finding       `json:"findings"`
	Endpoints []Endpoint      `json:"endpoints"`
	Vaults    []VaultStatus   `json:"vaults"`
	Outcomes  []OutcomeLegend `json:"outcomes"`
}

// Endpoint is one token endpoint as one client, with its past.
type Endpoint struct {
	EndpointStatus
	Day      history.Series   `json:"day"`
	Accounts history.Estimate `json:"accounts"`
	Faults   []history.Fault  `json:"faults"`

	// Vaults are the key files of those that it has.
	Vaults []string `json:"vaults,omitempty"`

	// AnybodyIsUpgraded tells of an exchange that asks for no credentials, so that accounts can be made up that are upgraded.
	AnybodyIsUpgraded bool `json:"anybody_is_upgraded,omitempty"`

	// ServerCertificateEnds is when the first of the certificates ends that the token endpoint has shown, nil where it has shown none.
	ServerCertificateEnds *time.Time `json:"server_certificate_ends,omitempty"`
}

// OutcomeLegend says what an outcome is.
type OutcomeLegend struct {
	Name  string `json:"name"`
	When  string `json:"when"`
	Gets  string `json:"gets"`
	Group Group  `json:"group"`
}

// Group is which outcomes are drawn alike.
type Group string

// The groups, in the order in which they are drawn.
const (
	Served  Group = "served"  // as the listener wants
	Moving  Group = "moving"  // a step on the way, or seen only
	SignIn  Group = "sign_in" // the listener has to sign in
	AskWait Group = "wait"    // asked to try again later

	OldOnly Group = "old" // the old service's alone, which is not drawn: it is many times the others
)

var groups = map[flow.Outcome]Group{
	flow.Upgraded: Served, flow.Refreshed: Served, flow.Translated: Served, flow.Linked: Served,
	flow.Expired: Moving, flow.LinkStarted: Moving, flow.LinkPending: Moving, flow.Observed: Moving, flow.Forwarded: OldOnly,
	flow.Reauthorized: SignIn, flow.Rejected: SignIn, flow.LinkFailed: SignIn,
	flow.Doubted: AskWait, flow.Guarded: AskWait, flow.Unavailable: AskWait, flow.Overloaded: AskWait,
	flow.Misconfigured: AskWait, flow.Refused: AskWait,
}

// New is the value of these endpoints and vaults.
func New(now time.Time, endpoints []Endpoint, vaults []VaultStatus) *Value {
	v := &Value{At: now.UTC(), Endpoints: endpoints, Vaults: vaults, Outcomes: make([]OutcomeLegend, 0, flow.NumOutcomes)}
	for _, o := range flow.Outcomes() {
		v.Outcomes = append(v.Outcomes, OutcomeLegend{o.String(), o.Row().When, o.Row().Gets, groups[o]})
	}
	v.Findings = v.findings()
	return v
}

//go:embed page.html page.css page.js
var files embed.FS

var pages = map[string]struct{ file, contentType string }{
	Path:              {"page.html", "text/html; charset=utf-8"},
	Path + "page.css": {"page.css", "text/css; charset=utf-8"},
	Path + "page.js":  {"page.js", "text/javascript; charset=utf-8"},
}

// policy lets the page load its own files and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Serve answers the page, its files, and page.json, which is the value of now. Found tells that the path is one of them. The method
// has to be GET or HEAD.
func Serve(w http.ResponseWriter, r *http.Request, value func() *Value) (found bool) {
	data, page := r.URL.Path == Path+"page.json", pages[r.URL.Path]
	if !data && page.file == "" {
		return false
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	if data {
		h.Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value()) // who has gone asks again
		return true
	}
	h.Set("Content-Type", page.contentType)
	content, _ := files.ReadFile(path.Base(page.file)) // they are all there
	_, _ = w.Write(content)
	return true
}
