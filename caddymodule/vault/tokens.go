package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/census"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/flight"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// Tokens are what a token endpoint issued.
type Tokens struct {
	Access string

	// Refresh is blank where the one before it stays good.
	Refresh string

	// Life is how long the access token is good, 0 where the server did not say.
	Life time.Duration

	// Obtained is when they were issued. Zero is now.
	Obtained time.Time

	// Fields are kept beside the tokens, and take the place of those before them of the same name. They may be secrets.
	Fields map[string]string

	// UserIDHash stands for who has signed in, blank where that is not known. It is for the answer that is given again.
	UserIDHash string

	// SignedIn tells that a listener has signed in, and did not upgrade.
	SignedIn bool
}

// Result is what a player gets.
type Result struct {
	// AuthToken and PrivateKey are the player's. PrivateKey is a handle, or the refresh token where Kept is false.
	AuthToken, PrivateKey string

	// Reference stands for AuthToken where that is to stay here. It is blank where Kept is false.
	Reference string

	// UserIDHash stands for who has signed in, blank where the tokens are not those of a sign-in.
	UserIDHash string

	// Known tells that the key that the player presented is the vault's.
	Known bool

	// Asked tells that the token endpoint was asked, for this call or for another one at the same time.
	Asked bool

	// Kept tells that the vault has the tokens. Unsaved is why they are not written, nil if they are: they are in
	// memory alone if Kept is true, and will be written when the storage works again.
	Kept    bool
	Unsaved error
}

// Ask refreshes at the token endpoint, once. Ready is nil for a token that the vault had. A token that a player presents
// may be made up, and costs the storage nothing before it has a place at the endpoint: then, right before the POST, ready
// has to be called, and nothing is sent unless it is true. Its context ends when nobody waits any more, or in time. Its
// errors are handed on to all who wait as they are.
type Ask func(ctx context.Context, refreshToken string, ready func() bool) (Tokens, error)

// rounds bound how often a record that somebody else changes is looked at again.
const rounds = 20

var errRestless = errors.New("the record changed again and again")

// lock is held by who takes a record from a generation to the next. The generation is in its name, because certmagic's
// file storage keeps a lock fresh for seconds after it was given back, and for ever if the next one to have it dies.
func (v *Vault) lock(ctx context.Context, m *seal.Name, generation int64) (func(), error) {
	unlock, err := v.store.Lock(ctx, "smapi_upgrade-"+m.Text()+"-"+strconv.FormatInt(generation, 10))
	return unlock, store.Unavailable(err)
}

// underLock calls f with a record under the lock of its generation.
func (v *Vault) underLock(ctx context.Context, m seal.Name, read func(context.Context, seal.Name) (*record, error), f func(*record) error) error {
	for range rounds {
		before, err := read(ctx, m)
		if err != nil {
			return err
		}
		unlock, err := v.lock(ctx, &m, before.Generation)
		if err != nil {
			return err
		}
		r, err := read(ctx, m)
		if err == nil && r.Generation != before.Generation {
			unlock()
			continue
		}
		if err == nil {
			err = f(r)
		}
		unlock()
		return err
	}
	return errRestless
}

// Upgraded keeps the tokens of an account of a home that was upgraded. The same account and home always have the same
// record and the same handle, with the tokens that were issued last. It never fails: where the storage does, the pair
// goes out as it came, and Result tells.
func (v *Vault) Upgraded(ctx context.Context, home, account string, t Tokens) Result {
	t.complete(v.now())
	ctx, cancel := afterAll(ctx)
	defer cancel()
	m := v.config.Keys().Namers()[0].Record(home, seal.OfAccount, account)
	for range rounds {
		result, err := v.upgrade(ctx, m, home, &t)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return Result{AuthToken: t.Access, PrivateKey: t.Refresh, Asked: true, Unsaved: err}
		}
		result.Asked = true
		return result
	}
	return Result{AuthToken: t.Access, PrivateKey: t.Refresh, Asked: true, Unsaved: store.Unavailable(errRestless)}
}

