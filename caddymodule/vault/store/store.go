// Package store keeps sealed objects in a storage that instances share: with bounds on what that may cost, and in memory
// for as long as the storage fails. It knows certmagic's storages, and not what the objects are.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// Why there is no object.
var (
	// ErrUnavailable is a storage that failed or was too slow before anybody was asked. Nothing is lost.
	ErrUnavailable = errors.New("the vault's storage failed")

	// ErrLost is a handle of ours whose record is not there or is damaged.
	ErrLost = errors.New("the record is gone or damaged")
)

// Config is what a Store works with.
type Config struct {
	// Keys returns the keys in force. It is called for every use. Required.
	Keys func() *seal.Keys

	// Storage returns where everything is kept. It is called for every operation. Required.
	Storage func() certmagic.Storage

	// Observe is told of every operation at the storage: one of Operations and a Result. Nil is nobody.
	Observe func(op, result string, took time.Duration)

	// Logger is told of a storage that panics. Required.
	Logger *zap.Logger

	// Instance tells this process from others. Required.
	Instance string

	// Now is the clock. Required.
	Now func() time.Time
}

// Store keeps objects. It is safe for concurrent use. New makes one.
type Store struct {
	*storage
	keys     func() *seal.Keys
	instance string
	now      func() time.Time
	probes   singleflight.Group

	mu      sync.Mutex
	pending map[string]*unwritten // by where
	marked  map[string]bool       // by folder
	settled sync.WaitGroup

	works    chan struct{} // see working
	settling chan struct{} // a place for each write of what has waited for the storage
}

// maxPending is how many records are kept in memory that could not be written. Beyond it a pair goes out as without a
// vault.
const maxPending = 4096

// New returns a Store. It does no I/O.
func New(c Config) *Store {
	return &Store{
		storage:  &storage{at: c.Storage, places: make(chan struct{}, MaxOperations), observe: c.Observe, log: c.Logger},
		keys:     c.Keys,
		instance: c.Instance,
		now:      c.Now,
		pending:  make(map[string]*unwritten),
		marked:   make(map[string]bool),
		settling: make(chan struct{}, maxSettling),
	}
}

// Close waits for what is still to be written until ctx ends, and tells whether all of it was.
func (s *Store) Close(ctx context.Context) bool {
	done := make(chan struct{})
	go func() { s.settled.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// Pending is how many objects could not be written yet and are in memory alone.
func (s *Store) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

// Failing tells whether the storage failed after it was last written to.
func (s *Store) Failing() bool { return s.storage.failing.Load() }

// Ready returns ErrUnavailable if the storage cannot be written to, as far as is known. While it works that costs nothing;
// once it has failed, it is tried by writing to it.
func (s *Store) Ready(ctx context.Context) error {
	if !s.Failing() {
		return nil
	}
	tried := s.probes.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), maxOperation)
		defer cancel()
		keys := s.keys()
		sealed, err := keys.SealObject(mark{Created: s.now().UTC()})
		if err != nil {
			return nil, err
		}
		return nil, s.Store(ctx, keys.Namers()[0].Dir()+"/probe"+seal.Extension, sealed)
	})
	select {
	case result := <-tried:
		return Unavailable(result.Err)
	case <-ctx.Done():
		return Unavailable(ctx.Err())
	}
}

// maxApart is how far the clocks of the storage and of an instance may be apart. certmagic's file storage takes a lock for that of a
// dead process by the clock of who waits for it, after ten seconds.
const maxApart = 5 * time.Second

// Try takes a lock of the storage, writes an object under it, reads it and removes it again. An error is what the storage
// cannot do.
func (s *Store) Try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*maxOperation)
	defer cancel()
	n := &s.keys().Namers()[0]
	unlock, err := s.Lock(ctx, "smapi_upgrade-try-"+s.instance)
	if err != nil {
		return fmt.Errorf("it gives no lock: %w", err)
	}
	defer unlock()
	begun := s.now()
	key, written, read := n.Dir()+"/try-"+s.instance+seal.Extension, mark{begun.UTC()}, mark{}
	sealed, err := s.keys().SealObject(written)
	if err != nil {
		return err
	}
	if err := s.Store(ctx, key, sealed); err != nil {
		return fmt.Errorf("it cannot be written to: %w", err)
	}
	ended := s.now()
	info, err := s.Stat(ctx, key)
	if err == nil {
		err = s.Read(ctx, key, &read)
	}
	removed := s.Remove(ctx, key)
	switch apart := max(info.Modified.Sub(ended), begun.Sub(info.Modified)); {
	case err != nil:
		return fmt.Errorf("what was written cannot be read: %w", err)
	case !read.Created.Equal(written.Created):
		return errors.New("what was written is not what is read")
	case removed != nil:
		return fmt.Errorf("nothing can be removed: %w", removed)
	case !info.Modified.IsZero() && apart > maxApart:
		return fmt.Errorf("its clock and that of this machine are %v apart: locks need them to be the same", apart.Round(time.Second))
	}
	return nil
}

// Unavailable wraps an error of the storage into ErrUnavailable. Nil stays nil.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Read opens an object. Nothing there is fs.ErrNotExist, and what is not as it was written is ErrLost.
func (s *Store) Read(ctx context.Context, key string, content any) error {
	s.mu.Lock()
	waiting := s.pending[key]
	s.mu.Unlock()
	var sealed []byte
	if waiting != nil {
		sealed = waiting.sealed
	} else {
		var err error
		if sealed, err = s.Load(ctx, key); errors.Is(err, fs.ErrNotExist) {
			return err
		} else if err != nil {
			return Unavailable(err)
		}
	}
	_, err := s.keys().OpenObject(sealed, content)
	if err != nil && !errors.Is(err, seal.ErrKey) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

// keyWait is how long a key that is not in the key file is waited for: instances read a new file within a second or two
// of each other.
const keyWait = 3 * time.Second

// NewKeys waits for other keys than these, and tells whether there are.
func (s *Store) NewKeys(ctx context.Context, keys *seal.Keys) bool {
	ctx, cancel := context.WithTimeout(ctx, keyWait)
	defer cancel()
	for s.keys() == keys {
		select {
		case <-time.After(keyWait / 30):
		case <-ctx.Done():
			return false
		}
	}
	return true
}
