package flow

import (
	"slices"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// OldService says how calls of upgraded homes are put to the old service. NewOldService makes one.
type OldService struct {
	// Kind is that of the credentials which the old service knows: a session id is got by Username and Password.
	Kind smapi.Kind

	// Grace is for how long after the end of its access token a home is served on while that cannot be refreshed.
	Grace time.Duration

	parts []part
	needs []string // placeholders of the parts, of calls and of token responses
	texts bool     // the parts have texts, too, which may come from files that change
}

// part is one part of the old credentials.
type part struct {
	name  string
	value exchange.Template
	of    func(*smapi.Credentials) *string
	must  bool // it cannot be blank
}

// ofToken begins the placeholders of fields of a token response.
const ofToken = "token."

// The parts of old credentials, by their names in the configuration.
var (
	username = part{name: "username", of: func(c *smapi.Credentials) *string { return &c.Username }, must: true}
	password = part{name: "password", of: func(c *smapi.Credentials) *string { return &c.Password }, must: true}
	oldToken = part{name: "token", of: func(c *smapi.Credentials) *string { return &c.Token }, must: true}
	oldKey   = part{name: "key", of: func(c *smapi.Credentials) *string { return &c.Key }}
)

var partsOf = map[smapi.Kind][]part{
	smapi.SessionID: {username, password}, smapi.Login: {username, password}, smapi.LoginToken: {oldToken, oldKey}, smapi.Anonymous: {},
}

// OldParts are the names of what a kind of old credentials is made of.
func OldParts(kind smapi.Kind) (names []string) {
	for _, p := range partsOf[kind] {
		names = append(names, p.name)
	}
	return names
}

// OldPlaceholders are what the templates of old credentials can have beside {token.FIELD}.
func OldPlaceholders() []string { return exchange.AllPlaceholders() }

// NewOldService returns an OldService whose credentials are filled from these templates, by the names of OldParts.
func NewOldService(kind smapi.Kind, values map[string]exchange.Template, grace time.Duration) *OldService {
	o := &OldService{Kind: kind, Grace: grace}
	for _, p := range partsOf[kind] {
		p.value = values[p.name]
		o.parts = append(o.parts, p)
		for _, piece := range p.value {
			o.texts = o.texts || piece.Text != nil
			if piece.Text == nil && !slices.Contains(o.needs, piece.Placeholder) {
				o.needs = append(o.needs, piece.Placeholder)
			}
		}
	}
	return o
}

// TokenFields are the fields of a token response that are kept for the old service.
func (o *OldService) TokenFields() (fields []string) {
	for _, name := range o.ofResponse() {
		fields = append(fields, name[len(ofToken):])
	}
	return fields
}

// ofResponse are the placeholders that a token response has to fill.
func (o *OldService) ofResponse() (names []string) {
	if o == nil {
		return nil
	}
	for _, name := range o.needs {
		if isOfResponse(name) {
			names = append(names, name)
		}
	}
	return names
}

func isOfResponse(placeholder string) bool { return strings.HasPrefix(placeholder, ofToken) }

// Lacks are the placeholders that an upgrade of these credentials does not fill. A blank kind is none of them.
func (o *OldService) Lacks(kind smapi.Kind) (names []string) {
	for _, name := range o.needs {
		if !isOfResponse(name) && !slices.Contains(exchange.Placeholders(kind), name) {
			names = append(names, name)
		}
	}
	return names
}

// Missing is what calls to the old service lack of an account for whose call these fields were issued, blank where they lack nothing.
func (o *OldService) Missing(call *smapi.Call, response token.Fields) (placeholder string) {
	return o.missing(o.kept(call, response))
}

// kept are the values of placeholders that are kept for an account: those of the call, unless that is nil, and those of a
// token response.
func (o *OldService) kept(call *smapi.Call, response token.Fields) map[string]string {
	fields := make(map[string]string, len(o.needs))
	for _, name := range o.needs {
		value := ""
		if field, ok := strings.CutPrefix(name, ofToken); ok {
			value = response.Get(field)
		} else if call != nil {
			value = exchange.ValueOf(name, call)
		}
		if value != "" {
			fields[name] = value
		}
	}
	return fields
}

// missing is a placeholder for which nothing is kept although there has to be something, blank for none.
func (o *OldService) missing(kept map[string]string) string {
	for _, p := range o.parts {
		if !p.must {
			continue
		}
		for _, piece := range p.value {
			if piece.Text == nil && kept[piece.Placeholder] == "" {
				return piece.Placeholder
			}
		}
	}
	return ""
}

// fill sets c to the old credentials of an account.
func (o *OldService) fill(c *smapi.Credentials, kept map[string]string) {
	c.Kind = o.Kind
	for _, p := range o.parts {
		text := ""
		for _, piece := range p.value { // mostly one, which is no new string
			if piece.Text != nil {
				text += piece.Text()
			} else {
				text += kept[piece.Placeholder]
			}
		}
		*p.of(c) = text
	}
}

// OldAccount is an account at the old service. It stays as it is. Its credentials are secrets; of a session they are what begins
// it.
type OldAccount struct {
	smapi.Credentials
	HouseholdID string

	// Digest is of the user name and the password with which a session is begun. It is no secret.
	Digest replay.Digest

	opened  *vault.Opened
	service *OldService
	missing string // a placeholder, without which there are no credentials; blank for none
}

// account is what a record is at the old service. It is kept with it for the next call, if it will be the same then.
func (o *OldService) account(opened *vault.Opened) *OldAccount {
	if a, ok := opened.Account.Load().(*OldAccount); ok && a.service == o {
		return a
	}
	a := &OldAccount{HouseholdID: opened.Household, opened: opened, service: o, missing: o.missing(opened.Fields)}
	if a.missing == "" {
		o.fill(&a.Credentials, opened.Fields)
	}
	if o.Kind == smapi.SessionID {
		a.Digest = replay.DigestOf(a.Username, a.Password)
	}
	if !o.texts {
		opened.Account.Store(a)
	}
	return a
}

// Same reports whether it is the same account with the same credentials.
func (a *OldAccount) Same(other *OldAccount) bool {
	return a.Credentials == other.Credentials && a.HouseholdID == other.HouseholdID
}