// Recent returns the tokens of an account of a home that were issued since a time, false where there are none or the
// storage does not say. The account is as for Upgraded.
func (v *Vault) Recent(ctx context.Context, home, account string, since time.Time) (Result, bool) {
	m := v.config.Keys().Namers()[0].Record(home, seal.OfAccount, account)
	r, err := v.record(ctx, m)
	if err == nil {
		err = v.awaitFirst(ctx, &m, r)
	}
	if err != nil || r.Refreshed.Before(since) {
		return Result{}, false
	}
	return resultOf(&m, r), true
}

// awaitFirst waits for who writes a record for the first time, since a record that came too late is removed again: before
// that nobody gives out its handle or changes it. It is errMoved if somebody did.
func (v *Vault) awaitFirst(ctx context.Context, m *seal.Name, r *record) error {
	if r.Generation != 1 {
		return nil
	}
	unlock, err := v.lock(ctx, m, 0)
	if err != nil {
		return err
	}
	defer unlock()
	again, err := v.overwritable(ctx, *m)
	if err == nil && (again.Generation != 1 || !again.Created.Equal(r.Created)) {
		err = errMoved
	}
	return err
}

// afterAll has what follows upon an issue of tokens go on when the player has gone, and gives it some time in any case.
func afterAll(ctx context.Context) (context.Context, context.CancelFunc) {
	left := store.SettleWait
	if deadline, ok := ctx.Deadline(); ok {
		left = max(left, time.Until(deadline))
	}
	return context.WithTimeout(context.WithoutCancel(ctx), left)
}

func (v *Vault) upgrade(ctx context.Context, m seal.Name, home string, t *Tokens) (Result, error) {
	before, err := v.overwritable(ctx, m)
	if err != nil {
		return Result{}, err
	}
	if err := v.awaitFirst(ctx, &m, before); err != nil {
		return Result{}, err
	}
	if before.has(t, v.now()) {
		return resultOf(&m, before), nil
	}
	unlock, err := v.lock(ctx, &m, before.Generation)
	if err != nil {
		return Result{}, err
	}
	r, err := v.overwritable(ctx, m)
	if err == nil && r.Generation != before.Generation {
		err = errMoved
	}
	if err == nil {
		err = v.store.AwaitSettled(ctx, m.Key())
	}
	if err == nil {
		err = v.store.LeaveMark(ctx, m.Namer())
	}
	if err != nil {
		unlock()
		return Result{}, err
	}
	if r.has(t, v.now()) {
		unlock()
		return resultOf(&m, r), nil
	}
	need := store.Required
	if r.absent {
		need = store.Optional
	}
	if r.Generation == 0 {
		*r = record{Name: m.Text(), Household: home, Created: v.now().UTC(), Source: census.Upgrade}
		if t.SignedIn {
			r.Source = census.SignIn
		}
	}
	return v.put(unlock, need, &m, r, t)
}

// overwritable reads a record that new tokens will replace. One that is not there, is damaged or cannot be opened is
// empty.
func (v *Vault) overwritable(ctx context.Context, m seal.Name) (*record, error) {
	r, err := v.record(ctx, m)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, fs.ErrNotExist):
		return &record{absent: true}, nil
	case errors.Is(err, ErrLost), errors.Is(err, ErrKey):
		return new(record), nil
	}
	return nil, err
}

// put writes new tokens into a record, and gives the lock of its generation back.
func (v *Vault) put(unlock func(), need store.Need, m *seal.Name, r *record, t *Tokens) (Result, error) {
	r.take(t, v.now())
	keys := v.config.Keys()
	sealed, err := keys.SealObject(r)
	objects := []store.Object{{Key: m.Key(), Sealed: sealed}}
	if err == nil && r.Alias && r.Generation == 1 {
		sealed, err = keys.SealObject(alias{Version: version, Alias: m.Alias(), Name: m.Text()})
		objects = append(objects, store.Object{Key: m.Alias(), Sealed: sealed})
	}
	if err != nil {
		unlock()
		return Result{}, store.Unavailable(err)
	}
	result := resultOf(m, r)
	if result.Kept, result.Unsaved = v.store.Settle(unlock, need, objects...); result.Unsaved == nil {
		result.Kept = true
	}
	if !result.Kept {
		result.PrivateKey, result.Reference = r.RefreshToken, ""
	} else {
		v.opened.put(m, r, v.now())
	}
	return result, nil
}

