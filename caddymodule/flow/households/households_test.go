package households

import (
	"fmt"
	"math"
	"testing"
)

func TestAShareOfTheHomesIsChosenAndTheFewAreAmongTheMore(t *testing.T) {
	const homes = 10000
	shares := []Percent{0, 0.1, 1, 10, 50, 99.9, All}
	chosen := make([]int, len(shares))
	for i := range homes {
		home, before := fmt.Sprintf("Sonos_%08x", i), false
		for k, share := range shares {
			is := share.Chooses(home)
			if before && !is {
				t.Errorf("%s is among %v and not among %v", home, shares[k-1], share)
			}
			if before = is; is {
				chosen[k]++
			}
		}
	}
	for k, share := range shares {
		if got := float64(chosen[k]) * 100 / homes; math.Abs(got-float64(share)) > 0.5 || (got == 0) != (share == 0) || (got == 100) != (share == All) {
			t.Errorf("%v are %.2f%% of the homes", share, got)
		}
	}
}
