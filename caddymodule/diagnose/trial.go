package diagnose

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// Trial is of the handlers of a configuration, which are set up and not served by.
type Trial struct {
	config   []byte
	handlers []*Checked

	// What handlers have in common while they serve, by Settings.Key.
	states map[string]*exchange.State
}

// Prepare sets the handlers of a configuration in JSON up: those with this token endpoint or issuer, blank for all, and each
// once where several have the same options. It is an error where none exchanges this kind of credentials, and none is in a
// mode without exchanges. Nothing is sent. Close it when it is done.
func Prepare(config []byte, endpoint string, kind smapi.Kind) (*Trial, error) {
	all, err := configuration.Find(config)
	if err != nil {
		return nil, err
	}
	ctx, done, err := configuration.Provision(config)
	if err != nil {
		return nil, fmt.Errorf("the configuration does not load: %w", err)
	}
	defer done() // before anything is tried, which is no part of the history of who serves
	t := &Trial{config: config, states: make(map[string]*exchange.State)}
	seen := map[string]bool{}
	for _, one := range all {
		x, err := t.prepare(ctx, one)
		if err != nil {
			t.Close()
			return nil, err
		}
		// The same handler on another site would cost the account another failed login.
		if endpoint != "" && endpoint != x.settings.Shown() || seen[x.text] {
			x.files.Close()
			continue
		}
		seen[x.text] = true
		t.handlers = append(t.handlers, x)
	}
	if len(t.handlers) == 0 {
		return nil, errors.New("no smapi_upgrade of the configuration has the token endpoint or issuer of --endpoint")
	}
	if err := t.checkKind(kind); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close ends the following of files.
func (t *Trial) Close() {
	for _, x := range t.handlers {
		x.files.Close()
	}
}

// Endpoints are the token endpoints or issuers that Run asks, each once for each client.
func (t *Trial) Endpoints() (shown []string) {
	seen := map[string]bool{}
	for _, x := range t.handlers {
		if x.exchanger != nil && !seen[x.settings.Key()] {
			seen[x.settings.Key()] = true
			shown = append(shown, x.Endpoint)
		}
	}
	return shown
}

// Tries is what is tried, and as whom.
type Tries struct {
	// Account is one whose credentials are right.
	Account smapi.Credentials

	// Locked is one that the server has locked, nil for none.
	Locked *smapi.Credentials

	// Refresh is to refresh the tokens, too, which uses the refresh token up.
	Refresh bool
}

// WithSecret reports whether there is a client with a secret, so that Run tries a wrong one.
func (t *Trial) WithSecret() bool {
	return slices.ContainsFunc(t.handlers, func(x *Checked) bool { return x.impostor != nil })
}

// WithCharset reports whether there is a client that does not say the charset of its forms, so that Run tries what that
// changes where an account has characters beyond ASCII.
func (t *Trial) WithCharset() bool {
	return slices.ContainsFunc(t.handlers, func(x *Checked) bool { return x.charset != nil })
}

// WithOldService are how many handlers put the calls of upgraded homes to an old service, so that Run upgrades the account there
// once more and calls that.
func (t *Trial) WithOldService() (n int) {
	for _, x := range t.handlers {
		if x.exchanger != nil && x.options.OldService != nil {
			n++
		}
	}
	return n
}

// Run exchanges the credentials of an account at every handler. Once at each of Endpoints it tries wrong credentials, which
// is a failed login there, the right ones with a wrong client secret, and those of a locked account.
func (t *Trial) Run(ctx context.Context, tries Tries) Report {
	r := Report{State: Well}
	wrongTried := map[string]bool{}
	for _, x := range t.handlers {
		x.check(ctx, tries, !wrongTried[x.settings.Key()])
		x.checkOldService(ctx, t.config, tries.Account)
		wrongTried[x.settings.Key()] = true
		r.Handlers = append(r.Handlers, x)
		r.State = worse(r.State, x.State)
	}
	return r
}

// checkKind refuses credentials that no handler exchanges, since that is rather a wrong --credentials.
func (t *Trial) checkKind(kind smapi.Kind) error {
	if kind == smapi.None {
		return nil // for SignIn
	}
	var kinds []string
	for _, x := range t.handlers {
		if x.exchanger == nil || x.settings.Policy.Rules[kind] != nil {
			return nil
		}
		for k := range x.settings.Policy.Rules {
			kinds = append(kinds, string(k))
		}
	}
	slices.Sort(kinds)
	return fmt.Errorf("there is no exchange for %s, whose players get a blank pair: try --credentials %s",
		kind, strings.Join(slices.Compact(kinds), " or "))
}

// prepare sets up what a handler exchanges by, as in mode upgrade for all homes and with nothing remembered.
func (t *Trial) prepare(ctx caddy.Context, c configuration.Handler) (*Checked, error) {
	o, err := c.Options()
	if err != nil {
		return nil, err
	}
	x := &Checked{options: o, at: c.At, State: Well}
	x.say(Well, "configuration", "loads")
	mode := cmp.Or(o.Mode, flow.ModeUpgrade)
	o.Mode, o.Households, o.Replay, o.RememberRejected = flow.ModeUpgrade, nil, 0, 0
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	x.text = string(text)
	var endpoint token.Config
	if x.settings, err = o.Resolve(caddy.NewReplacer(), &x.files); err == nil {
		endpoint, err = o.Connect(ctx, &x.settings, &x.files)
	}
	x.HandlerFacts = facts(&c, o, &x.settings)
	switch {
	case mode == flow.ModeUpgrade && err != nil:
		x.files.Close()
		return nil, fmt.Errorf("the smapi_upgrade at %s: %w", c.At, err)
	case mode == flow.ModeReauthorize && err != nil:
		x.say(Well, "mode", "reauthorize: nothing is exchanged, and no token endpoint is configured that could be")
	case err != nil:
		x.say(Fix, "mode", fmt.Sprintf("%s: nothing is exchanged. In mode upgrade it would not load: %v", mode, err))
	case mode != flow.ModeUpgrade:
		x.say(Well, "mode", fmt.Sprintf("%s: nothing is exchanged in this mode. It is checked as if it were upgrade", mode))
	}
	if err != nil {
		x.text += string(mode)
		return x, nil
	}
	if x.settings.VaultKeyFile != "" {
		if x.vault, err = OpenVault(&x.settings, ctx.Storage()); err != nil {
			x.files.Close()
			return nil, fmt.Errorf("the smapi_upgrade at %s: %w", c.At, err)
		}
	}
	x.tap.Next = endpoint.Transport
	endpoint.Transport = &x.tap
	x.exchanger = x.settings.Exchanger(endpoint, t.state(&x.settings), nil) // what is tried here is few, and announced
	x.exchanger.Replay, x.exchanger.RememberRejected = 0, 0
	if err := x.prepareSignIn(endpoint); err != nil {
		return nil, fmt.Errorf("the smapi_upgrade at %s: %w", c.At, err)
	}
	if x.options.FormCharset == "" {
		spelled := endpoint
		spelled.FormCharset = "utf-8"
		said := *x.exchanger
		said.Endpoint = token.New(spelled)
		x.charset = &said
	}
	if endpoint.Client.Auth.NeedsSecret() {
		secret := rand.Text()
		endpoint.Client.Secret = func() string { return secret }
		impostor := *x.exchanger
		impostor.Endpoint = token.New(endpoint)
		x.impostor = &impostor
	}
	return x, nil
}

func (t *Trial) state(s *settings.Settings) *exchange.State {
	key := s.Key()
	if t.states[key] == nil {
		t.states[key] = exchange.NewState(pacing.Watch{}, nil, time.Now)
	}
	return t.states[key]
}