func resultOf(m *seal.Name, r *record) Result {
	return Result{AuthToken: r.AccessToken, PrivateKey: m.Handle(), Reference: m.Reference(), UserIDHash: r.UserIDHash, Known: true, Kept: true}
}

// Refresh returns tokens for a player that presents a key, with an access token that does it no good any more. A record
// with a newer access token is the answer, and nobody is asked. Else one of all instances asks, and the others wait.
//
// A key that the vault does not know may be a refresh token from before there was a vault. It is asked for once, and taken
// in for this home when that succeeds; Known is false until then. It is found again, since households keep the key that
// they were given first.
func (v *Vault) Refresh(ctx context.Context, home, key, presented string, ask Ask) (Result, error) {
	return v.RefreshFor(ctx, home, key, presented, nil, ask)
}

// RefreshFor is Refresh for tokens that have to have come with these fields.
func (v *Vault) RefreshFor(ctx context.Context, home, key, presented string, fields []string, ask Ask) (Result, error) {
	m, known, err := v.config.Keys().OpenHandle(key)
	if err != nil {
		return Result{}, err
	}
	for range rounds {
		if !known {
			found, err := v.lookUpUnknown(ctx, key)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return Result{}, err
			}
			if err != nil {
				result, err := v.takeIn(ctx, home, key, ask)
				if errors.Is(err, errMoved) {
					continue
				}
				return result, err
			}
			m, known = found, true
		}
		keys := v.config.Keys()
		r, err := v.record(ctx, m)
		if errors.Is(err, ErrKey) && v.store.NewKeys(ctx, keys) {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = v.store.Missing(ctx, m.Namer())
		}
		if err != nil {
			return Result{Known: true}, err
		}
		if r.serves(presented, v.now()) && r.hasFields(fields) {
			return resultOf(&m, r), nil
		}
		result, err := v.fly(ctx, step{m.Key(), r.Generation}, func(ctx context.Context) (Result, error) {
			return v.renew(ctx, m, r.Generation, ask)
		})
		if !errors.Is(err, errMoved) {
			result.Known = true
			return result, err
		}
	}
	return Result{Known: known}, store.Unavailable(errRestless)
}

// step is one of one record: from a generation to the next.
type step struct {
	key        string
	generation int64
}

// errMoved tells that somebody else has taken the step.
var errMoved = errors.New("the record has changed")

// fly takes a step once for all who want it now, so that one goroutine of the process stands at the storage's lock.
func (v *Vault) fly(ctx context.Context, s step, take func(context.Context) (Result, error)) (Result, error) {
	result, err := v.flights.Do(ctx, s, take)
	switch {
	case errors.Is(err, flight.ErrLate):
		err = errMoved
	case errors.Is(err, flight.ErrBroken), err != nil && err == ctx.Err():
		err = store.Unavailable(err)
	}
	return result, err
}

// renew takes a record from a generation to the next.
func (v *Vault) renew(ctx context.Context, m seal.Name, generation int64, ask Ask) (Result, error) {
	if err := v.store.AwaitSettled(ctx, m.Key()); err != nil {
		return Result{}, err
	}
	if err := v.Ready(ctx); err != nil {
		return Result{}, err
	}
	unlock, err := v.lock(ctx, &m, generation)
	if err != nil {
		return Result{}, err
	}
	r, err := v.record(ctx, m)
	if err == nil && r.Generation != generation || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrKey) {
		err = errMoved
	}
	if err != nil {
		unlock()
		return Result{}, err
	}
	t, err := v.asking(ctx, ask, r.RefreshToken, nil, unlock)
	if err != nil {
		defer unlock()
		if moved := v.moved(ctx, m, generation); moved != nil {
			err = moved
		}
		return Result{}, err
	}
	result, err := v.put(unlock, store.Required, &m, r, &t)
	result.Asked = true
	return result, err
}

