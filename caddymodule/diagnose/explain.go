// Package diagnose finds out what the commands `check` and `explain` say, as values. It knows no terminal.
package diagnose

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/capture"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// Explanation is what becomes of a request, without anything secret.
type Explanation struct {
	// Request is what was captured, Notes what was odd about it.
	Request  capture.Facts `json:"request"`
	Notes    []string      `json:"notes,omitempty"`
	Handlers []Explained   `json:"handlers"`

	// Answered reports whether at least one handler would answer it.
	Answered bool `json:"answered"`
}

// Explained is what becomes of the request at one handler.
type Explained struct {
	HandlerFacts

	// HeadersAllow reports whether the method and the headers let it be a call, BytesRead how much of its body is
	// read to find out.
	HeadersAllow bool           `json:"headers_allow"`
	LookedFor    []smapi.Method `json:"looked_for"`
	BytesRead    int            `json:"bytes_read"`

	// Forwarded is why it is forwarded, blank if it is not. Ambiguous is true where it resembles a call.
	Forwarded string `json:"forwarded,omitempty"`
	Ambiguous bool   `json:"ambiguous,omitempty"`
	Hint      string `json:"hint,omitempty"`

	Call     *capture.CallFacts `json:"call,omitempty"`
	Rule     string             `json:"rule,omitempty"`
	Exchange *ExchangeFacts     `json:"exchange,omitempty"`
	Told     []Told             `json:"told,omitempty"`

	// Observed is true where all of that would only be without mode observe.
	Observed bool `json:"observed,omitempty"`
	Answered bool `json:"answered"`
}

