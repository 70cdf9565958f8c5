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

// durations are those of a step.
type durations struct {
	At      int64           `json:"at"` // in steps
	Counts  [buckets]uint32 `json:"counts"`
	Longest time.Duration   `json:"longest"`
}

// slotOf is the one of a step, empty where it had another one.
func (d *Durations) slotOf(at int64) *durations {
	s := &d.slots[at%recentSteps]
	if s.At != at {
		*s = durations{At: at}
	}
	return s
}

// during returns what there is of the last five minutes.
func (d *Durations) during(now time.Time) (all []durations) {
	last := max(0, now.UnixNano()) / int64(RecentStep)
	for _, s := range d.slots {
		if s.At <= last && s.At > last-recentSteps && s.At > 0 {
			all = append(all, s)
		}
	}
	return all
}

func (d *Durations) keep(now time.Time) []durations {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.during(now)
}

// resume adds what was kept, unless it is too long ago.
func (d *Durations) resume(kept []durations, now time.Time) {
	last := max(0, now.UnixNano()) / int64(RecentStep)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range kept {
		if k.At > last || k.At <= last-recentSteps || k.At < 0 {
			continue
		}
		s := d.slotOf(k.At)
		for bucket, n := range k.Counts {
			s.Counts[bucket] += n
		}
		s.Longest = max(s.Longest, k.Longest)
	}
}

// Note takes one down.
func (d *Durations) Note(took time.Duration, now time.Time) {
	bucket := int(math.Ceil(math.Log(float64(max(took, 1))/bucketBase) / math.Log(bucketStep)))
	at := max(0, now.UnixNano()) / int64(RecentStep)
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.slotOf(at)
	s.Counts[min(max(0, bucket), buckets-1)]++
	s.Longest = max(s.Longest, took)
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
	for _, s := range d.during(now) {
		for bucket, n := range s.Counts {
			counts[bucket] += uint64(n)
			t.Exchanges += uint64(n)
		}
		t.Longest = max(t.Longest, s.Longest.Seconds())
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
