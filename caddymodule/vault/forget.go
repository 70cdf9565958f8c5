package vault

import (
	"context"
	"errors"
	"io/fs"
	mathrand "math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/census"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

const (
	// forgetEvery is the time between two shares of forgetting, of which a day has forgetShares.
	forgetEvery  = time.Hour
	forgetShares = 24
	// maxFailureAge is the longest that a failed login counts.
	maxFailureAge = 48 * time.Hour
)

// cursor is how far forgetting has come, and what it has found on its way.
type cursor struct {
	Shard int       `json:"shard"`
	Last  time.Time `json:"last"`

	census.Census
}

func cursorKey(n *seal.Namer) string { return n.Dir() + "/forget" + seal.Extension }

// Forgotten is what a share of forgetting came to.
type Forgotten struct {
	// Done is false where another instance has done it, or does.
	Done bool

	// Seen and Removed are the records of this share.
	Seen, Removed int

	// Totals are of all records, as of the last day.
	census.Totals
}

// Run forgets a share every hour, the first some minutes from now, until ctx ends. Told is told what each came to.
func (v *Vault) Run(ctx context.Context, told func(Forgotten, error)) {
	for wait := forgetEvery/60 + mathrand.N(forgetEvery/12); ; wait = forgetEvery {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		done, err := v.Forget(ctx)
		if ctx.Err() != nil {
			return
		}
		told(done, err)
	}
}

// Forget removes the records of a 24th part of the vault that nobody has used for ForgetAfter, and all failed logins
// that count no more. One instance does it, and none if it was done within the hour. It goes on where the last one stopped.
func (v *Vault) Forget(ctx context.Context) (f Forgotten, err error) {
	keys := v.config.Keys()
	for i := range keys.Namers() {
		if err = v.forgetShare(ctx, &keys.Namers()[i], &f); err != nil {
			return f, store.Unavailable(err)
		}
	}
	return f, nil
}

func (v *Vault) forgetShare(ctx context.Context, n *seal.Namer, f *Forgotten) error {
	var c cursor
	defer func() { f.Add(&c.Census) }()
	if err := v.cursor(ctx, n, &c); err != nil {
		return err
	}
	if c.fresh(v.now()) {
		return nil
	}
	unlock, ok, err := v.store.TryLock(ctx, "smapi_upgrade-"+path.Base(n.Dir())+"-forget")
	if err != nil || !ok {
		return err
	}
	defer unlock()
	if err := v.cursor(ctx, n, &c); err != nil || c.fresh(v.now()) {
		return err
	}
	f.Done = true
	if err := v.forgetFailed(ctx, n); err != nil {
		return err
	}
	for range (seal.Shards + forgetShares - 1) / forgetShares {
		counted, removed, err := v.forgetShard(ctx, n, byte(c.Shard))
		f.Seen, f.Removed = f.Seen+counted.Records+removed, f.Removed+removed
		if err != nil {
			return err
		}
		c.Visited(c.Shard, &counted)
		c.Shard = (c.Shard + 1) % seal.Shards
		if err := v.move(ctx, n, &c); err != nil {
			return err
		}
	}
	c.Last = v.now().UTC()
	return v.move(ctx, n, &c)
}

// fresh tells whether the hour's share is done. A little early is in time, since nobody wakes at the same moment.
func (c *cursor) fresh(now time.Time) bool {
	since := now.Sub(c.Last)
	return since >= 0 && since < forgetEvery*9/10
}

// cursor reads how far forgetting has come. One that cannot be read begins anew.
func (v *Vault) cursor(ctx context.Context, n *seal.Namer, c *cursor) error {
	*c = cursor{}
	err := v.store.Read(ctx, cursorKey(n), c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrLost) || errors.Is(err, ErrKey) {
		err = nil
	}
	c.Shard = max(0, c.Shard) % seal.Shards
	return err
}

func (v *Vault) move(ctx context.Context, n *seal.Namer, c *cursor) error {
	sealed, err := v.config.Keys().SealObject(c)
	if err != nil {
		return err
	}
	return v.store.Store(ctx, cursorKey(n), sealed)
}

func (v *Vault) forgetShard(ctx context.Context, n *seal.Namer, shard byte) (counted census.Shard, removed int, err error) {
	err = v.each(ctx, n, shard, func(m seal.Name, key string) error {
		unused, err := v.unused(ctx, m, key)
		if unused {
			unused, err = v.remove(ctx, m, func() (bool, error) { return v.unused(ctx, m, key) }) // and not used just now
		}
		if err != nil {
			return err
		}
		if unused {
			removed++
			return nil
		}
		if counted.Records++; counted.Opened == census.MaxOpened {
			return nil
		}
		r, err := v.record(ctx, m)
		if err == nil {
			counted.Came(r.Source)
		} else if errors.Is(err, ErrUnavailable) {
			return err
		}
		return nil
	})
	return counted, removed, err
}

// forgetFailed removes the failed logins that count no more, all of them each hour: accounts can be made up.
func (v *Vault) forgetFailed(ctx context.Context, n *seal.Namer) error {
	count := maxFailureAge
	if v.config.FailuresCount != nil {
		count = min(count, v.config.FailuresCount())
	}
	return v.failures.Forget(ctx, n, v.now().Add(-count))
}

// each calls visit for the records of a shard.
func (v *Vault) each(ctx context.Context, n *seal.Namer, shard byte, visit func(seal.Name, string) error) error {
	keys, err := v.store.List(ctx, n.Shard(seal.Records, shard))
	if err != nil {
		return err
	}
	for _, key := range keys {
		text, ok := strings.CutSuffix(path.Base(key), seal.Extension)
		m, parsed := n.Parse(text)
		if !ok || !parsed {
			continue
		}
		if err := visit(m, key); err != nil {
			return err
		}
	}
	return nil
}

// unused tells whether nobody has used a record for long. One that was written lately is not opened for it, and one that
// cannot be opened is as old as its file.
func (v *Vault) unused(ctx context.Context, m seal.Name, key string) (bool, error) {
	if v.config.ForgetAfter == nil || v.config.ForgetAfter() <= 0 {
		return false, nil
	}
	info, err := v.store.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Modified.After(v.forgetBefore()) {
		return false, nil
	}
	r, err := v.record(ctx, m)
	switch {
	case err == nil:
		return r.unusedSince().Before(v.forgetBefore()), nil
	case errors.Is(err, ErrUnavailable):
		return false, err
	}
	return !info.Modified.IsZero() && (errors.Is(err, ErrLost) || errors.Is(err, ErrKey)), nil
}

func (v *Vault) forgetBefore() time.Time { return v.now().Add(-v.config.ForgetAfter()) }

// remove removes a record, and what leads to it first, if it still is to be. Who is just refreshing finishes before.
func (v *Vault) remove(ctx context.Context, m seal.Name, still func() (bool, error)) (removed bool, err error) {
	err = v.underLock(ctx, m, v.overwritable, func(r *record) (err error) {
		if removed, err = still(); removed && err == nil {
			err = v.removeLocked(ctx, m, r)
		}
		return err
	})
	return removed, err
}

func (v *Vault) removeLocked(ctx context.Context, m seal.Name, r *record) error {
	if r.Alias || r.Generation == 0 {
		if err := v.store.Remove(ctx, m.Alias()); err != nil {
			return err
		}
	}
	return v.store.Remove(ctx, m.Key())
}

// ForgetHousehold removes all that is kept for a home, and returns how many records there were. The home is as its
// players sent it, to the letter.
func (v *Vault) ForgetHousehold(ctx context.Context, home string) (removed int, err error) {
	keys := v.config.Keys()
	for i := range keys.Namers() {
		n := &keys.Namers()[i]
		wanted := n.Record(home, seal.OfAccount, "")
		some, err := v.removeAll(ctx, n, wanted.Home[0], func(m seal.Name) bool { return m.Home == wanted.Home })
		if removed += some; err != nil {
			return removed, store.Unavailable(err)
		}
	}
	return removed, nil
}

// ForgetAccount removes all that is kept for an account, in whatever home, and returns how many records there were. The
// account is as for Upgraded, and counted what its failed logins are counted by. Records that were taken in, or made when a
// listener signed in, do not say which account they are of: their homes do.
func (v *Vault) ForgetAccount(ctx context.Context, account, counted string) (removed int, err error) {
	keys := v.config.Keys()
	for i := range keys.Namers() {
		n := &keys.Namers()[i]
		wanted := n.Record("", seal.OfAccount, account)
		for shard := range seal.Shards {
			some, err := v.removeAll(ctx, n, byte(shard), func(m seal.Name) bool { return m.Account == wanted.Account })
			if removed += some; err != nil {
				return removed, store.Unavailable(err)
			}
		}
		if err := v.store.Remove(ctx, n.Failures(counted)); err != nil {
			return removed, store.Unavailable(err)
		}
	}
	return removed, nil
}

func (v *Vault) removeAll(ctx context.Context, n *seal.Namer, shard byte, wanted func(seal.Name) bool) (removed int, err error) {
	err = v.each(ctx, n, shard, func(m seal.Name, _ string) error {
		if !wanted(m) {
			return nil
		}
		gone, err := v.remove(ctx, m, func() (bool, error) { return true, nil })
		if gone {
			removed++
		}
		return err
	})
	return removed, err
}
