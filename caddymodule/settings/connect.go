package settings

import (
	"context"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// Files are the values of a configuration that come from files and follow them, until Close.
type Files struct {
	// Logger is told when a value changes or cannot be read any more. Nil logs nothing.
	Logger *zap.Logger

	// Interval is the time between two looks at the files. 0 is secret.DefaultInterval.
	Interval time.Duration

	all []follower
}

type follower interface {
	Status(now time.Time) secret.Status
	Close()
}

// Status tells how the values are.
func (f *Files) Status(now time.Time) []secret.Status {
	all := make([]secret.Status, 0, len(f.all))
	for _, value := range f.all {
		all = append(all, value.Status(now))
	}
	return all
}

// Close ends the following. The values stay as they are.
func (f *Files) Close() {
	for _, value := range f.all {
		value.Close()
	}
}

func (f *Files) config(field string) secret.Config {
	return secret.Config{Field: field, Logger: f.Logger, Interval: f.Interval}
}

// text has a text follow the files in it.
func (f *Files) text(field, text string) (func() string, error) {
	value, err := secret.Text(f.config(field), text, caddy.NewReplacer().GetString)
	if err != nil {
		return nil, err
	}
	if !value.Constant() {
		f.all = append(f.all, value)
	}
	return value.Get, nil
}

// Connect returns the configuration of the token endpoint that settings of these options have. It reads the client's
// secrets, which follow their files, and does no network I/O.
func (o *Options) Connect(ctx caddy.Context, s *Settings, files *Files) (c token.Config, err error) {
	client, err := o.client(s, files)
	if err != nil {
		return c, err
	}
	transport, err := o.loadTransport(ctx, s, files)
	if err != nil {
		return c, FieldError{"transport", err}
	}
	return token.Config{
		URL:         s.URL,
		Issuer:      s.Issuer,
		Insecure:    o.InsecureHTTP,
		Client:      client,
		Fields:      append([]string{s.Policy.AuthToken, s.Policy.PrivateKey}, tokenFields(&s.Policy)...),
		FormCharset: o.FormCharset,
		Transport:   transport,
		// Not the request's context: reverse_proxy, and so forward_auth, leaves there where to dial, and
		// the transport would send the password to that address.
		Context: context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()),
	}, nil
}

// VaultKeys reads the keys of the vault, which follow their file. It returns nil where there is no vault.
func (s *Settings) VaultKeys(files *Files) (func() *vault.Keys, error) {
	if s.VaultKeyFile == "" {
		return nil, nil
	}
	keys, err := secret.File(files.config("vault"), s.VaultKeyFile, vault.ParseKeys)
	if err != nil {
		return nil, FieldError{"vault", err}
	}
	files.all = append(files.all, keys)
	return keys.Get, nil
}

// client is who asks for tokens, with what authenticates it.
func (o *Options) client(s *Settings, files *Files) (c token.Client, err error) {
	c = s.Client
	if o.ClientSecret != "" {
		if c.Secret, err = files.text("client_secret", o.ClientSecret); err != nil {
			return c, FieldError{"client_secret", err}
		}
		if c.Secret() == o.ClientSecret && files.Logger != nil {
			files.Logger.Warn("client_secret is no placeholder: the admin API, the autosaved configuration and Caddy's debug log show it")
		}
	}
	if o.ClientKey != "" {
		key, err := secret.File(files.config("client_key"), s.clientKey, func(content []byte) (*token.Key, error) {
			return token.ParseKey(content, s.keyID)
		})
		if err != nil {
			return c, FieldError{"client_key", err}
		}
		c.Key = key.Get
		files.all = append(files.all, key)
	}
	return c, nil
}
