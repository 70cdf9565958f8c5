package exchange

import (
	"sync/atomic"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
)

// State is what is known of a token endpoint beyond a single exchange. It outlives configurations: exchangers of the same
// endpoint and client share it.
type State struct {
	// Logins and Refreshes are paced apart: who guesses passwords is in no refresh's way.
	Logins, Refreshes *pacing.Pacer

	// Unknown paces refreshes by keys that a vault does not know. Anybody can make them up, and they are in no other's way.
	Unknown *pacing.Pacer

	// LoginFuse and RefreshFuse doubt rejections, apart for the same reason.
	LoginFuse, RefreshFuse *pacing.Fuse

	// Links and Polls are of listeners who sign in: where, and whether they have. Anybody can begin to.
	Links, Polls *pacing.Pacer

	// OldFuse is that of what the old service rejects.
	OldFuse *pacing.Fuse

	// UpgradeAccounts and RefreshAccounts are what came of distinct accounts lately, for those who watch.
	UpgradeAccounts, RefreshAccounts *pacing.Accounts

	// OldAccounts are what the old service has said of distinct accounts lately.
	OldAccounts *pacing.Accounts

	Calls *replay.Calls[*Landed]
	links *links

	// Renewals are the records that were lately tried to be refreshed while they can be served without.
	Renewals *replay.Memory[struct{}]

	// chains has the accounts of refresh tokens that were got by refreshes: who refreshes again and again is one account.
	chains *replay.Memory[pacing.Account]

	// guarded has the logins of accounts, by account and network, that have had their failed ones at other instances.
	guarded *replay.Memory[struct{}]

	held atomic.Int64 // bytes of bodies that may yet be forwarded, whoever waits for whom
}

// maxHeld bounds what is held. The less is left of it, the smaller a body has to be, so that large ones, which no player
// sends, are in no small one's way.
const (
	maxHeld   = 64 << 20
	shareHeld = 256
)

// Hold reports whether there is room for a body of this many bytes, which is taken then until Release. For 0 there always is.
func (s *State) Hold(size int) bool {
	if left := maxHeld - s.held.Load(); size > 0 && int64(size) > left/shareHeld {
		return false
	}
	s.held.Add(int64(size))
	return true
}

// Release gives back the room of Hold.
func (s *State) Release(size int) { s.held.Add(int64(-size)) }

// Bounds of what is remembered. The players' next tries find an entry, or cost a login as they did before.
const (
	maxIssued   = 1 << 14
	maxRejected = 1 << 16
	maxTried    = 1 << 16
)

// NewState returns the State of a token endpoint that has not been used yet. Now is the clock of the fuses and of what is
// remembered; the pacing of what is under way goes by the system's.
func NewState(watch pacing.Watch, fuse func(pacing.FuseStatus), now func() time.Time) *State {
	return &State{
		Logins:    pacing.New(watch),
		Refreshes: pacing.New(watch),
		Unknown:   pacing.New(pacing.Watch{}),
		Links:     pacing.New(watch),
		Polls:     pacing.New(watch),
		links:     newLinks(),
		LoginFuse: pacing.NewFuse(fuse, now), RefreshFuse: pacing.NewFuse(fuse, now), OldFuse: pacing.NewFuse(fuse, now),
		UpgradeAccounts: pacing.NewAccounts(), RefreshAccounts: pacing.NewAccounts(), OldAccounts: pacing.NewAccounts(),
		guarded:  replay.NewMemory[struct{}](maxTried, now),
		Renewals: replay.NewMemory[struct{}](maxTried, now),
		chains:   replay.NewMemory[pacing.Account](maxIssued, now),
		Calls:    replay.New[*Landed](replay.NewMemory[*Landed](maxIssued, now), replay.NewMemory[*Landed](maxRejected, now)),
	}
}
