package pacing

import (
	"testing"
	"time"
)

func TestTheQueueIsBounded(t *testing.T) {
	g := newGate(nil)
	later := &Trial{Deadline: time.Now().Add(time.Hour), Places: 1}
	if a, _ := g.enter(later, 0); a != In {
		t.Fatal("no first place")
	}
	for range queuePerPlace {
		if a, _ := g.enter(later, 0); a != queued {
			t.Fatal("turned away", a)
		}
	}
	if a, _ := g.enter(later, 0); a != Late {
		t.Error("a queue without an end")
	}
}

func TestWhoComesBehindFillsNoRoomOfTheOthers(t *testing.T) {
	g := newGate(nil)
	guess := &Trial{Deadline: time.Now().Add(time.Hour), Places: 1, Size: maxBytes / 4}
	if a, _ := g.enter(guess, 0); a != In {
		t.Fatal("no first place")
	}
	for range 4 {
		if a, _ := g.enter(guess, 1); a != queued {
			t.Fatal("turned away", a)
		}
	}
	if a, _ := g.enter(guess, 1); a != Late {
		t.Error("room without an end")
	}
	if a, _ := g.enter(guess, 0); a != queued {
		t.Error("there is no room for who comes first")
	}
}
