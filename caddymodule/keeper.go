package caddymodule

import (
	"context"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/history"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// keepersPool has who keeps the histories of token endpoints, by token endpoint, client and vault. They outlive configurations.
var keepersPool = caddy.NewUsagePool()

type keeper struct{ *history.Keeper }

// lastLook is how long the end of the last configuration waits for the history to be written.
var lastLook = 2 * time.Second

// Destruct has the history written a last time.
func (k keeper) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastLook)
	defer cancel()
	k.Close(ctx)
	return nil
}

func (h *Handler) keeperKey() string { return h.settings.Key() + " " + h.vault.file }

// keep has the history of the token endpoint kept in the vault, until leaveKeeper.
func (h *Handler) keep() {
	e, v, key := h.shared, h.vault.sharedVault, h.settings.Key()
	_, _, _ = keepersPool.LoadOrNew(h.keeperKey(), func() (caddy.Destructor, error) { // nothing of it can fail
		return keeper{history.NewKeeper(history.KeeperConfig{
			History:  e.history,
			Folder:   func() store.Folder { return v.Histories(key) },
			Instance: instance,
			Logger:   func() *zap.Logger { return v.current.Load().logger },
			Now:      clock,
		})}, nil
	})
}

func (h *Handler) leaveKeeper() { _, _ = keepersPool.Delete(h.keeperKey()) } // nothing of it can fail

func instance() (string, error) {
	id, err := caddy.InstanceID()
	return id.String(), err
}
