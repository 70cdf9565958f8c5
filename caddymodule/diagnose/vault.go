package diagnose

import (
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// OpenVault opens the vault of these settings in a storage. Nothing is forgotten, and the keys stay as they are.
func OpenVault(s *settings.Settings, storage certmagic.Storage) (*vault.Vault, error) {
	var files settings.Files
	keys, err := s.VaultKeys(&files)
	if err != nil {
		return nil, err
	}
	files.Close()
	return vault.New(vault.Config{
		Keys:        keys,
		Storage:     func() certmagic.Storage { return storage },
		ForgetAfter: func() time.Duration { return s.ForgetAfter },
	}), nil
}
