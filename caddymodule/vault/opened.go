package vault

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Opened is what a record has for calls to an old service. It stays as it is. Its Fields are secrets.
type Opened struct {
	Household string
	Fields    map[string]string
	Dead      bool

	// Expires is when the access token ends, or is taken to end where the server did not say.
	Expires time.Time

	name       name
	generation int64
	alive      time.Time // until when it needs no refresh
	loaded     time.Time
}

// Alive reports whether the access token has life left.
func (o *Opened) Alive(now time.Time) bool { return now.Before(o.alive) }

// Reference is the player's authToken.
func (o *Opened) Reference() string { return o.name.reference() }

// Handle is the player's privateKey.
func (o *Opened) Handle() string { return o.name.handle() }

const (
	// maxOpened is how many records are kept open in memory, those used last.
	maxOpened = 1 << 17

	// maxOpenedAge is for how long one is good without a look into the storage, where another instance may have changed it.
	maxOpenedAge = 10 * time.Minute
)

// openedRecords are records in memory.
type openedRecords struct {
	mu    sync.Mutex
	cache *simplelru.LRU[nameBytes, *Opened]
}

type nameBytes [2 * partSize]byte

func (m *name) fixed() (b nameBytes) {
	copy(b[:], m.home[:])
	copy(b[partSize:], m.account[:])
	return b
}

func newOpenedRecords(size int) *openedRecords {
	cache, err := simplelru.NewLRU[nameBytes, *Opened](size, nil)
	if err != nil {
		panic(err) // the size is positive
	}
	return &openedRecords{cache: cache}
}

func (c *openedRecords) get(m *name) *Opened {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, _ := c.cache.Get(m.fixed())
	return o
}

// put takes a record in. An older one never takes the place of a newer one.
func (c *openedRecords) put(m *name, r *record, now time.Time) *Opened {
	ends, margin := r.ends()
	o := &Opened{
		Household: r.Household, Fields: r.Fields, Dead: r.Dead,
		Expires: ends, name: *m, generation: r.Generation, alive: ends.Add(-margin), loaded: now,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, ok := c.cache.Peek(m.fixed()); ok && before.generation > o.generation && now.Sub(before.loaded) < maxOpenedAge {
		return before
	}
	c.cache.Add(m.fixed(), o)
	return o
}

func (c *openedRecords) remove(m *name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache.Remove(m.fixed())
}

// InMemory is how many records are open in memory.
func (v *Vault) InMemory() int {
	v.opened.mu.Lock()
	defer v.opened.mu.Unlock()
	return v.opened.cache.Len()
}

// Bears reports whether a text has a reference or a handle in it, or something that looks like one.
func Bears(text []byte) bool {
	const enough = 16 // of the characters behind the prefix
	for {
		at := bytes.Index(text, []byte(handlePrefix))
		if at < 0 {
			return false
		}
		text = text[at+len(handlePrefix):]
		rest := text
		if len(rest) > 0 && rest[0] == '.' {
			rest = rest[1:]
		}
		n := 0
		for n < len(rest) && n < enough && isBase64URL(rest[n]) {
			n++
		}
		if n == enough {
			return true
		}
	}
}

func isBase64URL(b byte) bool {
	return b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '-' || b == '_'
}

// Open returns the record that a reference or a handle stands for: from memory, unless it is fresh that is asked for, or it is dead or
// has not been looked at for ten minutes. What is neither is ErrMadeUp.
func (v *Vault) Open(ctx context.Context, token string, fresh bool) (*Opened, error) {
	m, err := v.nameOf(token)
	if err != nil {
		return nil, err
	}
	if o := v.opened.get(&m); !fresh && v.good(o) {
		return o, nil
	}
	return v.load(ctx, m)
}

// Known is Open for who does not want to wait: nil is a record that Open has to look for.
func (v *Vault) Known(token string) *Opened {
	m, err := v.nameOf(token)
	if err != nil {
		return nil
	}
	if o := v.opened.get(&m); v.good(o) {
		return o
	}
	return nil
}

// good reports whether a record in memory does without a look into the storage.
func (v *Vault) good(o *Opened) bool {
	return o != nil && !o.Dead && v.now().Sub(o.loaded) < maxOpenedAge
}

func (v *Vault) nameOf(token string) (name, error) {
	keys := v.config.Keys()
	m, ok, err := keys.openReference(token)
	if !ok && err == nil {
		m, ok, err = keys.openHandle(token)
	}
	if !ok && err == nil {
		err = ErrMadeUp
	}
	return m, err
}

// load reads a record into memory.
func (v *Vault) load(ctx context.Context, m name) (*Opened, error) {
	for {
		keys := v.config.Keys()
		r, err := v.record(ctx, m)
		if errors.Is(err, ErrKey) && v.newKeys(ctx, keys) {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = v.missing(ctx, m.namer)
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
	if err = v.awaitSettled(ctx, &m); err != nil {
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
	sealed, err := v.config.Keys().seal(r)
	if err != nil {
		unlock()
		return nil, unavailable(err)
	}
	o = v.opened.put(&m, r, v.now())
	_, err = v.settle(unlock, true, object{m.key(), sealed})
	return o, err
}
