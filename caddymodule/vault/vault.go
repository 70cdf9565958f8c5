// Package vault keeps the tokens of homes that were upgraded, sealed, in a storage that instances share. The player holds
// a handle that never changes, and the refresh token stays here.
//
// It knows certmagic's storages and JOSE, and neither Caddy's configuration nor SOAP nor OAuth. What it needs of a storage
// is what certmagic asks for: that who reads after a write sees it, and locks that end with the process that had them.
package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// Why there are no tokens. The errors of Refresh wrap one of them, or are what Ask returned.
var (
	// ErrUnavailable is a storage that failed or was too slow before anybody was asked. Nothing is lost.
	ErrUnavailable = errors.New("the vault's storage failed")

	// ErrMadeUp is a key in the form of a handle that none of the keys has made.
	ErrMadeUp = errors.New("the handle is none of ours")

	// ErrLost is a handle of ours whose record is not there or is damaged.
	ErrLost = errors.New("the record is gone or damaged")

	// ErrKey is a record that was sealed by a key that is not in the key file.
	ErrKey = errors.New("the record was sealed by a key that is not in the key file")
)

// Config is what a Vault works with.
type Config struct {
	// Keys returns the keys in force. It is called for every use. Required.
	Keys func() *Keys

	// Storage returns where everything is kept. It is called for every operation. Required.
	Storage func() certmagic.Storage

	// ForgetAfter returns how long a record is kept that nobody uses, 0 for ever. Nil is for ever.
	ForgetAfter func() time.Duration

	// FailuresCount returns how long a failed login counts at most. Nil is 48 hours, which is the most in any case.
	FailuresCount func() time.Duration

	// Observe is told of every operation at the storage: one of Operations and a Result. Nil is nobody.
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
	storage  *storage
	probes   singleflight.Group
	unknown  chan struct{} // a place for each look-up of a key that may be made up
	opened   *openedRecords

	mu      sync.Mutex
	flights map[flightKey]*flight
	pending map[string]*unwritten // by where
	marked  map[string]bool       // by folder
	settled sync.WaitGroup
}

// maxPending is how many records are kept in memory that could not be written. Beyond it a pair goes out as without a
// vault.
const maxPending = 4096

