package pacing

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// weighed is all that was ever weighed, to count it anew each time.
type weighed []try

// over tells by the rule, as it is documented, whether a whole fuse has to blow.
func (all weighed) over(percent float64, now time.Time) bool {
	var last []bool // whether they were rejected, the latest first
	seen := map[uint64]bool{}
	for i := len(all) - 1; i >= 0 && len(last) < 512; i-- {
		if t := all[i]; !seen[t.account] && now.Sub(t.at) <= 10*time.Minute {
			seen[t.account] = true
			last = append(last, t.rejected)
		}
	}
	if len(last) < 20 {
		return false
	}
	rejected := func(some []bool) (n float64) {
		for _, is := range some {
			if is {
				n++
			}
		}
		return n
	}
	tried, usual := float64(len(last)), max(0, percent-10)/100
	if n := rejected(last); n == tried ||
		100*n/tried > percent && n > tried*usual+3.5*math.Sqrt(tried*usual*(1-usual)) {
		return true
	}
	before := min(percent/100, (rejected(last[20:])+2*usual)/(tried-20+2))
	row := 20
	for ; math.Pow(before, float64(row)) > math.Pow(0.5, 20); row++ {
	}
	return len(last) >= row && rejected(last[:20]) >= 19 && rejected(last[:row]) >= float64(row-1)
}

// Whatever stays under the share does nothing, in any order; the first account beyond it blows the fuse.
func TestTheFuseBlowsBeyondItsShareAndNotBefore(t *testing.T) {
	blew := 0
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		now := time.Unix(1e9, 0)
		f := NewFuse(nil, func() time.Time { return now })
		percent, refused := 5+90*r.Float64(), r.Float64()
		pause := time.Duration(r.IntN(40)) * time.Second
		var all weighed
		for i := range 600 {
			who := i
			if i > 0 && r.IntN(5) == 0 {
				who = r.IntN(i) // it comes again
			}
			a := name(strconv.Itoa(who))
			if r.IntN(100) == 0 {
				refused = r.Float64()
			}
			rejected := r.Float64() < refused
			over := append(all, try{account: a.key(), at: now, rejected: rejected}).over(percent, now)
			if over && i < 500 { // stay under it
				rejected = false
				over = append(all, try{account: a.key(), at: now}).over(percent, now)
			}
			all = append(all, try{account: a.key(), at: now, rejected: rejected})
			doubted := f.Weigh(percent, a, rejected, "")
			if f.Blown() != over || doubted != (over && rejected) {
				t.Fatalf("seed %d, account %d, fuse %.0f%%: blown is %v, doubted %v, want %v", seed, i, percent, f.Blown(), doubted, over)
			}
			if over {
				blew++
				break
			}
			now = now.Add(time.Duration(r.Float64() * float64(pause)))
		}
	}
	t.Logf("%d of 100 fuses blew in the end", blew)
	if blew < 30 {
		t.Error("too few to mean anything")
	}
}

// How to choose a share: 10 percent points above that of the accounts which are truly refused, in whichever order they come.
func TestAShareOf10PointsMoreLeavesTheFuseWhole(t *testing.T) {
	const services, accounts = 40, 1000
	for _, test := range []struct{ percent, refused float64 }{{20, 0.1}, {30, 0.2}, {50, 0.4}, {60, 0.5}, {80, 0.7}, {100, 1}} {
		for pause, most := range map[time.Duration]int{0: 2, 2 * time.Second: 2, 10 * time.Second: 8} { // the slower, the fewer to go by
			blown, doubted := 0, 0
			for seed := range uint64(services) {
				r := rand.New(rand.NewPCG(seed, 9))
				now := time.Unix(1e9, 0)
				w := &weighing{Fuse: NewFuse(nil, func() time.Time { return now }), percent: test.percent}
				ever := false
				for range accounts {
					w.try(r.Float64() < test.refused)
					ever = ever || w.Blown()
					now = now.Add(pause)
				}
				if doubted += w.doubted; ever {
					blown++
				}
			}
			t.Logf("fuse %v%%, %v refused, one in %v: blown in %d of %d services, %d of %d accounts doubted",
				test.percent, test.refused, pause, blown, services, doubted, services*accounts)
			if blown > most || doubted > services*accounts/1000 {
				t.Errorf("fuse %v%%, %v refused, one in %v: blown in %d services, %d accounts doubted", test.percent, test.refused, pause, blown, doubted)
			}
		}
	}
}

// A mixture comes in bursts, too: of each 30 accounts 12 in a row are refused.
func TestBurstsOfRefusedAccountsLeaveTheFuseWhole(t *testing.T) {
	for _, first := range []int{0, 9, 18} {
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 50}
		for i := range 2000 {
			if w.try(i%30 >= first && i%30 < first+12); w.Blown() {
				t.Fatalf("refused are those from %d on: it blows at account %d", first, i)
			}
		}
	}
}

func TestAFuseThatIsOffNeverBlows(t *testing.T) {
	for _, percent := range []float64{0, 100} {
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: percent}
		for i := range 1000 {
			if w.try(i >= 100); w.Blown() || w.doubted > 0 {
				t.Fatalf("fuse %v%%: it blows at account %d", percent, i)
			}
		}
	}
}

// Whatever the share, a server that refuses everybody signs out 20 homes at most, however many it has accepted before.
func TestAHighShareSignsNoMoreOut(t *testing.T) {
	for _, percent := range []float64{1, 10, 30, 50, 70, 80, 90, 95, 99} {
		for _, accepted := range []int{0, 2, 5, 10, 25, 100, 1000} {
			w := &weighing{Fuse: NewFuse(nil, time.Now), percent: percent}
			for range accepted {
				w.try(false)
			}
			for range 1000 {
				w.try(true)
			}
			if w.told > 20 || !w.Blown() {
				t.Errorf("fuse %v%%, %d accepted before: %d homes were told a rejection", percent, accepted, w.told)
			}
		}
	}
}
