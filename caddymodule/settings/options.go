// Package settings is the configuration of the handler: its options, and what is in force by them.
package settings

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// Options are those of the handler as they are given. The zero value of each is its default.
type Options struct {
	// The URL of the OAuth 2.0 token endpoint. Required in mode `upgrade`, unless there is an `issuer`. It has
	// to be `https` unless its host is loopback; see `insecure_http`.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// The issuer whose metadata names the token endpoint, by OpenID Connect Discovery or RFC 8414, exactly as the
	// server spells it. It is asked when the first account is exchanged, again after an hour and after a reload. While
	// it is not available, the last known token endpoint is used; if none is known yet, calls are answered as
	// `unavailable`.
	Issuer string `json:"issuer,omitempty"`

	// The client id at the token endpoint. Required in mode `upgrade`.
	ClientID string `json:"client_id,omitempty"`

	// The client's secret. Required in mode `upgrade` for `client_auth` `basic`, `basic_raw` and `post`. Use
	// `{env.NAME}` or `{file./path}`, because the admin API, the autosaved configuration and Caddy's own debug log show
	// the configuration. A file in it is read again when it changes.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the client authenticates: `basic` (HTTP Basic, form-encoded first as RFC 6749 has it), `basic_raw`
	// (HTTP Basic without the encoding; it matters for special characters only), `post` (in the form),
	// `private_key_jwt` (an assertion signed with `client_key`), `tls` (the client certificate of `transport`,
	// RFC 8705) or `none` (a public client). Default: `basic`.
	ClientAuth token.ClientAuth `json:"client_auth,omitempty"`

	// The file with the private key of `private_key_jwt`, PEM or a JWK. An RSA key of at least 2048 bits signs by RS256, an EC key on
	// P-256 by ES256, an Ed25519 key by EdDSA. It is read again when it changes.
	ClientKey string `json:"client_key,omitempty"`

	// The `kid` of the assertions. Default: that of the JWK, if it has one.
	KeyID string `json:"key_id,omitempty"`

	// The `aud` of the assertions, which are good for a minute. Some servers want their issuer there. Default: the token endpoint.
	AssertionAudience string `json:"assertion_audience,omitempty"`

	// The scopes to ask for. Most servers issue a refresh token only for one that says so, such as
	// `offline_access`. Default: none, which leaves it to the server.
	Scope []string `json:"scope,omitempty"`

	// Extra form parameters of every exchange, by name. Values may have the placeholders
	// `{smapi.household_id}`, `{smapi.device_id}` and `{smapi.device_provider}`.
	Param map[string][]string `json:"param,omitempty"`

	// Extra headers of every exchange, by name. Values may have the placeholders of `param`, and those of the
	// player's HTTP request such as `{http.vars.client_ip}`. One that is empty is left out.
	Header map[string][]string `json:"header,omitempty"`

	// The charset that the form of an exchange is said to be in, in its `Content-Type`. Only `utf-8`, which it is in any
	// case. Servers that read a form as ISO-8859-1 unless they are told, such as older Java ones, refuse passwords with
	// other than ASCII characters without it. Default: not said.
	FormCharset string `json:"form_charset,omitempty"`

	// How long a call may take in all, from its arrival to its answer, the wait for a place at the token
	// endpoint included. From `10ms` to `20s`, when players give up. Default: `15s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How many logins are under way at the token endpoint at once. Refreshes have a quarter as many places of their
	// own, and at least one; with a `vault`, those by keys that it does not know have another quarter. The others wait
	// in order of arrival, at most 1000 for each place and with 64 MiB in total; calls from a network (an IPv4 /24 or
	// an IPv6 /48) whose recent logins nearly all failed wait behind the others. A call that cannot be answered in time
	// at the recent pace is turned away after half of its time. Handlers with the same token endpoint and client share the places,
	// across configuration reloads too, and should have the same number. Default: `64`.
	MaxInFlight int `json:"max_in_flight,omitempty"`

	// For how long the same call (the same credentials from the same household) gets the tokens again that
	// were issued to it, without another login: players that lose an answer ask again. At most 16384 are
	// kept, in memory only. A duration of at most `10m`, or `off`. For a refresh it is always 60s. Default: `60s`.
	Replay value.Retention `json:"replay,omitempty"`

	// For how long the same call is rejected again without asking, so that repeats do not lock the account.
	// Other credentials are tried at once. At most 65536 are kept, in memory only. A duration of at most `10m`, or `off`.
	// Default: `30s`.
	RememberRejected value.Retention `json:"remember_rejected,omitempty"`

	// How many failed logins of one account may reach the token endpoint within a time, from all callers and homes
	// together, so that no stranger can have an account locked there: such as `4 30m`, or `off`. From 1 to 100 within
	// 1m to 24h. Beyond it the account is `guarded`: the token endpoint is not asked, and the player may ask again
	// later. A quarter of it, and at least one of two, is kept for networks that have not failed with the account. A
	// failed login counts for a third of the time longer at most. It is only for user names and passwords, since
	// nothing else can be guessed. It is kept in memory only, for all handlers with the same token endpoint. Default:
	// `4 30m`.
	FailedLogins *value.FailedLogins `json:"failed_logins,omitempty"`

	// The share of accounts above which rejections are doubted, such as `50%`, or `off`. A fuse blows when at least 20
	// accounts were tried within ten minutes and more than that share was rejected, by more than chance explains where
	// the usual share is 10 percentage points lower, or when at most one of the last 20 was accepted. While it is
	// blown, accepted accounts get tokens as before, and a rejected player may ask again later (`doubted`). It recovers
	// when the share of rejected accounts is 10 percentage points below this value again. Upgrades and refreshes have
	// one each, which outlive configuration reloads, in memory only. Default: `50%`.
	Fuse value.Fuse `json:"fuse,omitempty"`

	// The HTTP transport to the token endpoint, as in `reverse_proxy`: certificate authorities, client
	// certificates, a proxy, timeouts. Only `http` is supported, without `proxy_protocol`. Differing from
	// `reverse_proxy`, idle connections are kept for 4s, which is less than the 5s after which some servers
	// close them, unless `keep_alive` has an `idle_timeout`; as many are kept as may be in flight; and the header of an
	// answer has at most 64 KiB, unless `max_response_header_size` says otherwise. A client certificate's files are read
	// again when they change.
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	// Allows an `http` token endpoint beyond loopback. Passwords then cross the network in the clear.
	InsecureHTTP bool `json:"insecure_http,omitempty"`

	// The field of the token response that becomes the player's `authToken`. Default: `access_token`.
	AuthToken string `json:"auth_token,omitempty"`

	// The field of the token response that becomes the player's `privateKey`, with which it refreshes its
	// token later. Default: `refresh_token`.
	PrivateKey string `json:"private_key,omitempty"`

	// The `privateKey` for responses without that field, literally. Without a fallback such a response is
	// an error, because the account could never refresh its token.
	PrivateKeyFallback string `json:"private_key_fallback,omitempty"`

	// What the player gets when the credentials are refused for good: `reauthorize` (a blank pair: the Sonos app asks
	// the listener to sign in again) or `not_linked` (the fault `Client.NOT_LINKED_FAILURE`). Default: `reauthorize`.
	OnRejected OnRejected `json:"on_rejected,omitempty"`

	// What failures of exchanges mean: `rejected`, `unavailable` or `misconfigured`, by the OAuth error or the
	// HTTP status of the answer. An error may be followed by a suberror of Entra's, as in
	// `invalid_grant/consent_required`. A status counts where the answer has no OAuth error with a fixed meaning, and a
	// body that is empty or a JSON object, without Retry-After. For example, `{"403": "rejected"}` is for servers that
	// answer a wrong password with a bare 403.
	OnError OnError `json:"on_error,omitempty"`

	// How each kind of credentials is exchanged. Upgrade calls with a kind that is not here get a blank pair.
	// Default: user names and passwords, by the password grant.
	Exchange []Exchange `json:"exchange,omitempty"`

	// What becomes of the calls: `upgrade`, `reauthorize` (every account gets a blank pair, and the token endpoint is
	// never asked) or `observe` (every call is forwarded; the log says what would have become of it, and the metrics
	// count it by kind of credentials; homes that `old_service` serves already are still served). Default: `upgrade`.
	Mode Mode `json:"mode,omitempty"`

	// The share of homes whose accounts are upgraded, such as `10%`; the upgrade calls of the others are forwarded. It
	// is by a hash of the `householdId`: the same homes on every instance, and a smaller share is a subset of a larger
	// one. Refreshes are answered for all homes, because an upgraded home stays upgraded when the share becomes
	// smaller. Default: `100%`.
	Households *Percent `json:"households,omitempty"`

	// Answers `getSessionId` with the fault `Client.AuthTokenExpired`, which makes the players of a Session ID service
	// upgrade. Players that do not know the new service version yet can no longer sign in. A `getSessionId` does not
	// say which home it is from, so this takes effect only while `households` is `100%`.
	ExpireSessionIDs bool `json:"expire_session_ids,omitempty"`

	// Answers `refreshAuthToken` by the refresh grant, with the `key` of the player's `loginToken` as the refresh
	// token. The same token at the same time is refreshed once, and gets the same answer again for 60s. A refresh
	// token that is dead is answered with the fault `Client.AuthTokenExpired`, or forwarded where `households` does not
	// choose the home, because it may be the old service's. It needs `private_key` to be `refresh_token`, and is not
	// answered in mode `reauthorize` without `sign_in`.
	RefreshAuthTokens bool `json:"refresh_auth_tokens,omitempty"`

	// Keeps the refresh tokens here, sealed, so that players hold a handle as their `privateKey` that never changes.
	// It is for servers that rotate refresh tokens, and for all instances of Caddy that share a storage. Needs
	// `refresh_auth_tokens`. Default: nothing is kept on disk.
	Vault *Vault `json:"vault,omitempty"`

	// Answers `getAppLink`, `getDeviceLinkCode` and the polls after them: listeners sign in at the authorization server, by
	// the device grant. It is for old services that sign nobody in by themselves. Default: these calls are forwarded.
	SignIn *SignIn `json:"sign_in,omitempty"`

	// Puts the calls of upgraded homes to the old service in its own terms, which can stay as it is. The player then
	// holds a token that stands for a record in the vault. Needs `vault`. In mode `observe` nobody is upgraded, but
	// upgraded homes are still served, since no token of theirs may reach the old service. Default: they are forwarded
	// as they come, and the old service has to know the tokens of the authorization server.
	OldService *OldService `json:"old_service,omitempty"`
}

