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

// What came before a network was known for failing moves behind the others, with its room.
func TestWhoIsFoundToFailMovesBehindTheOthers(t *testing.T) {
	p := New(Watch{})
	g := p.gate
	const guesser, elsewhere = 1, 2
	trial := func(network Network, size int) *Trial {
		return &Trial{Deadline: time.Now().Add(time.Hour), Places: 1, Network: network, Size: size}
	}
	if a, _ := g.enter(trial(guesser, 1), 0); a != In {
		t.Fatal("no first place")
	}
	var guesses []*waiting
	for range 4 {
		_, w := g.enter(trial(guesser, maxBytes/4), 0)
		guesses = append(guesses, w)
	}
	if a, _ := g.enter(trial(elsewhere, 1), 0); a != Late {
		t.Fatal("there is room left")
	}
	for range networkTrials {
		if behind, _ := p.networks.note(guesser, Report{}, time.Now()); behind {
			g.demote(guesser)
		}
	}
	_, home := g.enter(trial(elsewhere, 1), 0)
	if home == nil || g.first() != home || g.bytes != [2]int{1, maxBytes} {
		t.Fatalf("next is %+v, with %v bytes", g.first(), g.bytes)
	}
	for range 5 {
		g.leave(time.Second, new(Report))
	}
	for _, w := range append(guesses, home) {
		if len(w.admitted) != 1 || <-w.admitted != In {
			t.Error("never let in")
		}
	}
	if g.bytes != [2]int{} || g.waiting() != 0 {
		t.Errorf("%v bytes of %d", g.bytes, g.waiting())
	}
}
