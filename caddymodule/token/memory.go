package token

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// memory keeps results for a while, a bounded number of them. Its own lru.Cache is used rather than the
// expirable one of the same library, whose goroutine cannot be ended.
type memory struct {
	cache *lru.Cache[digest, *memo]
}

type memo struct {
	result  Result
	expires time.Time
	forget  *time.Timer
}

func newMemory(size int) *memory {
	cache, err := lru.NewWithEvict(size, func(_ digest, m *memo) { m.forget.Stop() })
	if err != nil {
		panic(err) // the size is not positive
	}
	return &memory{cache}
}

func (m *memory) put(d digest, r Result, keep time.Duration) {
	if keep <= 0 {
		return
	}
	kept := &memo{result: r, expires: time.Now().Add(keep)}
	kept.forget = time.AfterFunc(keep, func() {
		if now, ok := m.cache.Peek(d); ok && now == kept {
			m.cache.Remove(d)
		}
	})
	m.cache.Add(d, kept)
}

// get returns a result that is kept, which is not to be changed, or nil.
func (m *memory) get(d digest) *Result {
	kept, ok := m.cache.Get(d)
	if !ok || time.Now().After(kept.expires) {
		return nil
	}
	return &kept.result
}
