package history

import (
	"math"
	"sync"
	"time"
)

// Durations are how long exchanges took over the last five minutes. Its memory is the same whatever comes. The zero value has
// none, and it is safe for concurrent use.
type Durations struct {
	mu    sync.Mutex
	slots [recentSteps]durations
}

// The buckets of durations: each ends a seventh higher than the one before, the first at a millisecond, the last beyond 20 s.
const (
	buckets    = 80
	bucketBase = float64(time.Millisecond)
	bucketStep = 1.14
)

type durations struct {
	at      int64 // in steps
	counts  [buckets]uint32
	longest time.Duration
}

// Note takes one down.
func (d *Durations) Note(took time.Duration, now time.Time) {
	bucket := int(math.Ceil(math.Log(float64(max(took, 1))/bucketBase) / math.Log(bucketStep)))
	at := max(0, now.UnixNano()) / int64(RecentStep)
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.slots[at%recentSteps]
	if s.at != at {
		*s = durations{at: at}
	}
	s.counts[min(max(0, bucket), buckets-1)]++
	s.longest = max(s.longest, took)
}

// Times are those of some exchanges, in seconds. Median and Most (95 of 100 took no longer) are right within a seventh.
type Times struct {
	Exchanges uint64  `json:"exchanges"`
	Median    float64 `json:"median_seconds"`
	Most      float64 `json:"p95_seconds"`
	Longest   float64 `json:"longest_seconds"`
}

// Lately returns those of the last five minutes, nil where there were none.
func (d *Durations) Lately(now time.Time) *Times {
	d.mu.Lock()
	defer d.mu.Unlock()
	var counts [buckets]uint64
	var t Times
	last := max(0, now.UnixNano()) / int64(RecentStep)
	for i := range d.slots {
		s := &d.slots[i]
		if s.at > last || s.at <= last-recentSteps {
			continue
		}
		for bucket, n := range s.counts {
			counts[bucket] += uint64(n)
			t.Exchanges += uint64(n)
		}
		t.Longest = max(t.Longest, s.longest.Seconds())
	}
	if t.Exchanges == 0 {
		return nil
	}
	within := func(share float64) float64 {
		left := share * float64(t.Exchanges)
		for bucket, n := range counts {
			if left -= float64(n); left <= 0 {
				ends := bucketBase * math.Pow(bucketStep, float64(bucket))
				return min(ends/float64(time.Second), t.Longest)
			}
		}
		return t.Longest
	}
	t.Median, t.Most = within(.5), within(.95)
	return &t
}
