package pacing

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneAccountCountsOnceByItsLastTrial(t *testing.T) {
	a := NewAccounts()
	for range 100 {
		a.Note(name("ella"), Rejected)
	}
	a.Note(name("django"), Failed)
	if got := a.Count(); got != [ends]int{0, 1, 1} {
		t.Errorf("accepted, rejected, failed: %v", got)
	}
	a.Note(name("ella"), Accepted)
	if got := a.Count(); got != [ends]int{1, 0, 1} {
		t.Errorf("accepted, rejected, failed: %v", got)
	}
}

func TestMadeUpAccountsDisplaceNoneThatWasAccepted(t *testing.T) {
	a := NewAccounts()
	for i := range 20 {
		a.Note(name("good"+strconv.Itoa(i)), Accepted)
	}
	for i := range 10_000 {
		a.Note(name("made up"+strconv.Itoa(i)), Rejected)
	}
	if got := a.Count(); got != [ends]int{20, accountsMost, 0} {
		t.Errorf("accepted, rejected, failed: %v", got)
	}
}

func TestAnAccountCountsForFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAccounts()
		a.Note(name("ella"), Accepted)
		time.Sleep(5*time.Minute - 1)
		if got := a.Count(); got != [ends]int{1, 0, 0} {
			t.Errorf("after 5 minutes less a moment: %v", got)
		}
		time.Sleep(time.Nanosecond)
		if got := a.Count(); got != [ends]int{} {
			t.Errorf("after 5 minutes: %v", got)
		}
	})
}
