package exchange

import (
	"slices"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Template is a text with placeholders that are filled call by call. The placeholders of the configuration have been
// replaced before: a replacer would look for placeholders in what it has put in, and a password may have braces.
type Template []Piece

// Piece is a text, or a placeholder.
type Piece struct {
	// Text returns the text as it is now, since it may come from a file. Nil is a placeholder.
	Text func() string

	// Placeholder is a name such as smapi.username, or one for Lookup.
	Placeholder string
}

// Lookup finds the value of a placeholder of the player's HTTP request.
type Lookup func(name string) string

// placeholders are what a template can take from a call. They exist nowhere else. An exchange needs one that is a
// credential of its kind.
var placeholders = []struct {
	name       string
	kind       smapi.Kind // blank for every kind
	credential bool
	of         func(*smapi.Call) string
}{
	{"smapi.username", smapi.Login, false, func(c *smapi.Call) string { return c.Credentials.Username }},
	{"smapi.password", smapi.Login, true, func(c *smapi.Call) string { return c.Credentials.Password }},
	{"smapi.session_id", smapi.SessionID, true, func(c *smapi.Call) string { return c.Credentials.SessionID }},
	{"smapi.token", smapi.LoginToken, true, func(c *smapi.Call) string { return c.Credentials.Token }},
	{"smapi.key", smapi.LoginToken, true, func(c *smapi.Call) string { return c.Credentials.Key }},
	{"smapi.household_id", "", false, func(c *smapi.Call) string { return c.HouseholdID }},
	{"smapi.device_id", "", false, func(c *smapi.Call) string { return c.Credentials.DeviceID }},
	{"smapi.device_provider", "", false, func(c *smapi.Call) string { return c.Credentials.DeviceProvider }},
}

// Kinds are the kinds of credentials that can be exchanged.
var Kinds = []smapi.Kind{smapi.Login, smapi.SessionID, smapi.LoginToken, smapi.Anonymous}

// Placeholders are the names that a template can have for a kind of credentials, for a blank one those that every kind
// has, which are no secrets.
func Placeholders(kind smapi.Kind) (names []string) {
	for _, p := range placeholders {
		if p.kind == "" || p.kind == kind {
			names = append(names, p.name)
		}
	}
	return names
}

// IsPlaceholder reports whether some kind has a placeholder of that name.
func IsPlaceholder(name string) bool { return valueOf(name) != nil }

// AllPlaceholders are the names of those of every kind.
func AllPlaceholders() (names []string) {
	for _, p := range placeholders {
		names = append(names, p.name)
	}
	return names
}

// ValueOf returns what a call has for a placeholder of IsPlaceholder. It is a secret where that is one.
func ValueOf(placeholder string, call *smapi.Call) string { return valueOf(placeholder)(call) }

func valueOf(name string) func(*smapi.Call) string {
	for _, p := range placeholders {
		if p.name == name {
			return p.of
		}
	}
	return nil
}

func (t Template) has(placeholder string) bool {
	return slices.ContainsFunc(t, func(p Piece) bool { return p.Placeholder == placeholder })
}

// Fill returns the text for a call. It is a secret where a placeholder is.
func (t Template) Fill(call *smapi.Call, lookup Lookup) string {
	if len(t) == 1 {
		return t[0].fill(call, lookup)
	}
	var text strings.Builder
	for _, p := range t {
		text.WriteString(p.fill(call, lookup))
	}
	return text.String()
}

func (p Piece) fill(call *smapi.Call, lookup Lookup) string {
	if p.Text != nil {
		return p.Text()
	}
	if of := valueOf(p.Placeholder); of != nil {
		return of(call)
	}
	return lookup(p.Placeholder)
}
