package settings

import (
	"errors"
	"slices"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// SignIn has listeners sign in at the authorization server, by the device grant (RFC 8628).
type SignIn struct {
	// The URL of the device authorization endpoint. Default: that in the metadata of `issuer`.
	DeviceEndpoint string `json:"device_endpoint,omitempty"`

	// The id of the client by which listeners sign in, where it is another one. Default: that of the client above.
	ClientID string `json:"client_id,omitempty"`

	// The secret of that client, as above: use a placeholder. Default: that of the client above.
	ClientSecret string `json:"client_secret,omitempty"`

	// How that client authenticates, as above; `private_key_jwt` only where it is so above, too. Default: as above.
	ClientAuth token.ClientAuth `json:"client_auth,omitempty"`

	// The scopes to ask for. Default: those above.
	Scope []string `json:"scope,omitempty"`

	// Extra form parameters of both requests, by name, with the placeholder `{smapi.household_id}`. Default: those above.
	Param map[string][]string `json:"param,omitempty"`

	// The id of a text in the service's localization resources that the app shows for the link. Required.
	AppURLStringID string `json:"app_url_string_id,omitempty"`

	// Has the app show the code, so that the listener can compare it with the one on the page: it is how a link that
	// somebody else has begun is noticed. It is shown in any case where the address does not hold the code. Default: `on`.
	ShowLinkCode *bool `json:"show_link_code,omitempty"`

	// The field of the token response, or the claim of its `id_token`, that names the user for ever, such as `sub`. The
	// player gets a keyed hash of it as its `userIdHashCode`. Needs `vault`, whose key for names stays the same for ever.
	// Default: none.
	UserID string `json:"user_id,omitempty"`
}

var (
	errNoDevice  = errors.New("is required, or issuer in the place of token_endpoint")
	errNoSeal    = errors.New("needs a client_secret or vault, by whose key it seals what polls send back: all instances need the same")
	errUserID    = errors.New("needs vault, whose key keeps the hashes of users the same for ever")
	errSignInKey = errors.New("private_key_jwt needs the same client_auth outside of sign_in, and its client_key")
)

// signIn resolves how listeners sign in. Its client's secret is read by whoever uses it.
func (o *Options) signIn(r *resolver, s *Settings, outside, header []exchange.Param) {
	if o.SignIn == nil {
		return
	}
	const field = "sign_in"
	in := resolver{repl: r.repl, files: r.files}
	given, p := o.SignIn, &s.Policy
	in.require("app_url_string_id", given.AppURLStringID)
	if given.DeviceEndpoint == "" && o.Issuer == "" {
		in.fail("device_endpoint", errNoDevice)
	}
	s.DeviceURL = in.url("device_endpoint", given.DeviceEndpoint, o.InsecureHTTP, token.ParseURL)
	s.SignInClient = s.Client
	if given.ClientID != "" {
		s.SignInClient.ID = in.text("client_id", given.ClientID)
	}
	s.SignInClient.Auth = orDefault(given.ClientAuth, s.Client.Auth)
	o.signInClient(&in, s)

	scopes := given.Scope
	if len(scopes) == 0 {
		scopes = o.Scope
	}
	var start []exchange.Param
	if len(scopes) > 0 {
		start = append(start, scopeParam(in.scope(scopes)))
	}
	if given.Param != nil {
		outside = in.params("param", given.Param, checkParam, identifiers, false)
	}
	fields := []string{p.AuthToken, p.PrivateKey}
	if given.UserID != "" {
		if o.Vault == nil {
			in.fail("user_id", errUserID)
		}
		fields = append(fields, given.UserID, flow.IDToken)
	}
	p.SignIn = &flow.SignIn{
		AppURLStringID: in.text("app_url_string_id", given.AppURLStringID),
		ShowLinkCode:   given.ShowLinkCode == nil || *given.ShowLinkCode,
		UserID:         in.text("user_id", given.UserID),
	}
	p.SignIn.Start, p.SignIn.Poll = exchange.NewSignIn(start, outside, header, fields...)
	if in.err != nil {
		r.fail(field, in.err)
	}
}

func (o *Options) signInClient(in *resolver, s *Settings) {
	auth := s.SignInClient.Auth
	oneOf(in, "client_auth", auth, token.Basic, token.BasicRaw, token.Post, token.PrivateKeyJWT, token.TLS, token.None)
	transport := o.givenTransport()
	switch {
	case o.SignIn.ClientSecret != "" && !auth.NeedsSecret():
		in.fail("client_secret", errors.New("is not used with client_auth "+string(auth)))
	case auth.NeedsSecret() && o.SignIn.ClientSecret == "" && o.ClientSecret == "" && s.Policy.Mode != ModeObserve:
		in.fail("client_secret", errMissing)
	case auth == token.PrivateKeyJWT && s.Client.Auth != auth:
		in.fail("client_auth", errSignInKey)
	case auth == token.TLS && (!transport.hasClientCertificate() || s.Plain()):
		in.fail("client_auth", errCertificate)
	case s.Policy.Mode != ModeObserve && o.SignIn.ClientSecret == "" && o.ClientSecret == "" && o.Vault == nil:
		in.fail("client_auth", errNoSeal)
	}
}

// ConnectSignIn returns the configuration of the endpoints by which listeners sign in, given that of the token endpoint, and
// has what polls need sealed: by the keys of the vault or, where these are nil, of the client's secret. The settings have to
// have a SignIn.
func (o *Options) ConnectSignIn(s *Settings, files *Files, c token.Config, keys func() *seal.Keys) (token.Config, error) {
	client := s.SignInClient
	client.Secret, client.Key = c.Client.Secret, c.Client.Key
	if o.SignIn.ClientSecret != "" {
		var err error
		if client.Secret, err = files.text("sign_in", o.SignIn.ClientSecret); err != nil {
			return c, FieldError{"sign_in", FieldError{"client_secret", err}}
		}
	}
	c.Client, c.DeviceURL = client, s.DeviceURL
	if s.Policy.SignIn.UserID != "" {
		c.Fields = append(slices.Clone(c.Fields), s.Policy.SignIn.UserID, flow.IDToken)
	}
	var bySecret *secret.Seals
	if client.Secret != nil {
		bySecret = secret.NewSeals(client.Secret)
	}
	switch {
	case keys != nil:
		s.Policy.SignIn.Seals = flow.VaultSeals{Keys: keys, Before: bySecret}
	case bySecret != nil:
		s.Policy.SignIn.Seals = bySecret
	}
	return c, nil
}
