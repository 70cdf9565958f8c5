package diagnose

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/capture"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/tap"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// State is how one thing that was checked is.
type State string

// The states, from good to bad.
const (
	Well    State = "ok"
	Fix     State = "fix"     // it works, and should be better
	Problem State = "problem" // it does not work for players
)

var states = []State{Well, Fix, Problem}

func worse(a, b State) State {
	return states[max(slices.Index(states, a), slices.Index(states, b))]
}

// Report is what was found, and the worst of it.
type Report struct {
	State    State      `json:"state"`
	Handlers []*Checked `json:"handlers"`
}

// Checked is what was found of one handler.
type Checked struct {
	HandlerFacts
	State  State     `json:"state"`
	Checks []Finding `json:"checks"`

	Right       *Tried `json:"right_credentials,omitempty"`
	Wrong       *Tried `json:"wrong_credentials,omitempty"`
	WrongSecret *Tried `json:"wrong_client_secret,omitempty"`
	Locked      *Tried `json:"locked_account,omitempty"`
	Refreshed   *Tried `json:"refresh,omitempty"`
	Charset     *Tried `json:"form_charset,omitempty"`

	at        string // its path in the configuration
	options   *settings.Options
	text      string // of the options
	settings  settings.Settings
	files     settings.Files
	exchanger *exchange.Exchanger // nil where there is nothing to try
	charset   *exchange.Exchanger // says that forms are UTF-8, nil where the first one does
	vault     *vault.Vault        // nil where there is none
	impostor  *exchange.Exchanger // has a client secret that is made up, nil where the client has none
	tap       tap.Tap
}

// Finding is how one thing is.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Says  string `json:"says"`
	Fix   string `json:"fix,omitempty"`
}

// Tried is what came of an exchange. Of tokens it has only the lengths, in characters.
type Tried struct {
	Told
	Status     int     `json:"status,omitempty"`
	Error      string  `json:"oauth_error,omitempty"`
	Cause      string  `json:"cause,omitempty"`
	Fix        string  `json:"fix,omitempty"`
	Seconds    float64 `json:"seconds"`
	Posts      int     `json:"posts"`
	AuthToken  int     `json:"auth_token_length,omitempty"`
	PrivateKey int     `json:"private_key_length,omitempty"`

	// OfStatus tells that on_error can name it by its status.
	OfStatus bool `json:"-"`
}

func (x *Checked) say(s State, check, says string, fixes ...string) {
	x.Checks = append(x.Checks, Finding{check, s, says, strings.Join(fixes, "")})
	x.State = worse(x.State, s)
}

// checkHome is whom all calls of a check are from.
const checkHome = "Sonos_smapi_upgrade_check"

// check tries everything that can be tried, in the order in which one thing needs another.
func (x *Checked) check(ctx context.Context, tries Tries, wrong bool) {
	account := tries.Account
	if x.exchanger == nil {
		return
	}
	x.checkSecrets(time.Now())
	x.checkVault(ctx)
	if x.settings.Policy.Rules[account.Kind] == nil {
		x.say(Well, "exchange", fmt.Sprintf("there is none for %s, so that nothing is tried here", account.Kind))
		return
	}
	if !x.checkCharset(ctx, account) {
		return
	}
	right, result := x.try(ctx, x.exchanger, smapi.GetDeviceAuthToken, account)
	x.Right = result
	if right.Rule == nil {
		x.say(Problem, "right credentials", "nothing is exchanged: "+right.Reason.Says, "try another account")
		return
	}
	if !x.checkEndpoint(right) {
		return
	}
	x.checkTLS(time.Now())
	x.checkClock()
	x.sayCharset(right)
	x.checkRight(right)
	x.checkPosts("the right credentials", result.Posts)
	if right.Result.Class != token.Issued {
		return // by wrong credentials nothing more is learned
	}
	if tries.Refresh {
		x.checkRefresh(ctx, right)
	}
	if !wrong {
		x.say(Well, "wrong credentials", "tried above, at the same token endpoint")
		return
	}
	x.checkWrong(ctx, account)
	if tries.Locked != nil {
		x.checkLocked(ctx, *tries.Locked)
	}
}

// try takes a call through the handler.
func (x *Checked) try(ctx context.Context, as *exchange.Exchanger, method smapi.Method, c smapi.Credentials) (flow.Decision, *Tried) {
	c.DeviceID, c.DeviceProvider = capture.CloudDevice, "Sonos"
	call := &smapi.Call{Method: method, Arrived: time.Now(), HouseholdID: checkHome, Credentials: c}
	p := x.settings.Policy
	p.RefreshAuthTokens = true // as if it were, to see whether it could be
	d := *p.Decide(call)
	if d.Rule != nil {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/"}, Header: http.Header{}}
		q := d.Rule.Request(call, placeholders(r))
		q.Deadline = call.Arrived.Add(x.settings.Policy.Timeout)
		x.settings.Policy.Conclude(&d, as.Exchange(ctx, &q))
	}
	result := d.Result
	t := &Tried{
		Told: tell(&x.settings.Policy, &d, ""), Status: result.Status, Error: result.Error, Cause: result.Cause, Fix: result.Fix,
		Seconds: result.Took.Seconds(), Posts: x.tap.Count(), OfStatus: result.OfStatus,
	}
	if result.Class == token.Issued {
		t.AuthToken = utf8.RuneCountInString(result.Fields.Get(x.settings.Policy.AuthToken))
		t.PrivateKey = utf8.RuneCountInString(result.Fields.Get(x.settings.Policy.PrivateKey))
	}
	return d, t
}

