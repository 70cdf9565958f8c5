package pacing

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A node that reads a whole wave at first, or an endpoint that is cold, is slow for seconds. Who is turned away for that asks
// again after 5 s, which keeps the node as busy as it was.
func TestABeginningThatIsSlowTurnsFewAway(t *testing.T) {
	const accounts, places, timeout, again = 5000, 8, 15 * time.Second, 5 * time.Second
	const each, atFirst, slow = 40 * time.Millisecond, 400 * time.Millisecond, 8 * time.Second
	synctest.Test(t, func(t *testing.T) {
		p, begun := New(Watch{}), time.Now()
		var turnedAway atomic.Int64
		var wave sync.WaitGroup
		for i := range accounts {
			wave.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				var account Account
				binary.LittleEndian.PutUint32(account[:], uint32(i))
				for {
					abandoned := make(chan struct{})
					trial := &Trial{
						Account: account, Network: Network(i + 1), Deadline: time.Now().Add(timeout), Places: places, Fair: time.Second,
						Context: t.Context(), Abandoned: abandoned, Leave: sync.OnceFunc(func() { close(abandoned) }),
					}
					admission, _ := p.Pass(trial, func() Report {
						takes := each
						if time.Since(begun) < slow {
							takes = atFirst
						}
						time.Sleep(takes)
						return Report{Accepted: true}
					})
					if admission == In {
						return
					}
					turnedAway.Add(1)
					time.Sleep(again)
				}
			})
		}
		wave.Wait()
		took, ideal := time.Since(begun), slow+accounts/places*each
		t.Logf("all are done after %v, with %d turned away", took, turnedAway.Load())
		if took > ideal+again {
			t.Errorf("it took %v, where %v are possible", took, ideal)
		}
		if turnedAway.Load() > accounts {
			t.Errorf("%d were turned away", turnedAway.Load())
		}
	})
}

func TestWhoComesFirstHasPatienceAndWhoGuessesHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 100 * time.Millisecond
		g := newGate(nil)
		wave := &Trial{Deadline: time.Now().Add(time.Hour), Places: 1, Fair: time.Second}
		for range 4 * minPace {
			g.enter(wave, 0)
		}
		for range 2 * minPace {
			time.Sleep(each)
			g.leave(each, new(Report))
		}
		hurried := &Trial{Deadline: time.Now().Add(10 * each), Places: 1, Fair: time.Second}
		if a, _ := g.enter(hurried, 1); a != Late {
			t.Errorf("who guesses is %v", a)
		}
		if a, _ := g.enter(hurried, 0); a != queued {
			t.Errorf("who comes first is %v", a)
		}
	})
}
