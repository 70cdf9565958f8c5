// Package vaults opens the vaults of a configuration, for the commands that work on them.
package vaults

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// Vault is one of a configuration, in the storage of that.
type Vault struct {
	*vault.Vault
	KeyFile string
}

// Of opens the vaults of a configuration, each once. None is an error. Nothing is forgotten and no server is started.
func Of(config []byte) (all []Vault, err error) {
	configured, err := configuration.Find(config)
	if err != nil {
		return nil, err
	}
	ctx, done, err := configuration.Provision(config)
	if err != nil {
		return nil, err
	}
	defer done()
	seen := map[string]bool{}
	for _, c := range configured {
		o, err := c.Options()
		if err != nil {
			return nil, err
		}
		s, err := o.Resolve(caddy.NewReplacer(), nil)
		if err != nil {
			return nil, fmt.Errorf("the smapi_upgrade at %s: %w", c.At, err)
		}
		path, err := filepath.Abs(s.VaultKeyFile)
		if err != nil {
			return nil, err
		}
		if s.VaultKeyFile == "" || seen[path] {
			continue
		}
		seen[path] = true
		v, err := diagnose.OpenVault(&s, ctx.Storage())
		if err != nil {
			return nil, err
		}
		all = append(all, Vault{v, path})
	}
	if len(all) == 0 {
		return nil, errors.New("no smapi_upgrade of the configuration has a vault")
	}
	return all, nil
}
