package census

import (
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

func TestALargeShardIsCountedByTheShareOfThoseThatAreOpened(t *testing.T) {
	var c Census
	for shard := range seal.Shards {
		s := Shard{Records: 4000}
		for i := range MaxOpened {
			switch {
			case i%4 == 0:
				s.Came(SignIn)
			case i == 1:
				s.Came("of a later version")
			default:
				s.Came(Upgrade)
			}
		}
		var before Totals
		if before.Add(&c); before.Whole {
			t.Fatalf("%d shards are taken for all", shard)
		}
		c.Visited(shard, &s)
	}
	c.Visited(0, &Shard{}) // which is empty by now
	c.Visited(1, &Shard{Records: 10})
	var all Totals
	all.Add(&c)
	if all != (Totals{Records: 254*4000 + 10, Upgraded: 254 * 2938, SignedIn: 254 * 1000, Whole: true, About: true}) {
		t.Errorf("%+v", all)
	}
}
