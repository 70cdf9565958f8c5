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
	row := 20.0
	for ; percent > 50 && math.Pow(percent/100, row) > math.Pow(0.5, 20); row++ {
	}
	seen := map[uint64]bool{}
	tried, rejected := 0, 0
	for i := len(all) - 1; i >= 0 && tried < 512; i-- {
		if seen[all[i].account] || now.Sub(all[i].at) > 10*time.Minute {
			continue
		}
		seen[all[i].account] = true
		if tried++; all[i].rejected {
			rejected++
		}
		if float64(tried) == row && tried-rejected <= 1 {
			return true
		}
	}
	return tried >= 20 && 100*float64(rejected)/float64(tried) > percent
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

// How to choose a share: 20 percent points above that of the accounts which are truly refused, in whichever order they come.
func TestAShareOf20PointsMoreLeavesTheFuseWhole(t *testing.T) {
	for _, test := range []struct{ percent, refused float64 }{{50, 0.3}, {60, 0.4}, {90, 0.7}, {100, 1}} {
		const services, accounts = 100, 1000
		blown, doubted := 0, 0
		for seed := range uint64(services) {
			r := rand.New(rand.NewPCG(seed, 9))
			w := &weighing{Fuse: NewFuse(nil, time.Now), percent: test.percent}
			ever := false
			for range accounts {
				w.try(r.Float64() < test.refused)
				ever = ever || w.Blown()
			}
			if doubted += w.doubted; ever {
				blown++
			}
		}
		t.Logf("fuse %v%%, %v refused: blown in %d of %d services, %d of %d accounts doubted", test.percent, test.refused, blown, services, doubted, services*accounts)
		if blown > services/10 || doubted > services*accounts/1000 {
			t.Errorf("fuse %v%%, %v refused: blown in %d services, %d accounts doubted", test.percent, test.refused, blown, doubted)
		}
	}
}
