package replay

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Memory is a Store in memory that keeps a bounded number of values, the ones used last. Its own lru.Cache is used
// rather than the expirable one of the same library, whose goroutine cannot be ended.
type Memory[V any] struct {
	cache *lru.Cache[Digest, *kept[V]]
	now   func() time.Time
}

type kept[V any] struct {
	value   V
	expires time.Time
	forget  *time.Timer
}

// NewMemory returns a Memory for so many values, which have to be at least 1. Now is the clock.
func NewMemory[V any](size int, now func() time.Time) *Memory[V] {
	cache, err := lru.NewWithEvict(size, func(_ Digest, k *kept[V]) { k.forget.Stop() })
	if err != nil {
		panic(err) // the size is not positive
	}
	return &Memory[V]{cache, now}
}

// Put keeps a value for a while. For a duration of 0 or less it is not kept.
func (m *Memory[V]) Put(d Digest, value V, keep time.Duration) {
	if keep <= 0 {
		return
	}
	k := &kept[V]{value: value, expires: m.now().Add(keep)}
	k.forget = time.AfterFunc(keep, func() {
		if now, ok := m.cache.Peek(d); ok && now == k {
			m.cache.Remove(d)
		}
	})
	m.cache.Add(d, k)
}

// Forget has a value forgotten.
func (m *Memory[V]) Forget(d Digest) { m.cache.Remove(d) }

// Get returns a value that is kept.
func (m *Memory[V]) Get(d Digest) (value V, ok bool) {
	k, ok := m.cache.Get(d)
	if !ok || m.now().After(k.expires) {
		return value, false
	}
	return k.value, true
}
