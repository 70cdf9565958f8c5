package vault

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// Opened is what a record has for calls to an old service. It stays as it is. Its Fields are secrets.
type Opened struct {
	Household string
	Fields    map[string]string
	Dead      bool

	// Expires is when the access token ends, or is taken to end where the server did not say.
	Expires time.Time

	// Account is for what is made of it for the old service. It is made once, as the record stays as it is.
	Account atomic.Value

	name       seal.Name
	claim      seal.Claim // of its reference
	created    time.Time
	generation int64
	alive      time.Time // until when it needs no refresh
	loaded     time.Time
}

// Alive reports whether the access token has life left.
func (o *Opened) Alive(now time.Time) bool { return now.Before(o.alive) }

// Reference is the player's authToken.
func (o *Opened) Reference() string { return o.name.Reference() }

// Handle is the player's privateKey.
func (o *Opened) Handle() string { return o.name.Handle() }

const (
	// maxOpened is how many records are kept open in memory, those used last.
	maxOpened = 1 << 17

	// maxOpenedAge is for how long one is good without a look into the storage, where another instance may have changed it.
	maxOpenedAge = 10 * time.Minute
)

// openedRecords are records in memory.
type openedRecords struct {
	mu    sync.Mutex
	cache *simplelru.LRU[seal.NameBytes, *Opened]
}

func newOpenedRecords(size int) *openedRecords {
	cache, err := simplelru.NewLRU[seal.NameBytes, *Opened](size, nil)
	if err != nil {
		panic(err) // the size is positive
	}
	return &openedRecords{cache: cache}
}

func (c *openedRecords) get(name seal.NameBytes) *Opened {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, _ := c.cache.Get(name)
	return o
}

// put takes a record in. An older one never takes the place of a newer one.
func (c *openedRecords) put(m *seal.Name, r *record, now time.Time) *Opened {
	ends, margin := r.ends()
	o := &Opened{
		Household: r.Household, Fields: r.Fields, Dead: r.Dead,
		Expires: ends, name: *m, claim: m.Claim(), created: r.Created, generation: r.Generation, alive: ends.Add(-margin), loaded: now,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, ok := c.cache.Peek(m.Fixed()); ok && o.olderThan(before) && now.Sub(before.loaded) < maxOpenedAge {
		return before
	}
	c.cache.Add(m.Fixed(), o)
	return o
}

// olderThan tells which of two is an older state of the record, also where that was forgotten and made anew in between.
func (o *Opened) olderThan(other *Opened) bool {
	if !o.created.Equal(other.created) {
		return o.created.Before(other.created)
	}
	return o.generation < other.generation
}

func (c *openedRecords) remove(m *seal.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache.Remove(m.Fixed())
}

// InMemory is how many records are open in memory.
func (v *Vault) InMemory() int {
	v.opened.mu.Lock()
	defer v.opened.mu.Unlock()
	return v.opened.cache.Len()
}

// Open returns the record that a reference or a handle stands for: from memory, unless it is fresh that is asked for, or it is dead or
// has not been looked at for ten minutes. What is neither is ErrMadeUp.
func (v *Vault) Open(ctx context.Context, token string, fresh bool) (*Opened, error) {
	m, err := v.nameOf(token)
	if err != nil {
		return nil, err
	}
	if o := v.opened.get(m.Fixed()); !fresh && v.good(o) {
		return o, nil
	}
	return v.load(ctx, m)
}

// Known is Open for who does not want to wait: nil is what Open has to look for. Of a reference to a record in memory it compares the
// tag, and need not make it.
func (v *Vault) Known(reference string) *Opened {
	claim, ok := seal.ClaimOf(reference)
	if !ok {
		return nil
	}
	if o := v.opened.get(claim.Name()); v.good(o) && claim.Equal(&o.claim) && v.config.Keys().Made(&o.name) {
		return o
	}
	return nil
}

// good reports whether a record in memory does without a look into the storage.
func (v *Vault) good(o *Opened) bool {
	return o != nil && !o.Dead && v.now().Sub(o.loaded) < maxOpenedAge
}

func (v *Vault) nameOf(token string) (seal.Name, error) {
	keys := v.config.Keys()
	m, ok, err := keys.OpenReference(token)
	if !ok && err == nil {
		m, ok, err = keys.OpenHandle(token)
	}
	if !ok && err == nil {
		err = ErrMadeUp
	}
	return m, err
}

// load reads a record into memory.
func (v *Vault) load(ctx context.Context, m seal.Name) (*Opened, error) {
	for {
		keys := v.config.Keys()
		r, err := v.record(ctx, m)
		if errors.Is(err, ErrKey) && v.store.NewKeys(ctx, keys) {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = v.store.Missing(ctx, m.Namer())
		}
		if err != nil {
			if errors.Is(err, ErrLost) {
				v.opened.remove(&m)
			}
			return nil, err
		}
		return v.opened.put(&m, r, v.now()), nil
	}
}

// Bury marks a record as dead, and returns it. If somebody has changed it since it was opened, that is returned instead. New tokens
// bring it to life again.
func (v *Vault) Bury(ctx context.Context, o *Opened) (*Opened, error) {
	ctx, cancel := afterAll(ctx)
	defer cancel()
	m := o.name
	unlock, err := v.lock(ctx, &m, o.generation)
	if err != nil {
		return nil, err
	}
	if err = v.store.AwaitSettled(ctx, m.Key()); err != nil {
		unlock()
		return nil, err
	}
	r, err := v.record(ctx, m)
	if err != nil || r.Generation != o.generation || r.Dead {
		unlock()
		if err != nil {
			return nil, err
		}
		return v.opened.put(&m, r, v.now()), nil
	}
	r.Generation, r.Dead = r.Generation+1, true
	sealed, err := v.config.Keys().SealObject(r)
	if err != nil {
		unlock()
		return nil, store.Unavailable(err)
	}
	o = v.opened.put(&m, r, v.now())
	_, err = v.store.Settle(unlock, store.Required, store.Object{Key: m.Key(), Sealed: sealed})
	return o, err
}
