package vault

import (
	"context"
	"errors"
	"io/fs"
	mathrand "math/rand/v2"
	"path"
	"strings"
	"time"
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

	// Records is how many there were in each shard at the last visit.
	Records [shards]int `json:"records"`
}

func (c *cursor) total() (n int) {
	for _, records := range c.Records {
		n += records
	}
	return n
}

func cursorKey(n *namer) string { return n.dir + "/forget" + extension }

// Forgotten is what a share of forgetting came to.
type Forgotten struct {
	// Done is false where another instance has done it, or does.
	Done bool

	// Seen and Removed are the records of this share, and Records how many there are in all, as of the last day.
	Seen, Removed, Records int
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
	for i := range keys.namers {
		if err = v.forgetShare(ctx, &keys.namers[i], &f); err != nil {
			return f, unavailable(err)
		}
	}
	return f, nil
}

func (v *Vault) forgetShare(ctx context.Context, n *namer, f *Forgotten) error {
	var c cursor
	if err := v.cursor(ctx, n, &c); err != nil {
		return err
	}
	f.Records += c.total()
	if c.fresh(v.now()) {
		return nil
	}
	unlock, ok, err := v.storage.tryLock(ctx, "smapi_upgrade-"+path.Base(n.dir)+"-forget")
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
	for range (shards + forgetShares - 1) / forgetShares {
		shard := c.Shard
		seen, removed, err := v.forgetShard(ctx, n, byte(shard))
		f.Seen, f.Removed = f.Seen+seen, f.Removed+removed
		if err != nil {
			return err
		}
		f.Records += seen - removed - c.Records[shard]
		c.Records[shard] = seen - removed
		c.Shard = (shard + 1) % shards
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
func (v *Vault) cursor(ctx context.Context, n *namer, c *cursor) error {
	*c = cursor{}
	err := v.read(ctx, cursorKey(n), c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrLost) || errors.Is(err, ErrKey) {
		err = nil
	}
	c.Shard = max(0, c.Shard) % shards
	return err
}

func (v *Vault) move(ctx context.Context, n *namer, c *cursor) error {
	sealed, err := v.config.Keys().seal(c)
	if err != nil {
		return err
	}
	return v.storage.store(ctx, cursorKey(n), sealed)
}

func (v *Vault) forgetShard(ctx context.Context, n *namer, shard byte) (seen, removed int, err error) {
	err = v.each(ctx, n, shard, func(m name, key string) error {
		seen++
		unused, err := v.unused(ctx, m, key)
		if err == nil && unused {
			err = v.remove(ctx, m)
			removed++
		}
		return err
	})
	return seen, removed, err
}

// forgetFailed removes the failed logins that count no more, all of them each hour: accounts can be made up.
func (v *Vault) forgetFailed(ctx context.Context, n *namer) error {
	count := maxFailureAge
	if v.config.FailuresCount != nil {
		count = min(count, v.config.FailuresCount())
	}
	before := v.now().Add(-count)
	for shard := range shards {
		accounts, err := v.storage.list(ctx, n.shard(failed, byte(shard)))
		if err != nil {
			return err
		}
		for _, folder := range accounts {
			if err := v.forgetFailures(ctx, folder, before); err != nil {
				return err
			}
			if left, err := v.storage.list(ctx, folder); err != nil {
				return err
			} else if len(left) == 0 {
				if err := v.storage.remove(ctx, folder); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// each calls visit for the records of a shard.
func (v *Vault) each(ctx context.Context, n *namer, shard byte, visit func(name, string) error) error {
	keys, err := v.storage.list(ctx, n.shard(records, shard))
	if err != nil {
		return err
	}
	for _, key := range keys {
		text, ok := strings.CutSuffix(path.Base(key), extension)
		m, parsed := n.parse(text)
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
func (v *Vault) unused(ctx context.Context, m name, key string) (bool, error) {
	if v.config.ForgetAfter == nil || v.config.ForgetAfter() <= 0 {
		return false, nil
	}
	before := v.now().Add(-v.config.ForgetAfter())
	info, err := v.storage.stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Modified.After(before) {
		return false, nil
	}
	r, err := v.record(ctx, m)
	switch {
	case err == nil:
		return r.unusedSince().Before(before), nil
	case errors.Is(err, ErrUnavailable):
		return false, err
	}
	return !info.Modified.IsZero() && (errors.Is(err, ErrLost) || errors.Is(err, ErrKey)), nil
}

// remove removes a record, and what leads to it first. Who is just refreshing finishes before.
func (v *Vault) remove(ctx context.Context, m name) error {
	r, err := v.overwritable(ctx, m)
	if err != nil {
		return err
	}
	unlock, err := v.lock(ctx, &m, r.Generation)
	if err != nil {
		return err
	}
	defer unlock()
	if r.Alias || r.Generation == 0 {
		if err := v.storage.remove(ctx, m.alias()); err != nil {
			return err
		}
	}
	return v.storage.remove(ctx, m.key())
}

// ForgetHousehold removes all that is kept for a home, and returns how many records there were. The home is as its
// players sent it, to the letter.
func (v *Vault) ForgetHousehold(ctx context.Context, home string) (removed int, err error) {
	keys := v.config.Keys()
	for i := range keys.namers {
		n := &keys.namers[i]
		wanted := n.record(home, ofAccount, "")
		some, err := v.removeAll(ctx, n, wanted.home[0], func(m name) bool { return m.home == wanted.home })
		if removed += some; err != nil {
			return removed, unavailable(err)
		}
	}
	return removed, nil
}

// ForgetAccount removes all that is kept for an account, in whatever home, and returns how many records there were. The
// account is as for Upgraded, and counted what its failed logins are counted by. Records that were taken in, or made when a
// listener signed in, do not say which account they are of: their homes do.
func (v *Vault) ForgetAccount(ctx context.Context, account, counted string) (removed int, err error) {
	keys := v.config.Keys()
	for i := range keys.namers {
		n := &keys.namers[i]
		wanted := n.record("", ofAccount, account)
		for shard := range shards {
			some, err := v.removeAll(ctx, n, byte(shard), func(m name) bool { return m.account == wanted.account })
			if removed += some; err != nil {
				return removed, unavailable(err)
			}
		}
		if err := v.storage.remove(ctx, n.failures(counted)); err != nil {
			return removed, unavailable(err)
		}
	}
	return removed, nil
}

func (v *Vault) removeAll(ctx context.Context, n *namer, shard byte, wanted func(name) bool) (removed int, err error) {
	err = v.each(ctx, n, shard, func(m name, _ string) error {
		if !wanted(m) {
			return nil
		}
		removed++
		return v.remove(ctx, m)
	})
	return removed, err
}
