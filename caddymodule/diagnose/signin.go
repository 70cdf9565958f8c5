package diagnose

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// How often a player asks whether its listener has signed in, and for how long, by Sonos's documentation.
const (
	pollEvery = 5 * time.Second
	pollFor   = 7 * time.Minute
)

// prepareSignIn sets up by whom listeners sign in. What it gives a player is good for this process alone.
func (x *Checked) prepareSignIn(endpoint token.Config) error {
	if x.options.SignIn == nil {
		return nil
	}
	c, err := x.options.ConnectSignIn(&x.settings, &x.files, endpoint, nil)
	if err != nil {
		return err
	}
	ofThis := rand.Text()
	x.settings.Policy.SignIn.Seals = secret.NewSeals(func() string { return ofThis })
	x.exchanger.SignIn = token.New(c)
	return nil
}

// SignIn plays a listener's whole sign-in at every handler that has sign_in, one after the other: show is told where to
// sign in, and then it is waited for as players do, until ctx ends. No handler with sign_in is an error.
func (t *Trial) SignIn(ctx context.Context, show func(endpoint string, l *smapi.Link)) (Report, error) {
	r := Report{State: Well}
	for _, x := range t.handlers {
		if x.exchanger == nil || x.exchanger.SignIn == nil {
			continue
		}
		x.checkSecrets(time.Now())
		x.checkSignIn(ctx, show)
		r.Handlers = append(r.Handlers, x)
		r.State = worse(r.State, x.State)
	}
	if len(r.Handlers) == 0 {
		return r, errors.New("no smapi_upgrade of the configuration has sign_in")
	}
	return r, nil
}

func (x *Checked) checkSignIn(ctx context.Context, show func(endpoint string, l *smapi.Link)) {
	d := x.ask(ctx, smapi.GetAppLink, "")
	if !x.checkEndpoint(d) {
		return
	}
	x.checkTLS(time.Now())
	x.checkClock()
	if d.Outcome != flow.LinkStarted {
		x.say(Problem, "link", x.gets(&d), d.Result.Fix)
		return
	}
	complete := "the address holds the code"
	if address, err := url.Parse(d.Link.URL); err == nil && address.RawQuery == "" {
		complete = "the address does not hold the code, which the listener types in"
	}
	x.say(Well, "link", fmt.Sprintf("%s; linkCode %d characters of %d, linkDeviceId %d of %d", complete,
		utf8.RuneCountInString(d.Link.Code), smapi.MaxLinkCode, len(d.Link.DeviceID), smapi.MaxLinkDeviceID))
	show(x.Endpoint, d.Link)
	link, begun := d.Link, time.Now()
	for wait := time.Duration(0); ; wait = pollEvery {
		select {
		case <-ctx.Done():
			x.say(Problem, "sign-in", "interrupted: nobody had signed in yet")
			return
		case <-time.After(wait):
		}
		d = x.ask(ctx, smapi.Poll, link.DeviceID)
		switch {
		case d.Outcome == flow.Linked:
			if missing := x.lacks(&d); missing != "" {
				x.say(Problem, "sign-in", "the listener has signed in, and the player gets no tokens: old_service needs "+missing+
					", which only an upgrade call has", fixSignIn)
				return
			}
			x.say(Well, "sign-in", fmt.Sprintf("%s: the player gets %s", d.Outcome, x.settings.Policy.Reply(&d).Player))
			x.say(Well, "token lengths", fmt.Sprintf("authToken %d characters, privateKey %d, of %d",
				utf8.RuneCountInString(d.AuthToken), utf8.RuneCountInString(d.PrivateKey), smapi.MaxToken))
			return
		case d.Outcome != flow.LinkPending:
			x.say(Problem, "sign-in", x.gets(&d), d.Result.Fix)
			return
		case time.Since(begun) > pollFor:
			x.say(Problem, "sign-in", "nobody signed in within the 7 minutes that players wait")
			return
		}
	}
}

const fixSignIn = "have the authorization server put the old service's user name and password into its token response, and take them from there " +
	"in old_service, such as username {token.FIELD}"

// lacks is what the old service would lack of a listener who has signed in, blank where there is no old service or it lacks nothing.
func (x *Checked) lacks(d *flow.Decision) string {
	if x.settings.Policy.OldService == nil {
		return ""
	}
	return x.settings.Policy.OldService.Missing(d.Call, d.Result.Fields)
}

// ask takes a call of a listener who signs in through the handler.
func (x *Checked) ask(ctx context.Context, method smapi.Method, linkDeviceID string) flow.Decision {
	call := &smapi.Call{
		Method: method, Arrived: time.Now(), HouseholdID: checkHome, LinkDeviceID: linkDeviceID,
		Credentials: smapi.Credentials{Kind: smapi.None},
	}
	p := &x.settings.Policy
	d := *p.Decide(call)
	if d.Rule != nil {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/"}, Header: http.Header{}}
		q := d.Rule.Request(call, placeholders(r))
		p.Ask(ctx, x.exchanger, &d, &q)
	}
	return d
}

// gets says what the player gets, and why.
func (x *Checked) gets(d *flow.Decision) string {
	t := Tried{Told: tell(&x.settings.Policy, d, ""), Status: d.Result.Status, Error: d.Result.Error, Cause: cmp.Or(d.Result.Cause, d.Reason.Cause)}
	return t.gets()
}
