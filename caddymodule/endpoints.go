package caddymodule

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/counts"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/history"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/legacy"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// pool has the sharedEndpoints in use. They outlive configurations.
var pool = caddy.NewUsagePool()

// budgetsPool has the failed logins by token endpoint and for how long they are counted.
var budgetsPool = caddy.NewUsagePool()

// histories are those of the token endpoints that were used last: they outlive configurations without them, too.
var histories, _ = lru.New[string, *history.History](maxHistories) // an error is a size that is not positive

const maxHistories = 64

func historyOf(key string) *history.History {
	h, there := histories.Get(key)
	if !there {
		h = history.New(time.Now())
		histories.Add(key, h)
	}
	return h
}

// clock is what the fuses, the budgets and what is remembered go by.
var clock = time.Now

func budgetsKey(s *settings.Settings) string { return s.Where() + " " + s.FailedLogins.Within.String() }

type sharedBudgets struct{ *pacing.Budgets }

// Destruct closes nothing.
func (sharedBudgets) Destruct() error { return nil }

// sharedEndpoint is what handlers with the same token endpoint and client have in common: what is known of the
// endpoint, and what became of the calls.
type sharedEndpoint struct {
	*exchange.State
	where, client string
	logger        atomic.Pointer[zap.Logger] // of the handler that joined last
	history       *history.History
	sessions      *legacy.Sessions
	seen          counts.Seen

	mu       sync.Mutex
	files    map[*settings.Files]*settings.Settings // of each handler
	metadata [2][2]token.Metadata                   // of the issuer, by whether it is for client certificates and may be http
}

// Destruct closes nothing: exchanges in flight finish on their own.
func (*sharedEndpoint) Destruct() error { return nil }

// join shares the endpoint of these settings with others that have the same, until leave. Logger is who speaks for it now.
func join(s *settings.Settings, files *settings.Files, logger *zap.Logger) (*sharedEndpoint, *pacing.Budgets, error) {
	shared, _, err := pool.LoadOrNew(s.Key(), func() (caddy.Destructor, error) {
		return newSharedEndpoint(s), nil
	})
	if err != nil {
		return nil, nil, err
	}
	// An account is the same whichever client asks for it.
	budgets, _, err := budgetsPool.LoadOrNew(budgetsKey(s), func() (caddy.Destructor, error) {
		return sharedBudgets{pacing.NewBudgets(clock)}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	e := shared.(*sharedEndpoint)
	e.logger.Store(logger)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.files[files] = s
	return e, budgets.(sharedBudgets).Budgets, nil
}

func (e *sharedEndpoint) leave(s *settings.Settings, files *settings.Files) error {
	e.mu.Lock()
	delete(e.files, files)
	e.mu.Unlock()
	_, _ = budgetsPool.Delete(budgetsKey(s)) // nothing of it can fail
	_, err := pool.Delete(s.Key())
	return err
}

// metadataFor is what is known of the issuer for this configuration.
func (e *sharedEndpoint) metadataFor(c *token.Config) *token.Metadata {
	mtls, insecure := 0, 0
	if c.Client.Auth == token.TLS {
		mtls = 1
	}
	if c.Insecure {
		insecure = 1
	}
	return &e.metadata[mtls][insecure]
}

func newSharedEndpoint(s *settings.Settings) *sharedEndpoint {
	e := &sharedEndpoint{where: s.Shown(), client: s.Client.ID, history: historyOf(s.Key()), files: make(map[*settings.Files]*settings.Settings)}
	e.sessions = legacy.NewSessions(legacy.MaxSessions, clock)
	endpoint := zap.String("token_endpoint", e.where)
	e.State = exchange.NewState(pacing.Watch{
		Breaker: func(state string) {
			e.logger.Load().Warn("circuit breaker of the token endpoint changed",
				endpoint, zap.String("breaker", state))
		},
		Hold: func(until time.Time) {
			e.logger.Load().Warn("holding back, as the token endpoint has asked", endpoint, zap.Time("until", until))
		},
	}, func(fuse pacing.FuseStatus) {
		tries := fuse.FuseTries
		if fuse.Blown {
			tries = fuse.Blew
		}
		accounts := []zap.Field{endpoint, zap.Int("tried", tries.Tried), zap.Int("rejected", tries.Rejected),
			zap.Float64("fuse", fuse.Percent), zap.String("oauth_error", tries.Reason)}
		if !fuse.Blown {
			e.logger.Load().Info("fuse is whole again: rejections are believed", accounts...)
			return
		}
		e.logger.Load().Error("fuse blown: most accounts are rejected, and rejections are doubted", append(accounts,
			zap.String("fix", "see what has changed at the authorization server: its host name, the client's secret, consent, or a proxy in front"))...)
	}, clock)
	return e
}

// pacing is how all that is asked there is paced now. Of keys that a vault does not know only what is in flight is told,
// since anybody can make them up.
func (e *sharedEndpoint) pacing() pacing.Status {
	s := e.Logins.Status()
	s.InFlight += e.Unknown.Status().InFlight
	for _, p := range [...]*pacing.Pacer{e.Refreshes, e.Links, e.Polls} {
		r := p.Status()
		s.InFlight += r.InFlight
		s.Waiting += r.Waiting
		if s.OldestWaiting.IsZero() || !r.OldestWaiting.IsZero() && r.OldestWaiting.Before(s.OldestWaiting) {
			s.OldestWaiting = r.OldestWaiting
		}
		if s.Breaker == "closed" || r.Breaker == "open" {
			s.Breaker = r.Breaker
		}
		if r.Hold.After(s.Hold) {
			s.Hold = r.Hold
		}
	}
	return s
}

// countExchanging adds the handlers that exchange each kind of credentials here.
func (e *sharedEndpoint) countExchanging(handlers map[smapi.Kind]int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.files {
		if s.Policy.Mode != flow.ModeUpgrade {
			continue
		}
		for kind := range s.Policy.Rules {
			handlers[kind]++
		}
	}
}

// exchanges reports whether some handler exchanges credentials of a kind here.
func (e *sharedEndpoint) exchanges(kind smapi.Kind) bool {
	handlers := map[smapi.Kind]int{}
	e.countExchanging(handlers)
	return handlers[kind] > 0
}

// vaultFiles are the key files of the vaults that its handlers have.
func (e *sharedEndpoint) vaultFiles() (files []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.files {
		if file, err := filepath.Abs(s.VaultKeyFile); err == nil && s.VaultKeyFile != "" && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}

// hasOldService reports whether some handler puts calls to an old service.
func (e *sharedEndpoint) hasOldService() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.files {
		if s.Policy.OldService != nil {
			return true
		}
	}
	return false
}

// endpoints are those in use.
func endpoints() (all []*sharedEndpoint) {
	pool.Range(func(_, value any) bool {
		all = append(all, value.(*sharedEndpoint))
		return true
	})
	slices.SortFunc(all, func(a, b *sharedEndpoint) int { return strings.Compare(a.where+" "+a.client, b.where+" "+b.client) })
	return all
}