func (x *Checked) checkSecrets(now time.Time) {
	switch secret := x.options.ClientSecret; {
	case secret != "" && caddy.NewReplacer().ReplaceAll(secret, "") == secret:
		x.say(Fix, "secrets", "client_secret is in the configuration itself, which the admin API, the autosaved configuration and Caddy's debug log show",
			"use {env.NAME} or {file./path}")
	case secret != "":
		x.say(Well, "secrets", "client_secret can be read")
	case x.options.ClientKey != "":
		x.say(Well, "secrets", "client_key can be read")
	case x.settings.Client.Auth == token.None:
		x.say(Well, "secrets", "a public client has none")
	}
	for _, s := range x.files.Status(now) {
		if s.Expires != nil {
			x.sayLife("client certificate", "", now, *s.Expires)
		}
	}
}

// checkVault tries the storage as a vault uses it.
func (x *Checked) checkVault(ctx context.Context) {
	if x.vault == nil {
		return
	}
	if err := x.vault.Try(ctx); err != nil {
		x.say(Problem, "vault", "its storage does not work: "+err.Error(),
			"check Caddy's storage: that it is there, writable for the user of the server, not full, and its clock right")
		return
	}
	x.say(Well, "vault", "its storage was locked, written to and read, and what was written is removed again")
}

// soon is how long before its end a certificate has to be replaced. Those that are issued for days are replaced
// earlier by who issues them.
const soon = 7 * 24 * time.Hour

func (x *Checked) sayLife(check, before string, now, end time.Time) {
	says := fmt.Sprintf("%svalid until %s, %d days left", before, end.UTC().Format(time.DateOnly), int(end.Sub(now)/(24*time.Hour)))
	switch left := end.Sub(now); {
	case left <= 0:
		x.say(Problem, check, before+"not valid since "+end.UTC().Format(time.DateOnly), "replace it")
	case left < soon:
		x.say(Fix, check, says, "replace it")
	default:
		x.say(Well, check, says)
	}
}

// checkEndpoint reports whether there was an answer to a POST.
func (x *Checked) checkEndpoint(d flow.Decision) bool {
	if x.tap.Answer == nil {
		says := cmp.Or(x.tap.Cause(), d.Result.Cause)
		if d.Result.Status != 0 {
			says += fmt.Sprintf(" (status %d)", d.Result.Status)
		}
		x.say(Problem, "endpoint", says, d.Result.Fix)
		return false
	}
	if x.settings.URL == nil {
		u := *x.tap.Where
		u.RawQuery = ""
		x.say(Well, "endpoint", "by the issuer's metadata "+u.String())
		return true
	}
	x.say(Well, "endpoint", "answers")
	return true
}

func (x *Checked) checkTLS(now time.Time) {
	const check = "TLS"
	connection := x.tap.Answer.TLS
	switch {
	case connection == nil && token.Loopback(x.tap.Where.Hostname()):
		x.say(Well, check, "none: http on loopback")
		return
	case connection == nil:
		x.say(Fix, check, "none: passwords cross the network in the clear, as insecure_http allows", "use https")
		return
	case connection.Version < tls.VersionTLS12:
		x.say(Fix, check, tls.VersionName(connection.Version)+", which is no longer safe", "use TLS 1.2 at least")
	case len(connection.VerifiedChains) == 0:
		x.say(Fix, check, "the certificate is not verified: who is in between can read passwords", "trust its authority by tls_trust_pool, and remove tls_insecure_skip_verify")
	}
	if len(connection.PeerCertificates) > 0 {
		x.sayLife(check, tls.VersionName(connection.Version)+", certificate ", now, connection.PeerCertificates[0].NotAfter)
	}
}

// maxSkew is how far the clocks may be apart. Assertions are good for a minute, and sent at its beginning.
const maxSkew = 30 * time.Second

