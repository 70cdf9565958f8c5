package diagnose

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// Explanation is what becomes of a request, without anything secret.
type Explanation struct {
	// Request is what was captured, Notes what was odd about it.
	Request  RequestFacts `json:"request"`
	Notes    []string     `json:"notes,omitempty"`
	Handlers []Explained  `json:"handlers"`

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

	Call     *CallFacts     `json:"call,omitempty"`
	Rule     string         `json:"rule,omitempty"`
	Exchange *ExchangeFacts `json:"exchange,omitempty"`
	Told     []Told         `json:"told,omitempty"`

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

func (c *Configured) facts(o *settings.Options, s *settings.Settings) HandlerFacts {
	f := HandlerFacts{At: c.at, Matches: c.matches, ClientID: s.Client.ID}
	switch {
	case c.at == "":
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

// CallFacts are what was found in a call, with everything masked that is about a listener.
type CallFacts struct {
	Method         smapi.Method `json:"method"`
	Credentials    smapi.Kind   `json:"credentials"`
	HouseholdID    string       `json:"household_id,omitempty"`
	Username       string       `json:"username,omitempty"`
	Password       string       `json:"password,omitempty"`
	SessionID      string       `json:"session_id,omitempty"`
	Token          string       `json:"token,omitempty"`
	Key            string       `json:"key,omitempty"`
	DeviceID       string       `json:"device_id,omitempty"`
	DeviceProvider string       `json:"device_provider,omitempty"`
}

// cloudDevice is the device id of Sonos's cloud, which identifies nothing.
const cloudDevice = "00-00-00-00-00-00:0"

func factsOf(call *smapi.Call) *CallFacts {
	c := &call.Credentials
	f := &CallFacts{
		Method: call.Method, Credentials: c.Kind, HouseholdID: mask(call.HouseholdID),
		Username: mask(c.Username), Password: mask(c.Password), SessionID: mask(c.SessionID),
		Token: mask(c.Token), Key: mask(c.Key),
		DeviceID: mask(c.DeviceID), DeviceProvider: mask(c.DeviceProvider),
	}
	if c.Token == smapi.NeedsReauth {
		f.Token = c.Token
	}
	if c.DeviceID == cloudDevice {
		f.DeviceID = cloudDevice + ", Sonos's cloud"
	}
	if c.DeviceProvider == "Sonos" {
		f.DeviceProvider = "Sonos"
	}
	return f
}

// mask shows of a text only how many characters it has.
func mask(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("***(%d)", utf8.RuneCountInString(text))
}

// ExchangeFacts are what the token endpoint would be sent.
type ExchangeFacts struct {
	GrantType string  `json:"grant_type"`
	Params    []Named `json:"params"` // in their order, grant_type first

	// Headers are the names of those that go out, LeftOut of those that are empty for this request.
	Headers []string `json:"headers"`
	LeftOut []string `json:"headers_left_out,omitempty"`

	OnError settings.OnError `json:"on_error,omitempty"`
}

// Named is a parameter or a header, with a value that can be shown.
type Named struct {
	Name  string `json:"name"`
	Value string `json:"value"`
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
func Explain(asked *Capture, handlers []Configured) (Explanation, error) {
	x := Explanation{Request: asked.request, Notes: asked.notes}
	for _, c := range handlers {
		h, err := c.explain(asked)
		if err != nil {
			return x, err
		}
		x.Answered = x.Answered || h.Answered
		x.Handlers = append(x.Handlers, h)
	}
	return x, nil
}

// explain takes the steps of ServeHTTP.
func (c *Configured) explain(asked *Capture) (x Explained, err error) {
	o, err := c.options()
	if err != nil {
		return x, err
	}
	var note string
	s, err := o.Resolve(caddy.NewReplacer(), nil)
	if err != nil {
		// Whoever explains need not have the environment of the server.
		unresolved := err
		if s, err = o.Resolve(nil, nil); err != nil {
			return x, fmt.Errorf("the smapi_upgrade at %s: %w", c.at, err)
		}
		note = "Its placeholders are left as they are, and lengths of values with one differ, because one cannot be replaced here: " + unresolved.Error() + "."
	}
	x = Explained{HandlerFacts: c.facts(o, &s), LookedFor: s.Methods}
	if note != "" {
		x.Notes = append(x.Notes, note)
	}
	request, body := asked.make()
	call, peeked, why := smapi.Read(request, s.Methods)
	x.HeadersAllow, x.BytesRead = body.read, peeked
	if call == nil {
		_, clear := why.(smapi.NoCall)
		x.Forwarded, x.Ambiguous, x.Hint = why.Error(), !clear, hint(&s.Policy, asked)
		return x, nil
	}
	x.Call = factsOf(call)
	p := &s.Policy
	d := p.Decide(call)
	if call.Method == smapi.RefreshAuthToken && vault.IsHandle(call.Credentials.Key) {
		x.Notes = append(x.Notes, noteOfHandle(p))
		d.Others = d.Others && !p.Vault // what is refused then is this handler's own
	}
	x.Rule = d.Reason.Says
	switch {
	case d.Outcome == flow.Forwarded:
		x.Forwarded = x.Rule
		return x, nil
	case p.Mode == flow.ModeObserve:
		x.Forwarded, x.Observed = "mode observe: every call is forwarded", true
	default:
		x.Answered = true
	}
	if d.Exchange == nil {
		x.Told = []Told{tell(p, &d, "")}
		return x, nil
	}
	if x.Exchange, err = rehearse(&s, &d, d.Exchange.Request(call, placeholders(request))); err != nil {
		return x, err
	}
	x.Told = tellAll(p, d)
	return x, nil
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
func hint(p *flow.Policy, asked *Capture) string {
	request, _ := asked.make()
	call, _, _ := smapi.Read(request, flow.AllMethods())
	if call == nil {
		return ""
	}
	return p.Hint(call.Method)
}
