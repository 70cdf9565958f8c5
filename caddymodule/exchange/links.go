package exchange

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
)

// How often a home may begin to sign in. An app may do so just to draw a screen.
const (
	linksOfHome = 20
	linksWithin = 10 * time.Minute
)

// Bounds of what is remembered. Who is forgotten may ask a little too early.
const (
	maxCodes = 1 << 14
	maxHomes = 1 << 14
)

const (
	slowerBy        = 5 * time.Second // RFC 8628 section 3.5
	slowestInterval = time.Minute
)

// links remember when codes were last asked for, and how often homes have begun to sign in. Of this process, it only saves
// work: a server that is asked too early says so.
type links struct {
	mu    sync.Mutex
	codes *lru.Cache[replay.Digest, *askedCode]
	homes *lru.Cache[pacing.Account, *begun]
}

type askedCode struct {
	at       time.Time
	interval time.Duration
}

type begun struct {
	since time.Time
	n     int
}

func newLinks() *links {
	codes, err := lru.New[replay.Digest, *askedCode](maxCodes)
	if err != nil {
		panic(err) // the size is not positive
	}
	homes, err := lru.New[pacing.Account, *begun](maxHomes)
	if err != nil {
		panic(err)
	}
	return &links{codes: codes, homes: homes}
}

// begin reports whether a home may begin to sign in.
func (l *links) begin(home pacing.Account, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.homes.Get(home)
	if !ok || now.Sub(b.since) >= linksWithin {
		b = &begun{since: now}
		l.homes.Add(home, b)
	}
	b.n++
	return b.n <= linksOfHome
}

// ask reports whether a code may be asked for, which then counts as asked.
func (l *links) ask(code replay.Digest, interval time.Duration, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.codes.Get(code)
	if !ok {
		l.codes.Add(code, &askedCode{now, interval})
		return true
	}
	if now.Sub(c.at) < c.interval {
		return false
	}
	c.at = now
	return true
}

// slower has a code asked for less often from now on, as the server wants.
func (l *links) slower(code replay.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.codes.Get(code); ok {
		c.interval = min(c.interval+slowerBy, slowestInterval)
	}
}
