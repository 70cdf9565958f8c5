package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// explainer is what `caddy smapi-upgrade explain` is asked for.
type explainer struct {
	file            string
	config, adapter string
	json            bool
}

func explainCommand() *cobra.Command {
	var e explainer
	cmd := &cobra.Command{
		Use: "explain <file> [--config <path> [--adapter <name>]]\n" +
			"    [--json]",
		DisableFlagsInUseLine: true,
		Short:                 "Says how a captured request is decided, and why",
		Long: `
Takes a captured request through the steps by which it would be answered or
forwarded: what its method and headers allow, how much of its body is looked
at, what is found there, which option decides, what the token endpoint would be
asked, and what each of its answers would make the player hear. It is decided
by the code that serves requests. Nothing is sent anywhere.

The file, or standard input for -, is

    an HTTP request       as on the wire: request line, headers, a blank line
                          and the body. Line ends may be LF, and the
                          Content-Length may be missing or wrong.
    a SOAP envelope       the body alone, for which the headers of a player are
                          assumed.

Each smapi_upgrade of the configuration is asked, whether or not the routes
around it would let the request through: their hosts and paths are shown.
Secrets of the client are not read. Without --config it is a handler with the
defaults, which exchanges user names and passwords by the password grant.

User names, passwords, session ids, tokens, keys and homes are shown as ***(5),
where 5 is how many characters they have. The capture itself holds them: delete
it when it is explained.

Exit status:
    0   at least one handler would answer it
    1   all would forward it
    2   the command was not understood, or a file cannot be read
`,
		Example: `    A capture, by a handler with the defaults:
    $ caddy smapi-upgrade explain request.http

    By the configuration of the service, with its environment:
    $ caddy smapi-upgrade explain request.http --config /etc/caddy/Caddyfile

    An envelope from the clipboard, and only why it is forwarded:
    $ wl-paste | caddy smapi-upgrade explain - --json |
        jq -r '.handlers[].forwarded'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, errors.New("it takes one file, or - for standard input"))
			}
			e.file = args[0]
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return e.run(cmd) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&e.config, "config", "c", "", "The configuration `file` (default none)")
	flags.StringVarP(&e.adapter, "adapter", "a", "", "The `name` of its adapter")
	flags.BoolVar(&e.json, "json", false, "Print it as JSON")
	return cmd
}

// exitForwarded is the exit code of explain for a request that nobody answers.
const exitForwarded = 1

func (e *explainer) run(cmd *cobra.Command) error {
	asked, handlers, err := e.read(cmd.InOrStdin())
	if err != nil {
		return usageError(cmd, err)
	}
	x := explanation{Request: asked.request, Notes: asked.notes}
	for _, c := range handlers {
		h, err := c.explain(asked)
		if err != nil {
			return usageError(cmd, err)
		}
		x.Answered = x.Answered || h.Answered
		x.Handlers = append(x.Handlers, h)
	}
	if err := show(cmd.OutOrStdout(), x, e.json); err != nil {
		return usageError(cmd, err)
	}
	if !x.Answered {
		return exit(cmd, exitForwarded)
	}
	return nil
}

// show prints something as JSON or as text.
func show(out io.Writer, what interface{ print(io.Writer) }, asJSON bool) error {
	var text bytes.Buffer
	if asJSON {
		encoder := json.NewEncoder(&text)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(what); err != nil {
			return err
		}
	} else {
		what.print(&text)
	}
	_, err := out.Write(text.Bytes())
	return err
}

func (e *explainer) read(stdin io.Reader) (*captured, []configured, error) {
	if e.adapter != "" && e.config == "" {
		return nil, nil, errors.New("--adapter is for the file of --config")
	}
	if e.config == "-" && e.file == "-" {
		return nil, nil, errors.New("standard input is either the request or the configuration")
	}
	asked, err := readCapture(e.file, stdin)
	if err != nil {
		return nil, nil, err
	}
	if e.config == "" {
		return asked, []configured{defaultHandler()}, nil
	}
	config, err := loadConfig(e.config, e.adapter)
	if err != nil {
		return nil, nil, err
	}
	handlers, err := findHandlers(config)
	return asked, handlers, err
}

// explanation is what becomes of a request, without anything secret.
type explanation struct {
	// Request is what was captured, Notes what was mended of it.
	Request  requestFacts `json:"request"`
	Notes    []string     `json:"notes,omitempty"`
	Handlers []explained  `json:"handlers"`

	// Answered tells whether at least one handler would answer it.
	Answered bool `json:"answered"`
}

// explained is what becomes of the request at one handler.
type explained struct {
	handlerFacts

	// HeadersAllow tells whether the method and the headers let it be a call, BytesRead how much of its body is
	// read to find out.
	HeadersAllow bool           `json:"headers_allow"`
	LookedFor    []smapi.Method `json:"looked_for"`
	BytesRead    int            `json:"bytes_read"`

	// Forwarded is why it is forwarded, blank if it is not. Ambiguous tells that it resembles a call.
	Forwarded string `json:"forwarded,omitempty"`
	Ambiguous bool   `json:"ambiguous,omitempty"`
	Hint      string `json:"hint,omitempty"`

	Call     *callFacts     `json:"call,omitempty"`
	Rule     string         `json:"rule,omitempty"`
	Exchange *exchangeFacts `json:"exchange,omitempty"`
	Told     []told         `json:"told,omitempty"`

	// Observed tells that all of that would only be without mode observe.
	Observed bool `json:"observed,omitempty"`
	Answered bool `json:"answered"`
}

// handlerFacts tell a handler from others.
type handlerFacts struct {
	Endpoint string   `json:"endpoint,omitempty"`
	ClientID string   `json:"client_id,omitempty"`
	At       string   `json:"at,omitempty"`
	Matches  []string `json:"matches,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

func (c *configured) facts(h *Handler) handlerFacts {
	f := handlerFacts{At: c.at, Matches: c.matches, ClientID: h.settings.clientID}
	switch s := &h.settings; {
	case c.at == "":
		return handlerFacts{Notes: []string{"There is no --config: this is a handler with the defaults, which exchanges user names and passwords by the password grant."}}
	case s.url != nil:
		f.Endpoint = s.shown()
	case s.issuer != "" && !strings.ContainsAny(s.issuer, "@?"):
		f.Endpoint = s.issuer
	case h.TokenEndpoint != "" || s.issuer != "":
		f.Endpoint = "a token endpoint with a placeholder"
	}
	return f
}

// callFacts are what was found in a call, with everything masked that is about a listener.
type callFacts struct {
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

func factsOf(call *smapi.Call) *callFacts {
	c := &call.Credentials
	f := &callFacts{
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

// exchangeFacts are what the token endpoint would be sent.
type exchangeFacts struct {
	GrantType string  `json:"grant_type"`
	Params    []named `json:"params"` // in their order, grant_type first

	// Headers are the names of those that go out, LeftOut of those that come to nothing for this request.
	Headers []string `json:"headers"`
	LeftOut []string `json:"headers_left_out,omitempty"`

	OnError OnError `json:"on_error,omitempty"`
}

type named struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// told is what the player hears for an answer of the token endpoint, or without one.
type told struct {
	Answer  string       `json:"answer,omitempty"`
	Outcome flow.Outcome `json:"outcome"`
	Player  string       `json:"player"`

	then string // what the player does
}

// explain takes the steps of ServeHTTP.
func (c *configured) explain(asked *captured) (x explained, err error) {
	h, err := c.handler()
	if err != nil {
		return x, err
	}
	var note string
	if h.settings, err = h.resolve(caddy.NewReplacer(), nil); err != nil {
		// Whoever explains need not have the environment of the server.
		unresolved := err
		if h.settings, err = h.resolve(nil, nil); err != nil {
			return x, fmt.Errorf("the smapi_upgrade at %s: %w", c.at, err)
		}
		note = "Its placeholders are left as they are, and lengths of values with one differ, because one cannot be replaced here: " + unresolved.Error() + "."
	}
	x = explained{handlerFacts: c.facts(h), LookedFor: h.settings.methods}
	if note != "" {
		x.Notes = append(x.Notes, note)
	}
	request, body := asked.make()
	call, peeked, why := smapi.Read(request, h.settings.methods)
	x.HeadersAllow, x.BytesRead = body.read, peeked
	if call == nil {
		_, clear := why.(smapi.NoCall)
		x.Forwarded, x.Ambiguous, x.Hint = why.Error(), !clear, h.hint(asked)
		return x, nil
	}
	x.Call = factsOf(call)
	p := &h.settings.policy
	d := p.Decide(call)
	x.Rule = d.Reason.Says
	switch {
	case d.Outcome == flow.Forwarded:
		x.Forwarded = x.Rule
		return x, nil
	case p.Mode == ModeObserve:
		x.Forwarded, x.Observed = "mode observe: every call is forwarded", true
	default:
		x.Answered = true
	}
	if d.Exchange == nil {
		x.Told = []told{tell(p, &d, "")}
		return x, nil
	}
	request = prepared(context.Background(), request)
	if x.Exchange, err = h.rehearse(&d, d.Exchange.Request(call, lookup(request))); err != nil {
		return x, err
	}
	x.Told = tellAll(p, d)
	return x, nil
}

// hint says which option would have the request answered.
func (h *Handler) hint(asked *captured) string {
	request, _ := asked.make()
	call, _, _ := smapi.Read(request, flow.AllMethods())
	if call == nil {
		return ""
	}
	return h.settings.policy.Hint(call.Method)
}
