package pacing

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// weigh tries accounts that were not tried before, and counts what is told.
type weighing struct {
	*Fuse
	percent       float64
	n             int
	told, doubted int
}

func (w *weighing) try(rejected bool) {
	w.n++
	switch doubted := w.Weigh(w.percent, name(strconv.Itoa(w.n)), rejected, "invalid_grant"); {
	case doubted:
		w.doubted++
	case rejected:
		w.told++
	}
}

func TestAServerThatBeginsToRefuseEverybodyIsDoubtedAfter20(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 50}
		for range 1000 {
			w.try(false)
		}
		for range 1000 {
			w.try(true)
		}
		if b := w.Status().Blew; b.Tried != 20 || b.Rejected < 19 || b.Reason != "invalid_grant" {
			t.Errorf("it has blown upon %+v, which are not the last few", b)
		}
		if w.told > 20 || w.told+w.doubted != 1000 || !w.Blown() {
			t.Errorf("%d homes were told a rejection, %d are in doubt", w.told, w.doubted)
		}
		for range 2 * fuseAccounts {
			w.try(false)
		}
		if w.Blown() {
			t.Error("it does not recover")
		}
	})
}

func TestTheSameAccountAgainAndAgainBlowsNothing(t *testing.T) {
	f := NewFuse(nil, time.Now)
	for range 1000 {
		if f.Weigh(50, name("ella"), true, "") {
			t.Fatal("doubted")
		}
	}
}

func TestASmallServiceIsBelieved(t *testing.T) {
	w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 50}
	for range fuseAccounts - 1 {
		w.try(true)
	}
	if w.doubted > 0 {
		t.Errorf("%d of %d are in doubt", w.doubted, w.n)
	}
	synctest.Test(t, func(t *testing.T) { // whose accounts come one by one
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 50}
		for range 100 {
			w.try(true)
			time.Sleep(time.Minute)
		}
		if w.doubted > 0 {
			t.Errorf("%d of %d are in doubt", w.doubted, w.n)
		}
	})
}

// A service of which many accounts are truly refused migrates, with a share that fits.
func TestAMixtureBelowTheShareIsBelieved(t *testing.T) {
	for _, test := range []struct{ percent, refused float64 }{{50, 0.3}, {50, 0.4}, {80, 0.7}, {90, 0.8}, {100, 1}} {
		r := rand.New(rand.NewPCG(1, uint64(test.percent)))
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: test.percent}
		for range 3000 {
			w.try(r.Float64() < test.refused)
		}
		if share := float64(w.doubted) / 3000; share > 0.02 {
			t.Errorf("fuse %v%%, %v refused: %d are in doubt", test.percent, test.refused, w.doubted)
		}
	}
}

// One account that is accepted is no proof that others are: ten have to be tried.
func TestTheFuseRecoversByTenAccounts(t *testing.T) {
	w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 50}
	for range 20 {
		w.try(true)
	}
	for i := range 10 {
		if !w.Blown() {
			t.Fatalf("it is whole after %d", i)
		}
		for range 5 { // again and again is once
			w.Weigh(50, name("ella"), false, "")
		}
		if i > 0 {
			w.try(false)
		}
	}
	if w.Blown() {
		t.Error("it is blown yet")
	}
}

// Few accounts are tried at night, and what is too old to blow a fuse is not too old for it to recover.
func TestAServiceOfFewAccountsRecoversToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 50}
		for range fuseAccounts {
			w.try(true)
		}
		for range fuseRecovers {
			if !w.Blown() {
				t.Fatal("it is whole before there is anything to go by")
			}
			time.Sleep(12 * time.Minute)
			w.try(false)
		}
		if w.Blown() {
			t.Errorf("it is blown yet: %+v", w.Status())
		}
	})
}

// Time by itself is no reason to believe a server again.
func TestNoFuseRecoversByTimeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 50}
		for range 25 {
			w.try(true)
		}
		told := w.told
		for range 200 {
			time.Sleep(time.Hour)
			w.try(true)
		}
		if !w.Blown() || w.told > told {
			t.Errorf("blown %v, %d more homes were told a rejection", w.Blown(), w.told-told)
		}
	})
}

// No order of answers has a rejection told while the fuse is blown.
func TestNothingIsRejectedWhileTheFuseIsBlown(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := &weighing{Fuse: NewFuse(nil, time.Now), percent: 10 + 80*r.Float64()}
		for range 500 {
			blown, told := w.Blown(), w.told
			w.try(r.Float64() < float64(seed%11)/10)
			if blown && w.Blown() && w.told > told {
				t.Fatalf("seed %d: a rejection was told while the fuse was blown", seed)
			}
		}
	}
}