// New returns a Vault. It does no I/O.
func New(c Config) *Vault {
	v := &Vault{
		config:   c,
		now:      c.Now,
		log:      c.Logger,
		instance: strings.ToLower(rand.Text()[:digestSize]),
		storage:  &storage{at: c.Storage, places: make(chan struct{}, maxOperations), observe: c.Observe},
		unknown:  make(chan struct{}, maxUnknown),
		flights:  make(map[flightKey]*flight),
		pending:  make(map[string]*unwritten),
		marked:   make(map[string]bool),
		opened:   newOpenedRecords(maxOpened),
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.log == nil {
		v.log = zap.NewNop()
	}
	return v
}

// Close waits for what is still to be written until ctx ends, and tells whether all of it was.
func (v *Vault) Close(ctx context.Context) bool {
	done := make(chan struct{})
	go func() { v.settled.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// Pending is how many objects could not be written yet and are in memory alone.
func (v *Vault) Pending() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.pending)
}

// Failing tells whether the storage failed after it was last written to.
func (v *Vault) Failing() bool { return v.storage.failing.Load() }

// Ready returns ErrUnavailable if the storage cannot be written to, as far as is known. While it works that costs nothing;
// once it has failed, it is tried by writing to it.
func (v *Vault) Ready(ctx context.Context) error {
	if !v.Failing() {
		return nil
	}
	tried := v.probes.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), maxOperation)
		defer cancel()
		keys := v.config.Keys()
		sealed, err := keys.seal(mark{Created: v.now().UTC()})
		if err != nil {
			return nil, err
		}
		return nil, v.storage.store(ctx, keys.namers[0].dir+"/probe"+extension, sealed)
	})
	select {
	case result := <-tried:
		return unavailable(result.Err)
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

// Try takes a lock of the storage, writes an object under it, reads it and removes it again. An error is what the storage
// cannot do.
func (v *Vault) Try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*maxOperation)
	defer cancel()
	n := &v.config.Keys().namers[0]
	unlock, err := v.storage.lock(ctx, "smapi_upgrade-try-"+v.instance)
	if err != nil {
		return fmt.Errorf("it gives no lock: %w", err)
	}
	defer unlock()
	key, written, read := n.dir+"/try-"+v.instance+extension, mark{v.now().UTC()}, mark{}
	sealed, err := v.config.Keys().seal(written)
	if err != nil {
		return err
	}
	if err := v.storage.store(ctx, key, sealed); err != nil {
		return fmt.Errorf("it cannot be written to: %w", err)
	}
	if err := v.read(ctx, key, &read); err != nil {
		return fmt.Errorf("what was written cannot be read: %w", err)
	}
	if !read.Created.Equal(written.Created) {
		return errors.New("what was written is not what is read")
	}
	if err := v.storage.remove(ctx, key); err != nil {
		return fmt.Errorf("nothing can be removed: %w", err)
	}
	return nil
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// read opens an object. Nothing there is fs.ErrNotExist, and what is not as it was written is ErrLost.
func (v *Vault) read(ctx context.Context, key string, content any) error {
	v.mu.Lock()
	waiting := v.pending[key]
	v.mu.Unlock()
	var sealed []byte
	if waiting != nil {
		sealed = waiting.sealed
	} else {
		var err error
		if sealed, err = v.storage.load(ctx, key); errors.Is(err, fs.ErrNotExist) {
			return err
		} else if err != nil {
			return unavailable(err)
		}
	}
	_, err := v.config.Keys().open(sealed, content)
	if err != nil && !errors.Is(err, ErrKey) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

// keyWait is how long a key that is not in the key file is waited for: instances read a new file within a second or two
// of each other.
const keyWait = 3 * time.Second

// newKeys waits for other keys than these, and tells whether there are.
func (v *Vault) newKeys(ctx context.Context, keys *Keys) bool {
	ctx, cancel := context.WithTimeout(ctx, keyWait)
	defer cancel()
	for v.config.Keys() == keys {
		select {
		case <-time.After(keyWait / 30):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// record reads a record. One that is not there is fs.ErrNotExist.
func (v *Vault) record(ctx context.Context, m name) (*record, error) {
	r := new(record)
	if err := v.read(ctx, m.key(), r); err != nil {
		return nil, err
	}
	switch {
	case r.Version > version:
		return nil, unavailable(fmt.Errorf("a record of version %d, which a later version of this module wrote", r.Version))
	case r.Version < 1 || r.Name != m.text():
		return nil, fmt.Errorf("%w: it is another's", ErrLost)
	}
	return r, nil
}

// mark is what a vault has that is not empty. It tells a record that is gone from a storage that is.
type mark struct {
	Created time.Time `json:"created_at"`
}

// markAge is how old a mark has to be before a record that is missing is taken for lost. A volume that was lost, and is
// filled anew, signs out nobody for that long.
const markAge = 24 * time.Hour

func markKey(n *namer) string { return n.dir + "/vault" + extension }

// missing says what a record means that is not there although its handle is good.
func (v *Vault) missing(ctx context.Context, n *namer) error {
	var m mark
	err := v.read(ctx, markKey(n), &m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unavailable(errors.New("the storage is empty, or another one"))
	case errors.Is(err, ErrUnavailable):
		return err
	case err == nil && v.now().Sub(m.Created) < markAge:
		return unavailable(errors.New("the record is not there, and the vault is not a day old: the storage may be another one"))
	}
	return fmt.Errorf("%w: it is not there", ErrLost)
}

// leaveMark has the storage marked as one that something was written to.
func (v *Vault) leaveMark(ctx context.Context, n *namer) error {
	v.mu.Lock()
	marked := v.marked[n.dir]
	v.mu.Unlock()
	if marked {
		return nil
	}
	err := v.read(ctx, markKey(n), new(mark))
	switch {
	case errors.Is(err, ErrKey): // another instance has newer keys
		err = nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrLost):
		var sealed []byte
		if sealed, err = v.config.Keys().seal(mark{v.now().UTC()}); err == nil {
			err = v.storage.store(ctx, markKey(n), sealed)
		}
	}
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	if err == nil {
		v.mu.Lock()
		v.marked[n.dir] = true
		v.mu.Unlock()
	}
	return unavailable(err)
}
