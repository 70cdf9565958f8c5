package diagnose

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// Vault is one of a configuration, in the storage of that.
type Vault struct {
	*vault.Vault
	KeyFile string
}

// Vaults opens the vaults of a configuration, each once. None is an error. Nothing is forgotten and no server is started.
func Vaults(config []byte) (all []Vault, err error) {
	configured, err := Find(config)
	if err != nil {
		return nil, err
	}
	ctx, err := provisionAll(config)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range configured {
		o, err := c.options()
		if err != nil {
			return nil, err
		}
		s, err := o.Resolve(caddy.NewReplacer(), nil)
		if err != nil {
			return nil, fmt.Errorf("the smapi_upgrade at %s: %w", c.at, err)
		}
		path, err := filepath.Abs(s.VaultKeyFile)
		if err != nil {
			return nil, err
		}
		if s.VaultKeyFile == "" || seen[path] {
			continue
		}
		seen[path] = true
		v, err := openVault(&s, ctx.Storage())
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

func openVault(s *settings.Settings, storage certmagic.Storage) (*vault.Vault, error) {
	var files settings.Files
	keys, err := s.VaultKeys(&files)
	if err != nil {
		return nil, err
	}
	files.Close() // the keys stay as they are
	return vault.New(vault.Config{
		Keys:        keys,
		Storage:     func() certmagic.Storage { return storage },
		ForgetAfter: func() time.Duration { return s.ForgetAfter },
	}), nil
}
