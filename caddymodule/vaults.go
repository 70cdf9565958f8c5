package caddymodule

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/census"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// vaultsPool has the vaults in use by their key files. They outlive configurations.
var vaultsPool = caddy.NewUsagePool()

// sharedVault is what handlers with the same key file have in common. It works with what the one has that joined last.
type sharedVault struct {
	*vault.Vault
	file    string
	records atomic.Pointer[census.Totals] // as forgetting has counted them, nil until then
	stop    context.CancelFunc

	mu      sync.Mutex
	members []*vaultMember
	current atomic.Pointer[vaultMember] // the last one, which stays when there is none any more
}

// vaultMember is what a handler brings.
type vaultMember struct {
	*sharedVault
	keys        func() *seal.Keys
	storage     certmagic.Storage
	forgetAfter time.Duration
	counts      time.Duration // how long failed logins count
	logger      *zap.Logger
}

// joinVault shares the vault of these settings with others that have the same key file, until leave.
func joinVault(s *settings.Settings, keys func() *seal.Keys, storage certmagic.Storage, logger *zap.Logger) (*vaultMember, error) {
	file, err := filepath.Abs(s.VaultKeyFile)
	if err != nil {
		return nil, err
	}
	m := &vaultMember{keys: keys, storage: storage, forgetAfter: s.ForgetAfter, logger: logger,
		counts: 2 * max(s.FailedLogins.Within, s.RememberRejected)} // what flow forgets by
	shared, _, err := vaultsPool.LoadOrNew(file, func() (caddy.Destructor, error) { return newSharedVault(file, m), nil })
	if err != nil {
		return nil, err
	}
	m.sharedVault = shared.(*sharedVault)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members = append(m.members, m)
	m.current.Store(m)
	return m, nil
}

func (m *vaultMember) leave() {
	m.mu.Lock()
	m.members = slices.DeleteFunc(m.members, func(other *vaultMember) bool { return other == m })
	if n := len(m.members); n > 0 {
		m.current.Store(m.members[n-1])
	}
	m.mu.Unlock()
	_, _ = vaultsPool.Delete(m.file) // nothing of it can fail
}

func newSharedVault(file string, first *vaultMember) *sharedVault {
	v := &sharedVault{file: file}
	v.current.Store(first)
	v.Vault = vault.New(vault.Config{
		Keys:          func() *seal.Keys { return v.current.Load().keys() },
		Storage:       func() certmagic.Storage { return v.current.Load().storage },
		ForgetAfter:   func() time.Duration { return v.current.Load().forgetAfter },
		FailuresCount: v.failuresCount,
		Observe:       observeStorage,
		Logger:        first.logger,
		Now:           clock,
	})
	ctx, cancel := context.WithCancel(context.Background())
	v.stop = cancel
	go v.Run(ctx, v.forgotten)
	return v
}

// failuresCount is how long failed logins count at the handler where they count longest.
func (v *sharedVault) failuresCount() (longest time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.members {
		longest = max(longest, m.counts)
	}
	return longest
}

// closeWait is how long the end of the last configuration waits for what is still to be written.
const closeWait = 5 * time.Second

// Destruct ends the forgetting, and waits a little for what is still to be written.
func (v *sharedVault) Destruct() error {
	v.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	if !v.Close(ctx) {
		v.current.Load().logger.Error("tokens could not be written to the vault before the end",
			zap.Int("records", v.Pending()), zap.String("fix", "check Caddy's storage: that it is there, writable, and not full"))
	}
	return nil
}

// forgotten notes an hour's share of forgetting.
func (v *sharedVault) forgotten(f vault.Forgotten, err error) {
	logger := v.current.Load().logger
	if err != nil {
		logger.Warn("cannot look for records of the vault that nobody uses", zap.NamedError("cause", err))
		return
	}
	v.records.Store(&f.Totals)
	if f.Removed > 0 {
		logger.Info("forgot records of the vault that nobody used", zap.Int("records", f.Removed))
	}
}

// vaults are those in use.
func vaults() (all []*sharedVault) {
	vaultsPool.Range(func(_, value any) bool {
		all = append(all, value.(*sharedVault))
		return true
	})
	slices.SortFunc(all, func(a, b *sharedVault) int { return strings.Compare(a.file, b.file) })
	return all
}
