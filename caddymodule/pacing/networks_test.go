package pacing

import (
	"testing"
	"time"
)

func TestANetworkIsAloneWithItsFailuresOnlyWhileOthersAreAccepted(t *testing.T) {
	accepted, failed := Report{Accepted: true}, Report{Failed: true}
	for name, test := range map[string]struct {
		before, meanwhile Network // who else is accepted then, 0 for nobody
		own               bool    // it is accepted in between
		want              bool
	}{
		"others are":                  {meanwhile: 2, want: true},
		"others were, up to that":     {before: 2},
		"nobody is":                   {},
		"it is, too":                  {meanwhile: 2, own: true},
		"only itself was, up to that": {before: 1},
	} {
		n, now := newNetworks(), time.Now()
		note := func(of Network, r Report) (alone bool) {
			now = now.Add(time.Second)
			_, alone = n.note(of, r, now)
			return alone
		}
		if test.before != 0 {
			note(test.before, accepted)
		}
		for range networkRow - 1 {
			if note(1, failed) {
				t.Errorf("%s: alone too soon", name)
			}
		}
		if test.meanwhile != 0 {
			note(test.meanwhile, accepted)
		}
		if test.own {
			note(1, accepted)
		}
		if got := note(1, failed); got != test.want {
			t.Errorf("%s: alone is %v", name, got)
		}
	}
}

func TestANetworkThatIsNotKnownIsNeverAlone(t *testing.T) {
	n, now := newNetworks(), time.Now()
	for range 2 * networkRow {
		n.note(1, Report{Accepted: true}, now)
		if behind, alone := n.note(0, Report{}, now.Add(-time.Second)); behind || alone {
			t.Fatal("it is")
		}
	}
}
