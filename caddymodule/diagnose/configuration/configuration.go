// Package configuration reads a configuration and sets it up, for the commands. No server is started.
package configuration

import (
	"encoding/json"
	"errors"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// Load reads a configuration as `caddy validate` does, without what that logs meanwhile.
func Load(file, adapter string) ([]byte, error) {
	caddy.BufferedLog() // and never flushed
	config, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	if len(config) == 0 {
		return nil, errors.New("there is no configuration: no --config, and no Caddyfile in this directory")
	}
	return caddy.RemoveMetaFields(config), nil
}

// Provision sets a configuration up as `caddy validate` does, without its logs and its admin endpoint, until done is called. It
// is nil with an error.
func Provision(config []byte) (ctx caddy.Context, done func(), err error) {
	cfg := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(config, cfg); err != nil {
		return caddy.Context{}, nil, err
	}
	cfg.Admin, cfg.Logging = nil, new(caddy.Logging)
	if err := json.Unmarshal([]byte(`{"logs":{"default":{"writer":{"output":"discard"}}}}`), cfg.Logging); err != nil {
		return caddy.Context{}, nil, err
	}
	apps := cfg.AppsRaw
	cfg.AppsRaw = nil // Caddy keeps the end of its context to itself: the apps come into one that we can end
	if ctx, err = caddy.ProvisionContext(cfg); err != nil {
		return caddy.Context{}, nil, err
	}
	cfg.AppsRaw = apps
	ctx, done = caddy.NewContext(ctx)
	for name := range apps {
		if _, err := ctx.App(name); err != nil {
			done()
			return caddy.Context{}, nil, err
		}
	}
	return ctx, done, nil
}