// OldService says what the old service is told. Its values may have the placeholders of all kinds of exchanges, which are
// filled by the upgrade call, and `{token.FIELD}`, a field of the token response, which is filled by a refresh too. What
// fills them is kept in the vault, sealed.
type OldService struct {
	// The kind of credentials that the old service knows: `session_id` (sessions are begun by its getSessionId, one for
	// each account, and kept in memory), `login`, `login_token` or `anonymous`. Required.
	Credentials smapi.Kind `json:"credentials,omitempty"`

	// The user name of `session_id` and `login`. Default: `{smapi.username}`.
	Username string `json:"username,omitempty"`

	// The password of `session_id` and `login`. Default: `{smapi.password}`.
	Password string `json:"password,omitempty"`

	// The token of `login_token`, which goes with the home of the upgrade call. Default: `{smapi.token}`.
	Token string `json:"token,omitempty"`

	// The key of `login_token`. Default: `{smapi.key}`.
	Key string `json:"key,omitempty"`

	// For how long after the end of its access token a home is served on while the authorization server cannot be asked,
	// at most `720h`. Default: `24h`.
	Grace caddy.Duration `json:"grace,omitempty"`
}

// Vault is where refresh tokens are kept: in Caddy's storage.
type Vault struct {
	// The file with the keys, a JWK set, as `caddy smapi-upgrade vault keygen` makes it. The first key for A256GCM seals
	// and all of them open, the one for HS256 makes names and handles and has to stay. It is read again when it changes.
	// All instances that share a storage need the same. Required.
	KeyFile string `json:"key_file,omitempty"`

	// How long a record is kept that nobody uses, at least `24h`. It has to be longer than access tokens live.
	// Default: `400d`.
	ForgetAfter caddy.Duration `json:"forget_after,omitempty"`
}

