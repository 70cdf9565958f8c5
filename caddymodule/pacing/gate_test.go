package pacing

import (
	"testing"
	"time"
)

func TestTheQueueIsBounded(t *testing.T) {
	g := newGate(nil)
	later := time.Now().Add(time.Hour)
	if a, _ := g.enter(later, 1); a != In {
		t.Fatal("no first place")
	}
	for range queuePerPlace {
		if a, _ := g.enter(later, 1); a != queued {
			t.Fatal("turned away", a)
		}
	}
	if a, _ := g.enter(later, 1); a != Late {
		t.Error("a queue without an end")
	}
}