func (x *Checked) checkClock() {
	const check = "clock"
	date, err := http.ParseTime(x.tap.Answer.Header.Get("Date"))
	if err != nil {
		x.say(Well, check, "the answer has no Date to compare it with")
		return
	}
	skew := time.Duration(0)
	switch { // a Date is cut to its second
	case date.After(x.tap.Got):
		skew = date.Sub(x.tap.Got)
	case date.Add(time.Second).Before(x.tap.Sent):
		skew = date.Add(time.Second).Sub(x.tap.Sent)
	}
	apart := skew.Abs().Round(time.Second)
	says := fmt.Sprintf("ours is %v behind the server's", apart)
	if skew < 0 {
		says = fmt.Sprintf("ours is %v ahead of the server's", apart)
	}
	switch {
	case skew.Abs() <= maxSkew:
		x.say(Well, check, fmt.Sprintf("at most %v apart from the server's", max(apart, time.Second)))
	case x.settings.Client.Auth == token.PrivateKeyJWT:
		x.say(Problem, check, says+", and the assertions of private_key_jwt are good for a minute", "set the clocks by NTP")
	default:
		x.say(Fix, check, says, "set the clocks by NTP")
	}
}

// why says what the token endpoint said, in words of our own.
func (t *Tried) why() string {
	var parts []string
	if t.Cause != "" {
		parts = append(parts, t.Cause)
	}
	if t.Error != "" {
		parts = append(parts, t.Error)
	}
	if t.Status != 0 {
		parts = append(parts, fmt.Sprint("status ", t.Status))
	}
	return strings.Join(parts, ", ")
}

// gets says what the player gets, and why.
func (t *Tried) gets() string {
	says := fmt.Sprintf("%s: the player gets %s", t.Outcome, t.Player)
	if why := t.why(); why != "" {
		says += ". Why: " + why
	}
	return says
}

func (x *Checked) checkRight(d flow.Decision) {
	const check = "right credentials"
	t := x.Right
	switch {
	case d.Outcome == flow.Upgraded:
		x.say(Well, check, fmt.Sprintf("%s: the player gets %s", t.Outcome, t.Player))
	case d.Outcome == flow.Rejected && x.Charset.issued():
		x.say(Problem, check, t.gets(), "form_charset utf-8")
	case d.Outcome == flow.Rejected:
		x.say(Problem, check, t.gets(), "see whether the account is right. If it is, every listener would be signed out")
	default:
		x.say(Problem, check, t.gets(), t.Fix)
	}
	if t.AuthToken+t.PrivateKey > 0 {
		x.sayLengths(d)
	}
	if d.Result.Class != token.Issued {
		return
	}
	says := fmt.Sprintf("%s, of %v (timeout); players give up after %v", max(d.Result.Took.Round(time.Millisecond), time.Millisecond), x.settings.Policy.Timeout, settings.MaxTimeout)
	if d.Result.Took > x.settings.Policy.Timeout/2 {
		x.say(Fix, "duration", says, "a wave of upgrades needs a faster endpoint, or most calls get Server.ServiceUnavailable at first")
	} else {
		x.say(Well, "duration", says)
	}
}

// sayLengths says how long the tokens are. That they do not fit has been said.
func (x *Checked) sayLengths(d flow.Decision) {
	t := x.Right
	is := Well
	if max(t.AuthToken, t.PrivateKey) > smapi.MaxToken {
		is = Problem
	}
	key := fmt.Sprint("privateKey ", t.PrivateKey)
	switch {
	case t.PrivateKey == 0 && d.Outcome == flow.Upgraded:
		key = "privateKey is the fallback of private_key, which refreshes nothing"
	case t.PrivateKey == 0:
		key = "no privateKey"
	}
	x.say(is, "tokens", fmt.Sprintf("authToken %d of %d characters, %s", t.AuthToken, smapi.MaxToken, key))
}

func (x *Checked) checkPosts(of string, posts int) {
	const check = "POSTs"
	switch posts {
	case 0:
		x.say(Well, check, "none for "+of)
	case 1:
		x.say(Well, check, "exactly one for "+of)
	default:
		x.say(Fix, check, fmt.Sprintf("%d for %s: a wrong password may cost as many failed logins", posts, of),
			"see what makes the connection break, such as a proxy in between")
	}
}

func (x *Checked) checkRefresh(ctx context.Context, right flow.Decision) {
	const check = "refresh"
	bad := Fix
	if x.options.RefreshAuthTokens {
		bad = Problem
	}
	switch {
	case right.Outcome != flow.Upgraded:
		return
	case x.settings.Policy.PrivateKey != token.Refresh || x.Right.PrivateKey == 0:
		x.say(bad, check, "not tried: the privateKey is no refresh token", "ask for one, often by scope offline_access")
		return
	}
	d, t := x.try(ctx, x.exchanger, smapi.RefreshAuthToken, smapi.Credentials{Kind: smapi.LoginToken, Token: right.AuthToken, Key: right.PrivateKey})
	x.Refreshed = t
	if d.Outcome != flow.Refreshed {
		x.say(bad, check, t.gets(), t.Fix)
		return
	}
	says := fmt.Sprintf("%s: the player gets %s", t.Outcome, t.Player)
	if !x.options.RefreshAuthTokens {
		says += ". Without refresh_auth_tokens refreshes are forwarded"
	}
	x.say(Well, check, says)
	x.checkPosts("the refresh", t.Posts)
}
