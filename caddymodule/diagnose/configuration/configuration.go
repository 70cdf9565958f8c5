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

// Provision sets a configuration up as `caddy validate` does, without its logs and its admin endpoint.
func Provision(config []byte) (caddy.Context, error) {
	cfg := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(config, cfg); err != nil {
		return caddy.Context{}, err
	}
	cfg.Admin, cfg.Logging = nil, new(caddy.Logging)
	if err := json.Unmarshal([]byte(`{"logs":{"default":{"writer":{"output":"discard"}}}}`), cfg.Logging); err != nil {
		return caddy.Context{}, err
	}
	return caddy.ProvisionContext(cfg)
}
