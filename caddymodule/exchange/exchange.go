// Package exchange is how a request goes to the token endpoint, each once: what is asked for a call, who waits for whom,
// what is remembered, and when nobody is asked at all. It knows neither the flows nor Caddy.
package exchange

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/text/unicode/norm"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// Rule is how one kind of credentials is exchanged: a grant but for the call. NewRule makes one.
type Rule struct {
	GrantType string
	Params    []Param
	Header    []Param // with canonical names
	OnError   map[string]token.Class

	kind        smapi.Kind
	credentials []string // placeholders, of which a call needs one
	variant     string   // a digest of all that, to tell the exchanges of handlers apart

	sendsHome bool // or what else a caller can make up beside the credentials
	lacks     string
}

// Param is a named template, and Source what the configuration has in its place.
type Param struct {
	Name   string
	Value  Template
	Source string
}

// NewRule completes the rule for a kind of credentials. Apart is what else makes its results
// other than those of the same exchange elsewhere, such as the fields of a token response that are kept.
func NewRule(x Rule, kind smapi.Kind, apart ...string) *Rule {
	x.kind = kind
	for _, p := range placeholders {
		if p.credential && p.kind == kind && slices.ContainsFunc(x.Params, func(param Param) bool { return param.Value.has(p.name) }) {
			x.credentials = append(x.credentials, p.name)
		}
	}
	for _, p := range slices.Concat(x.Params, x.Header) {
		for _, piece := range p.Value {
			x.sendsHome = x.sendsHome || piece.Text == nil && !slices.Contains(x.ofKind(), piece.Placeholder)
		}
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q", x.GrantType, apart)
	for _, p := range slices.Concat(x.Params, x.Header) {
		fmt.Fprintf(hash, " %q %q", p.Name, p.Source)
	}
	x.variant = string(hash.Sum(nil))
	x.lacks = fmt.Sprintf("the call has nothing of what exchange %s passes on ({%s}); something in front may have taken it, such as the header Authorization",
		kind, strings.Join(x.credentials, "}, {"))
	return &x
}

// NewSignIn returns the two questions of a sign-in, with parameters for the first alone and for both. These fields of a
// token response are kept.
func NewSignIn(start, both, header []Param, fields ...string) (*Rule, *Rule) {
	question := func(params []Param) *Rule {
		return NewRule(Rule{GrantType: token.DeviceCode, Params: params, Header: header}, smapi.None, fields...)
	}
	return question(slices.Concat(start, both)), question(both)
}

// ofKind are the placeholders of its kind of credentials.
func (x *Rule) ofKind() (names []string) {
	for _, p := range placeholders {
		if p.kind != "" && p.kind == x.kind {
			names = append(names, p.name)
		}
	}
	return names
}

// PassesCredentials reports whether it passes on the account's credentials. One that does not would hand out tokens whoever
// asks.
func (x *Rule) PassesCredentials() bool {
	return len(x.credentials) > 0 || x.kind == smapi.Anonymous
}

// HasCredentials reports whether a call has something of the credentials that are passed on.
func (x *Rule) HasCredentials(call *smapi.Call) bool {
	return len(x.credentials) == 0 || slices.ContainsFunc(x.credentials, func(name string) bool { return valueOf(name)(call) != "" })
}

// Lacks says what a call lacks that has nothing of the credentials.
func (x *Rule) Lacks() string { return x.lacks }

// MaxHeader is how many bytes a header may have. A server that refuses a longer one would do so for whoever sends it.
const MaxHeader = 1 << 10

// Request is what is asked of the token endpoint for one call.
type Request struct {
	token.Grant

	// Deadline is when an answer is of no use any more. It is required.
	Deadline time.Time

	// Identity is what makes it the same call as another, which then share one exchange and its result. The type of grant is among it.
	Identity []string

	// RejectedAnywhere tells that a rejection is the same in every home: of the credentials, which are all but the first of Identity.
	RejectedAnywhere bool

	// Account tells the account from others, whoever asks for it and however its name is spelled.
	Account string

	// Guessable is true where the credentials can be guessed, as a password can.
	Guessable bool

	// Others tells that the credentials may be others' to judge: that they are refused says nothing of the endpoint.
	Others bool

	// Ready is called right before the request is sent, and it is not sent unless that is true. It is of a refresh token that
	// a vault does not know and that anybody can have made up. Nil is ready.
	Ready func() bool

	// Held is how many bytes are held beside while it waits, such as a body that may be forwarded.
	Held int

	// Network is where the call comes from, 0 where that is not known.
	Network pacing.Network

	// From is the same as a text, for a vault. Blank is not known.
	From string

	digest pacing.Account // of Account, zero until it is asked for
}

// Request returns what is asked for a call.
func (x *Rule) Request(call *smapi.Call, lookup Lookup) Request {
	g := Request{
		Grant: token.Grant{
			Type:    x.GrantType,
			Params:  make([]token.Param, 0, len(x.Params)),
			OnError: x.OnError,
		},
		Identity:  x.identity(call),
		Account:   Account(call),
		Guessable: call.Credentials.Kind == smapi.Login,
	}
	if x.GrantType != token.Refresh && !x.sendsHome {
		g.RejectedAnywhere = true
	}
	for _, p := range x.Params {
		value := p.Value.Fill(call, lookup)
		if value != "" {
			g.Params = append(g.Params, token.Param{Name: p.Name, Value: value})
		}
		if x.GrantType == token.Refresh && x.passes(p) {
			g.Identity = append(g.Identity, value)
		}
	}
	if x.GrantType == token.Refresh {
		g.Account = strings.Join(g.Identity[1:], "\x00")
	}
	for _, p := range x.Header {
		// What a player sent may be no header, and is no reason to fail.
		if value := p.Value.Fill(call, lookup); value != "" && len(value) <= MaxHeader && httpguts.ValidHeaderFieldValue(value) {
			if g.Header == nil {
				g.Header = make(http.Header, len(x.Header))
			}
			g.Header[p.Name] = append(g.Header[p.Name], value)
		}
	}
	return g
}

// OfCode makes q, which x made, the request for the tokens of a device code.
func (x *Rule) OfCode(q *Request, code string) {
	q.Params = append(q.Params, token.Param{Name: "device_code", Value: code})
	q.Identity, q.RejectedAnywhere, q.Account, q.digest = []string{x.variant, code}, false, code, pacing.Account{}
}

// rejection is what makes a rejection the same as another.
func (q *Request) rejection() []string {
	if q.RejectedAnywhere {
		return q.Identity[1:]
	}
	return q.Identity
}

// setDigest sets what stands for the account.
func (q *Request) setDigest(x *Exchanger) {
	if q.digest == (pacing.Account{}) {
		(*replay.Digest)(&q.digest).Set(x.Name, []string{q.Account})
	}
}

// With is the request for another refresh token: one that the vault has, where ready is nil, or that a player presents.
func (q *Request) With(refreshToken string, ready func() bool) *Request {
	asked := *q
	asked.Params = slices.Clone(q.Params)
	for i := range asked.Params {
		if asked.Params[i].Name == token.Refresh {
			asked.Params[i].Value = refreshToken
		}
	}
	asked.Identity = []string{token.Refresh, refreshToken}
	asked.Others, asked.Ready = ready != nil, ready
	return &asked
}

// passes reports whether a parameter has something of the account's credentials.
func (x *Rule) passes(p Param) bool {
	return slices.ContainsFunc(x.credentials, p.Value.has)
}

// identity is the account and the home, since a token stands for one user in one household, and not the device. A
// refresh token is enough, because servers that rotate them take its second use for a theft: what is sent as one is it.
func (x *Rule) identity(call *smapi.Call) []string {
	c := &call.Credentials
	if x.GrantType == token.Refresh {
		return []string{token.Refresh}
	}
	switch home, kind := call.HouseholdID, string(c.Kind); c.Kind {
	case smapi.Login:
		return []string{home, x.variant, kind, c.Username, c.Password}
	case smapi.SessionID:
		return []string{home, x.variant, kind, c.SessionID}
	case smapi.LoginToken:
		return []string{home, x.variant, kind, c.Token, c.Key}
	default:
		return []string{home, x.variant, kind}
	}
}

// Account tells an account from others, in whatever home, by whatever password and however its name is spelled. Who has
// none is a home; of a getSessionId the account is not known.
func Account(call *smapi.Call) string {
	switch c := &call.Credentials; c.Kind {
	case smapi.Login:
		return nameOf(c.Username)
	case smapi.SessionID:
		return c.SessionID
	case smapi.LoginToken:
		return c.Token + c.Key
	}
	return call.HouseholdID
}

// nameOf is a user name in one spelling for all that a server may take for the same: case, Unicode form, accents, strokes,
// ligatures, outer blanks, how many inner ones, and what does not show. Collations of databases ignore accents, MySQL's by
// default, and directories the number of blanks.
func nameOf(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return strings.ToLower(name)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }) {
		name = strings.Map(func(r rune) rune {
			if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
				return -1
			}
			return r
		}, norm.NFKD.String(name))
		name = inPlainLetters.Replace(strings.ToLower(strings.ToUpper(name)))
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
	return strings.Join(strings.Fields(name), " ")
}

// inPlainLetters replaces what collations take for others but has no decomposition.
var inPlainLetters = strings.NewReplacer("ß", "ss", "æ", "ae", "œ", "oe", "ø", "o", "đ", "d", "ð", "d", "ħ", "h", "ł", "l", "ŧ", "t", "þ", "th")
