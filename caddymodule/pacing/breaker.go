package pacing

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// When the breaker opens, and for how long. A 5xx can be one account's, for good, so that one account is
// never enough.
const (
	breakerWindow   = 10 * time.Second
	breakerBuckets  = 10
	breakerCalls    = 20
	breakerAccounts = 10
	breakerShare    = 0.5
	breakerOpen     = 2 * time.Second
	breakerProbes   = 3
	// breakerOthers is for how long, when it is half open, the first are those whose last trials did not all fail: else
	// one at whose accounts the endpoint always fails could have it open again each time.
	breakerOthers = time.Second
)

// breaker turns calls away while the token endpoint gives no definitive answers.
type breaker struct {
	*gobreaker.CircuitBreaker[Report]
	failing recent
	tried   atomic.Pointer[time.Time] // when it was last half open
}

var (
	errUnavailable = errors.New("unavailable")
	errUncounted   = errors.New("not sent")
)

// newBreaker returns a closed breaker, which calls opened when it opens, and changed at every change.
func newBreaker(opened func(), changed func(state string)) *breaker {
	b := new(breaker)
	b.CircuitBreaker = gobreaker.NewCircuitBreaker[Report](gobreaker.Settings{
		MaxRequests:  breakerProbes,
		Interval:     breakerWindow,
		BucketPeriod: breakerWindow / breakerBuckets,
		Timeout:      breakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.Requests >= breakerCalls && float64(c.TotalFailures) >= breakerShare*float64(c.Requests) &&
				b.failing.distinct(time.Now().Add(-breakerWindow)) >= breakerAccounts
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errUncounted) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				opened()
			}
			if to == gobreaker.StateHalfOpen {
				now := time.Now()
				b.tried.Store(&now)
			}
			if changed != nil {
				go changed(to.String()) // not under the breaker's lock
			}
		},
	})
	return b
}

// pass sends unless the breaker is open, and learns from what comes of it.
func (b *breaker) pass(account Account, send func() Report) (sent bool) {
	_, err := b.Execute(func() (Report, error) {
		r := send()
		switch {
		case r.Unsent, r.Failed && r.alone:
			return r, errUncounted
		case r.Failed:
			b.failing.add(account, time.Now())
			return r, errUnavailable
		}
		return r, nil
	})
	return !errors.Is(err, gobreaker.ErrOpenState) && !errors.Is(err, gobreaker.ErrTooManyRequests)
}

func (b *breaker) open() bool { return b.State() == gobreaker.StateOpen }

// halfOpen reports whether it has just become half open.
func (b *breaker) halfOpen(now time.Time) bool {
	return b.State() == gobreaker.StateHalfOpen && now.Sub(*b.tried.Load()) < breakerOthers
}
