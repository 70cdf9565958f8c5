package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// template is a text with placeholders that are settled call by call. Caddy's own replacer settles the others
// before, once: it would look for placeholders in what it has put in, and a password may have braces.
type template []piece

// piece is a text as it is, or a placeholder.
type piece struct{ text, placeholder string }

const (
	ofCall    = "smapi."
	ofRequest = "http."
)

// placeholders are what a template can take from a call. They exist nowhere else.
var placeholders = map[string]func(*smapi.Call) string{
	"smapi.username":        func(c *smapi.Call) string { return c.Credentials.Username },
	"smapi.password":        func(c *smapi.Call) string { return c.Credentials.Password },
	"smapi.session_id":      func(c *smapi.Call) string { return c.Credentials.SessionID },
	"smapi.token":           func(c *smapi.Call) string { return c.Credentials.Token },
	"smapi.key":             func(c *smapi.Call) string { return c.Credentials.Key },
	"smapi.household_id":    func(c *smapi.Call) string { return c.HouseholdID },
	"smapi.device_id":       func(c *smapi.Call) string { return c.Credentials.DeviceID },
	"smapi.device_provider": func(c *smapi.Call) string { return c.Credentials.DeviceProvider },
}

// identifiers are the placeholders that every kind of credentials has. They are no secrets.
var identifiers = []string{"smapi.household_id", "smapi.device_id", "smapi.device_provider"}

// proofs are those that a kind of credentials has beside, and of which an exchange needs one that is marked.
var proofs = map[smapi.Kind][]struct {
	placeholder string
	proves      bool
}{
	smapi.Login:      {{"smapi.username", false}, {"smapi.password", true}},
	smapi.SessionID:  {{"smapi.session_id", true}},
	smapi.LoginToken: {{"smapi.token", true}, {"smapi.key", true}},
	smapi.Anonymous:  {},
}

// template reads a text that may have these placeholders of a call and, if it may, those of the HTTP request.
func (r *resolver) template(field, text string, allowed []string, request bool) (t template) {
	literal := func(text string) {
		if text != "" {
			t = append(t, piece{text: r.text(field, text)})
		}
	}
	rest := text
	for i := 0; i < len(rest); i++ {
		if rest[i] != '{' || i > 0 && rest[i-1] == '\\' {
			continue
		}
		name, after, found := strings.Cut(rest[i+1:], "}")
		ours := strings.HasPrefix(name, ofCall) || strings.HasPrefix(name, ofRequest)
		switch {
		case !ours:
			continue
		case !found:
			r.fail(field, errUnclosed)
		case strings.HasPrefix(name, ofCall):
			if !slices.Contains(allowed, name) {
				r.fail(field, errPlaceholder(name, allowed))
			}
		case !request:
			r.fail(field, errRequest)
		}
		literal(rest[:i])
		t = append(t, piece{placeholder: name})
		rest, i = after, -1
	}
	literal(rest)
	return t
}

func errPlaceholder(name string, allowed []string) error {
	if placeholders[name] == nil {
		return fmt.Errorf("has a placeholder that no call has; there are {%s}", strings.Join(allowed, "}, {"))
	}
	return fmt.Errorf("{%s} is not to be had here; {%s} are", name, strings.Join(allowed, "}, {"))
}

var (
	errUnclosed = errors.New("has a placeholder without its closing brace")
	errRequest  = errors.New("has a placeholder of the HTTP request, which only header can have")
	errNoProof  = errors.New("no param of it holds the account's credentials, as in param subject_token {smapi.token}")
)

// has tells whether one of the placeholders is in the template.
func (t template) has(placeholder string) bool {
	return slices.ContainsFunc(t, func(p piece) bool { return p.placeholder == placeholder })
}

// settle returns the text for a call that came with an HTTP request.
func (t template) settle(call *smapi.Call, r *http.Request) string {
	if len(t) == 1 {
		return t[0].settle(call, r)
	}
	var text strings.Builder
	for _, p := range t {
		text.WriteString(p.settle(call, r))
	}
	return text.String()
}

func (p piece) settle(call *smapi.Call, r *http.Request) string {
	if p.placeholder == "" {
		return p.text
	}
	if of := placeholders[p.placeholder]; of != nil {
		return of(call)
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		text, _ := repl.GetString(p.placeholder)
		return text
	}
	return ""
}