// asking asks, and gives the lock back when that panics.
func (v *Vault) asking(ctx context.Context, ask Ask, refreshToken string, ready func() bool, unlock func()) (t Tokens, err error) {
	returned := false
	defer func() {
		if !returned {
			unlock()
		}
	}()
	begun := v.now()
	t, err = ask(ctx, refreshToken, ready)
	t.complete(begun)
	returned = true
	return t, err
}

func (t *Tokens) complete(now time.Time) {
	if t.Obtained.IsZero() {
		t.Obtained = now
	}
}

// moved is errMoved if a record has changed although we had its lock, as when that was taken for a dead process's: what was
// refused then was the token of a generation that is over. Where the storage does not say, nobody knows.
func (v *Vault) moved(ctx context.Context, m seal.Name, generation int64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	r, err := v.record(ctx, m)
	switch {
	case err == nil && r.Generation != generation, errors.Is(err, ErrKey): // or by an instance that has newer keys
		return errMoved
	case errors.Is(err, ErrUnavailable):
		return err
	}
	return nil
}

// maxUnknown is how many look-ups of keys that may be made up are under way at once, so that they leave most of the
// storage's operations to the others.
const maxUnknown = store.MaxOperations / 8

var errUnknownBusy = fmt.Errorf("%d look-ups of keys that are no handles are under way", maxUnknown)

// lookUpUnknown is lookUp for a key that anybody may have made up.
func (v *Vault) lookUpUnknown(ctx context.Context, token string) (seal.Name, error) {
	select {
	case v.unknown <- struct{}{}:
		defer func() { <-v.unknown }()
		return v.lookUp(ctx, token)
	default:
		return seal.Name{}, store.Unavailable(errUnknownBusy)
	}
}

// lookUp finds the record that was made of a token.
func (v *Vault) lookUp(ctx context.Context, token string) (seal.Name, error) {
	var missing error
	keys := v.config.Keys()
	for i := range keys.Namers() {
		n := &keys.Namers()[i]
		m := n.Record("", seal.OfToken, token)
		var a alias
		err := v.store.Read(ctx, m.Alias(), &a)
		if errors.Is(err, fs.ErrNotExist) {
			missing = err
			continue
		}
		if err != nil {
			return seal.Name{}, err
		}
		found, ok := n.Parse(a.Name)
		if !ok || a.Alias != m.Alias() || found.Account != m.Account {
			return seal.Name{}, fmt.Errorf("%w: it is another's", ErrLost)
		}
		return found, nil
	}
	return seal.Name{}, missing
}

// takeIn makes a record of a token that is not known, if it is good.
func (v *Vault) takeIn(ctx context.Context, home, token string, ask Ask) (Result, error) {
	m := v.config.Keys().Namers()[0].Record(home, seal.OfToken, token)
	return v.fly(ctx, step{key: m.Alias()}, func(ctx context.Context) (Result, error) {
		if err := v.Ready(ctx); err != nil {
			return Result{}, err
		}
		unlock, unready := func() {}, error(nil)
		t, err := v.asking(ctx, ask, token, func() bool {
			unlock, unready = v.ready(ctx, &m, token)
			return unready == nil
		}, func() { unlock() })
		if unready != nil {
			return Result{}, unready
		}
		if err != nil {
			unlock()
			return Result{}, err
		}
		r := &record{
			Name: m.Text(), Alias: true, Household: home, RefreshToken: token, Created: v.now().UTC(), Source: census.Refresh,
		}
		result, err := v.put(unlock, store.Required, &m, r, &t)
		result.Asked = true
		return result, err
	})
}

// ready has a token that is not known to this call alone, among all instances, if it is still not known.
func (v *Vault) ready(ctx context.Context, m *seal.Name, token string) (unlock func(), err error) {
	unlock, err = v.store.Lock(ctx, "smapi_upgrade-"+m.AccountText())
	if err != nil {
		return nil, store.Unavailable(err)
	}
	if _, err = v.lookUp(ctx, token); err == nil {
		err = errMoved
	} else if errors.Is(err, fs.ErrNotExist) {
		err = v.store.LeaveMark(ctx, m.Namer())
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}