// HandlerFacts tell a handler from others.
type HandlerFacts struct {
	Endpoint string   `json:"endpoint,omitempty"`
	ClientID string   `json:"client_id,omitempty"`
	At       string   `json:"at,omitempty"`
	Matches  []string `json:"matches,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

func facts(c *configuration.Handler, o *settings.Options, s *settings.Settings) HandlerFacts {
	f := HandlerFacts{At: c.At, Matches: c.Matches, ClientID: s.Client.ID}
	switch {
	case c.At == "":
		return HandlerFacts{Notes: []string{"There is no --config: this is a handler with the defaults, which exchanges user names and passwords by the password grant."}}
	case s.URL != nil:
		f.Endpoint = s.Shown()
	case s.Issuer != "" && !strings.ContainsAny(s.Issuer, "@?"):
		f.Endpoint = s.Issuer
	case o.TokenEndpoint != "" || s.Issuer != "":
		f.Endpoint = "a token endpoint with a placeholder"
	}
	return f
}

// ExchangeFacts are what the token endpoint would be sent.
type ExchangeFacts struct {
	GrantType string `json:"grant_type"`

	// Device is true where the device authorization endpoint is asked, and not the token endpoint.
	Device bool `json:"device,omitempty"`

	Params []capture.Named `json:"params"` // in their order, grant_type first

	// Headers are the names of those that go out, LeftOut of those that are empty for this request.
	Headers []string `json:"headers"`
	LeftOut []string `json:"headers_left_out,omitempty"`

	OnError settings.OnError `json:"on_error,omitempty"`
}

// Told is what the player hears for an answer of the token endpoint, or without one.
type Told struct {
	Answer  string       `json:"answer,omitempty"`
	Outcome flow.Outcome `json:"outcome"`
	Player  string       `json:"player"`

	// Then is what the player does.
	Then string `json:"-"`
}

// Explain says what would become of a request at each of the handlers. Its error is about a configuration.
func Explain(asked *capture.Request, handlers []configuration.Handler) (Explanation, error) {
	x := Explanation{Request: asked.Facts, Notes: asked.Notes}
	for _, c := range handlers {
		h, err := explain(&c, asked)
		if err != nil {
			return x, err
		}
		x.Answered = x.Answered || h.Answered
		x.Handlers = append(x.Handlers, h)
	}
	return x, nil
}

// explain takes the steps of ServeHTTP.
func explain(c *configuration.Handler, asked *capture.Request) (x Explained, err error) {
	o, err := c.Options()
	if err != nil {
		return x, err
	}
	var note string
	s, err := o.Resolve(caddy.NewReplacer(), nil)
	if err != nil {
		// Whoever explains need not have the environment of the server.
		unresolved := err
		if s, err = o.Resolve(nil, nil); err != nil {
			return x, fmt.Errorf("the smapi_upgrade at %s: %w", c.At, err)
		}
		note = "Its placeholders are left as they are, and lengths of values with one differ, because one cannot be replaced here: " + unresolved.Error() + "."
	}
	x = Explained{HandlerFacts: facts(c, o, &s), LookedFor: s.Methods}
	if note != "" {
		x.Notes = append(x.Notes, note)
	}
	request, body := asked.Make()
	call, peeked, why := smapi.Read(request, s.Methods)
	if s.Policy.OldService != nil {
		if ours, n, refused := readOurs(asked, &s); ours != nil || refused != nil {
			x.HeadersAllow, x.BytesRead, x.Answered = true, n, true
			explainOurs(&x, &s, ours, refused)
			return x, nil
		}
	}
	x.HeadersAllow, x.BytesRead = body.WasRead, peeked
	if call == nil {
		_, clear := why.(smapi.NoCall)
		x.Forwarded, x.Ambiguous, x.Hint = why.Error(), !clear, hint(&s.Policy, asked)
		return x, nil
	}
	x.Call = capture.FactsOf(call)
	p := &s.Policy
	d := *p.Decide(call)
	if call.Method == smapi.RefreshAuthToken && seal.IsHandle(call.Credentials.Key) {
		x.Notes = append(x.Notes, noteOfHandle(p))
		d.Others = d.Others && !p.Vault // what is refused then is this handler's own
	}
	x.Rule = p.Says(&d)
	switch {
	case d.Outcome == flow.Forwarded:
		x.Forwarded = x.Rule
		return x, nil
	case p.Mode == flow.ModeObserve:
		x.Forwarded, x.Observed = "mode observe: every call is forwarded", true
	default:
		x.Answered = true
	}
	if d.Rule == nil {
		x.Told = []Told{tell(p, &d, "")}
		return x, nil
	}
	if x.Exchange, err = rehearse(&s, &d, d.Rule.Request(call, placeholders(request))); err != nil {
		return x, err
	}
	x.Told = tellAll(p, d)
	return x, nil
}

// readOurs reads a call with a token of ours, or says why one is refused. It returns nothing of a request without one.
func readOurs(asked *capture.Request, s *settings.Settings) (call *smapi.Call, peeked int, refused error) {
	request, _ := asked.Make()
	c, peeked, why := smapi.Ours(seal.Bears).Read(request, s.Methods)
	if _, refuse := why.(smapi.Refuse); refuse {
		refused = why
	}
	if c != nil && c.Bearing != nil && (c.Bearing.Only || c.Method == smapi.GetDeviceAuthToken || s.Policy.Mode == flow.ModeObserve) {
		call = c
	}
	return call, peeked, refused
}

// explainOurs says what becomes of a request with a token of ours.
func explainOurs(x *Explained, s *settings.Settings, call *smapi.Call, refused error) {
	d := flow.Decision{Call: call, Outcome: flow.Translated}
	if refused != nil {
		d = flow.Decision{Call: new(smapi.Call), Outcome: flow.Refused}
		x.Forwarded = "with old_service it is refused, because it has " + refused.Error()
	} else {
		x.Call = capture.FactsOf(call)
		switch {
		case call.Method == smapi.RefreshAuthToken:
			d.Outcome = flow.Refreshed
		case call.Method == smapi.GetDeviceAuthToken && !call.Bearing.Only:
			d.Outcome = flow.Upgraded
		}
		x.Rule = "old_service: the token stands for a record of the vault, from which the account is put to the old service as " +
			string(s.Policy.OldService.Kind) + "; if that account has to sign in again, the player gets Client.AuthTokenExpired"
	}
	x.Told = []Told{tell(&s.Policy, &d, "")}
}

// noteOfHandle says what the form of a handle means. The key file is not read.
func noteOfHandle(p *flow.Policy) string {
	if p.Vault {
		return "Its key has the form of a vault's handle. If the key file has made it, its record answers, or the refresh token of that is " +
			"sent in its place. If not, the call is forwarded."
	}
	return "Its key has the form of a vault's handle, and there is no vault here: the token endpoint does not know it."
}

// hint says which option would have the request answered.
func hint(p *flow.Policy, asked *capture.Request) string {
	request, _ := asked.Make()
	call, _, _ := smapi.Read(request, flow.AllMethods())
	if call == nil {
		return ""
	}
	return p.Hint(call.Method)
}
