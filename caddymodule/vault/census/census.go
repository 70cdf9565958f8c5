// Package census counts the records of a vault, shard by shard.
package census

import "github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"

// Source is how a record came.
type Source string

// The values of Source.
const (
	Upgrade Source = "upgrade"
	SignIn  Source = "sign_in"
	Refresh Source = "refresh" // it was refreshed, and is from before there was a vault
)

// MaxOpened is how many records of a shard are opened to see how they came. Those of a larger one are counted by their share.
const MaxOpened = 64

// Census is what was counted at the last visit of each shard. Its zero value has counted nothing.
type Census struct {
	Records [seal.Shards]int `json:"records"`

	Upgraded [seal.Shards]int `json:"upgraded"`
	SignedIn [seal.Shards]int `json:"signed_in"`
	TakenIn  [seal.Shards]int `json:"taken_in"`

	// Rounds is how often all shards were visited.
	Rounds int `json:"rounds"`
}

// Shard is one while it is counted.
type Shard struct {
	Records, Opened int
	by              map[Source]int
}

// Came counts how a record came. It was opened for that.
func (s *Shard) Came(from Source) {
	if s.by == nil {
		s.by = make(map[Source]int)
	}
	s.Opened++
	s.by[from]++
}

func (s *Shard) share(from Source) int {
	if s.Opened == 0 {
		return 0
	}
	return (s.by[from]*s.Records + s.Opened/2) / s.Opened
}

// Visited takes a shard in.
func (c *Census) Visited(shard int, s *Shard) {
	c.Records[shard] = s.Records
	c.Upgraded[shard], c.SignedIn[shard], c.TakenIn[shard] = s.share(Upgrade), s.share(SignIn), s.share(Refresh)
	if shard == seal.Shards-1 {
		c.Rounds++
	}
}

// Totals are those of the whole vault.
type Totals struct {
	Records, Upgraded, SignedIn, TakenIn int

	// Whole tells that all shards were counted, and About that some are so large that how their records came is by a share of them.
	Whole, About bool
}

// Add adds the shards of a Census.
func (t *Totals) Add(c *Census) {
	for shard, n := range c.Records {
		t.Records += n
		t.Upgraded += c.Upgraded[shard]
		t.SignedIn += c.SignedIn[shard]
		t.TakenIn += c.TakenIn[shard]
		t.About = t.About || n > MaxOpened
	}
	t.Whole = t.Whole || c.Rounds > 0
}
