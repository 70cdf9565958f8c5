package replay

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Memory is a Store in memory that keeps a bounded number of values, the ones put last. It is safe for concurrent use.
//
// One timer forgets what is over: a timer for each value would cost more than all else that is done to keep it. A value is not told
// when its time is over, and is forgotten within a second of that, or when what was put before it and is kept for longer is.
type Memory[V any] struct {
	mu     sync.Mutex
	values *simplelru.LRU[Digest, kept[V]] // in the order in which they were put, since none is moved by being looked at
	timer  *time.Timer                     // calls forget, nil until the first value
	waits  bool                            // for the timer
	now    func() time.Time
}

type kept[V any] struct {
	value   V
	expires time.Time
}

// NewMemory returns a Memory for so many values, which have to be at least 1. Now is the clock.
func NewMemory[V any](size int, now func() time.Time) *Memory[V] {
	values, err := simplelru.NewLRU[Digest, kept[V]](size, nil)
	if err != nil {
		panic(err) // the size is not positive
	}
	return &Memory[V]{values: values, now: now}
}

// Put keeps a value for a while. For a duration of 0 or less it is not kept.
func (m *Memory[V]) Put(d Digest, value V, keep time.Duration) {
	if keep <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values.Add(d, kept[V]{value, m.now().Add(keep)})
	switch {
	case m.waits:
		return
	case m.timer == nil:
		m.timer = time.AfterFunc(keep, m.forget)
	default:
		m.timer.Reset(keep)
	}
	m.waits = true
}

// forget forgets what is over, up to the first value that is not.
func (m *Memory[V]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for {
		_, oldest, ok := m.values.GetOldest()
		if !ok {
			m.waits = false
			return
		}
		if left := oldest.expires.Sub(now); left > 0 {
			m.timer.Reset(max(left, time.Second))
			return
		}
		m.values.RemoveOldest()
	}
}

// Forget has a value forgotten.
func (m *Memory[V]) Forget(d Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values.Remove(d)
}

// Get returns a value that is kept.
func (m *Memory[V]) Get(d Digest) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.values.Peek(d)
	if !ok || !m.now().Before(k.expires) {
		return value, false
	}
	return k.value, true
}