// Exchange says how one kind of credentials is exchanged.
type Exchange struct {
	// The kind of credentials: `login` (user name and password), `session_id`, `login_token` (the token and
	// key of a DeviceLink account, the token from the `Authorization` header where the call has it there) or
	// `anonymous`. Required.
	Credentials smapi.Kind `json:"credentials,omitempty"`

	// The OAuth grant type: `password`, `urn:ietf:params:oauth:grant-type:token-exchange` (RFC 8693),
	// `urn:ietf:params:oauth:grant-type:jwt-bearer` (RFC 7523) or any other that the server has. Default:
	// `password` for `login`, token exchange for the others.
	GrantType string `json:"grant_type,omitempty"`

	// The form parameters of this exchange, by name; they take the place of those with the same name outside.
	// Values may have the placeholders `{smapi.household_id}`, `{smapi.device_id}`, `{smapi.device_provider}`
	// and those of the kind: `{smapi.username}` and `{smapi.password}` of `login`, `{smapi.session_id}` of
	// `session_id`, `{smapi.token}` and `{smapi.key}` of `login_token`. A parameter that is empty is
	// left out. Default for the password grant: `username` and `password`; every other exchange but an
	// anonymous one has to pass on the account's credentials.
	Param map[string][]string `json:"param,omitempty"`

	// What answers to this exchange mean, where that differs from `on_error` outside.
	OnError OnError `json:"on_error,omitempty"`
}

// OnError says what failures mean: `rejected`, `unavailable` or `misconfigured`, by OAuth error or by HTTP
// status.
type OnError map[string]token.Class

// OnRejected is what a player gets when its credentials were refused for good, Mode what becomes of the calls, and
// Percent a share of all homes.
type (
	OnRejected = flow.OnRejected
	Mode       = flow.Mode
	Percent    = households.Percent
)

// The values of OnRejected and Mode.
const (
	Reauthorize = flow.Reauthorize
	NotLinked   = flow.NotLinked

	ModeUpgrade     = flow.ModeUpgrade
	ModeReauthorize = flow.ModeReauthorize
	ModeObserve     = flow.ModeObserve
)

// IsExample reports whether the token endpoint or the client's secret is that of Caddyfile.example or of the documents.
func (o *Options) IsExample() bool {
	for _, address := range []string{o.TokenEndpoint, o.Issuer} {
		if u, err := url.Parse(address); err == nil && strings.HasSuffix(u.Hostname(), ".example.com") {
			return true
		}
	}
	return strings.Contains(o.ClientSecret, "testdata/client_secret")
}
