// Package vault keeps the tokens of homes that were upgraded, sealed, in a storage that instances share. The player holds
// a handle that never changes, and the refresh token stays here.
//
// It knows certmagic's storages and JOSE, and neither Caddy's configuration nor SOAP nor OAuth. What it needs of a storage
// is what certmagic asks for: that who reads after a write sees it, and locks that end with the process that had them.
package vault

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/failures"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/flight"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// Why there are no tokens. The errors of Refresh wrap one of them, or are what Ask returned.
var (
	// ErrUnavailable is a storage that failed or was too slow before anybody was asked. Nothing is lost.
	ErrUnavailable = store.ErrUnavailable

	// ErrMadeUp is a key in the form of a handle that none of the keys has made.
	ErrMadeUp = seal.ErrMadeUp

	// ErrLost is a handle of ours whose record is not there or is damaged.
	ErrLost = store.ErrLost

	// ErrKey is a record that was sealed by a key that is not in the key file.
	ErrKey = seal.ErrKey
)

// Config is what a Vault works with.
type Config struct {
	// Keys returns the keys in force. It is called for every use. Required.
	Keys func() *seal.Keys

	// Storage returns where everything is kept. It is called for every operation. Required.
	Storage func() certmagic.Storage

	// ForgetAfter returns how long a record is kept that nobody uses, 0 for ever. Nil is for ever.
	ForgetAfter func() time.Duration

	// FailuresCount returns how long a failed login counts at most. Nil is 48 hours, which is the most in any case.
	FailuresCount func() time.Duration

	// Observe is told of every operation at the storage: one of store.Operations and of store.Results. Nil is nobody.
	Observe func(op, result string, took time.Duration)

	// Logger is told of what no answer tells. Nil is nobody.
	Logger *zap.Logger

	// Now is the clock. Nil is time.Now.
	Now func() time.Time
}

// Vault keeps tokens. It is safe for concurrent use. New makes one.
type Vault struct {
	config   Config
	instance string // tells this process from others
	now      func() time.Time
	log      *zap.Logger
	store    *store.Store
	failures failures.Log
	unknown  chan struct{} // a place for each look-up of a key that may be made up
	opened   *openedRecords
	flights  flight.Group[step, Result]
}

// New returns a Vault. It does no I/O.
func New(c Config) *Vault {
	v := &Vault{
		config:   c,
		now:      c.Now,
		log:      c.Logger,
		instance: strings.ToLower(rand.Text()[:digestSize]),
		unknown:  make(chan struct{}, maxUnknown),
		opened:   newOpenedRecords(maxOpened),
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.log == nil {
		v.log = zap.NewNop()
	}
	v.flights.Log = v.log
	v.store = store.New(store.Config{Keys: c.Keys, Storage: c.Storage, Observe: c.Observe, Logger: v.log, Instance: v.instance, Now: v.now})
	v.failures = failures.Log{Store: v.store, Instance: v.instance}
	return v
}

// Close waits for what is still to be written until ctx ends, and tells whether all of it was.
func (v *Vault) Close(ctx context.Context) bool { return v.store.Close(ctx) }

// Pending is how many objects could not be written yet and are in memory alone.
func (v *Vault) Pending() int { return v.store.Pending() }

// Failing tells whether the storage failed after it was last written to.
func (v *Vault) Failing() bool { return v.store.Failing() }

// Ready returns ErrUnavailable if the storage cannot be written to, as far as is known. While it works that costs nothing;
// once it has failed, it is tried by writing to it.
func (v *Vault) Ready(ctx context.Context) error { return v.store.Ready(ctx) }

// Try takes a lock of the storage, writes an object under it, reads it and removes it again. An error is what the storage
// cannot do.
func (v *Vault) Try(ctx context.Context) error { return v.store.Try(ctx) }

// record reads a record. One that is not there is fs.ErrNotExist.
func (v *Vault) record(ctx context.Context, m seal.Name) (*record, error) {
	r := new(record)
	if err := v.store.Read(ctx, m.Key(), r); err != nil {
		return nil, err
	}
	switch {
	case r.Version > version:
		return nil, store.Unavailable(fmt.Errorf("a record of version %d, which a later version of this module wrote", r.Version))
	case r.Version < 1 || r.Name != m.Text():
		return nil, fmt.Errorf("%w: it is another's", ErrLost)
	}
	return r, nil
}
