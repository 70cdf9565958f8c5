package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

var errFull = errors.New("no space left on device")

// during has one kind of operation fail.
func during(ops ...string) func(context.Context, string, string) error {
	return func(_ context.Context, op, _ string) error {
		if slices.Contains(ops, op) {
			return errFull
		}
		return nil
	}
}

// hang has one kind of operation hang for a time, whatever its context says.
func hang(op string, d time.Duration) func(context.Context, string, string) error {
	return func(_ context.Context, o, _ string) error {
		if o == op {
			time.Sleep(d)
		}
		return nil
	}
}

// panics has one kind of operation panic.
func panics(op string) func(context.Context, string, string) error {
	return func(_ context.Context, o, _ string) error {
		if o == op {
			panic("a mistake in the storage")
		}
		return nil
	}
}

func TestAStorageThatFailsBeforeTheServerIsAskedCostsNothing(t *testing.T) {
	for name, fault := range map[string]func(context.Context, string, string) error{
		"cannot be read": during("load"), "cannot be locked": during("lock"),
		"hangs when read": hang("load", time.Hour), "hangs when locked": hang("lock", time.Hour),
		"panics when read": panics("load"), "panics when locked": panics("lock"),
		"all gone": during("load", "store", "lock", "unlock", "delete", "list", "stat"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
				v := open(t, keys, s)
				pair := v.Upgraded(call(t), home, account, oauth.login("a"))
				time.Sleep(2 * time.Hour)
				s.fails(fault)
				begun := time.Now()
				got, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask)
				if !errors.Is(err, ErrUnavailable) || oauth.times() != 0 || time.Since(begun) > 15*time.Second {
					t.Errorf("got %+v, %v after %v; asked %d times", got, err, time.Since(begun), oauth.times())
				}
				s.fails(nil)
				time.Sleep(2 * time.Hour)
				_, err = v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask)
				synctest.Wait()
				if err != nil || s.lockedNow() != 0 {
					t.Errorf("afterwards: %v, and %d locks are left", err, s.lockedNow())
				}
			})
		})
	}
}

// A volume that is full can be read, and only the writes fail: without a trial before every question each account would
// lose its token.
func TestAFullVolumeCostsAtMostTheRefreshesThatAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v, other := open(t, keys, s), open(t, keys, s)
		var pairs []Result
		for i := range 10 {
			pairs = append(pairs, v.Upgraded(call(t), fmt.Sprint(home, i), account, oauth.login(fmt.Sprint(i))))
		}
		time.Sleep(2 * time.Hour)
		s.fails(during("store"))
		for i, pair := range pairs {
			got, err := v.Refresh(call(t), fmt.Sprint(home, i), pair.PrivateKey, pair.AuthToken, oauth.ask)
			switch {
			case i == 0 && (err != nil || got.Unsaved == nil || !got.Kept || got.PrivateKey != pair.PrivateKey):
				t.Errorf("the one under way: %+v, %v", got, err)
			case i > 0 && !errors.Is(err, ErrUnavailable):
				t.Errorf("one after it: %+v, %v", got, err)
			}
		}
		if oauth.times() != 1 || !v.Failing() || v.Pending() != 1 {
			t.Errorf("asked %d times, %d pending", oauth.times(), v.Pending())
		}
		// Here the tokens are known. Another instance waits for them, and does not use the old one.
		if got, err := v.Refresh(call(t), home+"0", pairs[0].PrivateKey, pairs[0].AuthToken, oauth.ask); err != nil || got.AuthToken == pairs[0].AuthToken {
			t.Errorf("here: %+v, %v", got, err)
		}
		if _, err := other.Refresh(call(t), home+"0", pairs[0].PrivateKey, pairs[0].AuthToken, oauth.ask); !errors.Is(err, ErrUnavailable) {
			t.Errorf("at another instance: %v", err)
		}
		s.fails(nil)
		time.Sleep(time.Minute)
		for i, pair := range pairs {
			if _, err := other.Refresh(call(t), fmt.Sprint(home, i), pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
		synctest.Wait()
		if oauth.times() != 10 || v.Pending() != 0 || s.lockedNow() != 0 || len(oauth.revoked) != 0 {
			t.Errorf("asked %d times, %d pending, %d locks", oauth.times(), v.Pending(), s.lockedNow())
		}
	})
}

func TestAnUpgradeThatCannotBeKeptGoesOutAsItCame(t *testing.T) {
	for name, fault := range map[string]func(context.Context, string, string) error{
		"cannot be read": during("load"), "cannot be locked": during("lock"), "cannot be written": during("store"),
		"hangs when read": hang("load", time.Hour), "hangs when written": hang("store", time.Hour),
		"panics when read": panics("load"), "panics when locked": panics("lock"), "panics when written": panics("store"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
				v := open(t, keys, s)
				s.fails(fault)
				issued := oauth.login("a")
				got := v.Upgraded(call(t), home, account, issued)
				if got.AuthToken != issued.Access || got.PrivateKey != issued.Refresh || got.Kept || got.Unsaved == nil {
					t.Errorf("got %+v", got)
				}
				if err := v.Ready(call(t)); err == nil && strings.Contains(name, "written") {
					t.Error("the next one would be asked for, too")
				}
				s.fails(nil)
				time.Sleep(3 * time.Hour)
				if n := len(s.keys(seal.Records)); n != 0 && name != "hangs when written" { // whose lock may be another's by then
					t.Errorf("%d records of tokens that went out", n)
				}
				if err := v.Ready(call(t)); err != nil || s.lockedNow() != 0 {
					t.Errorf("afterwards: %v, and %d locks", err, s.lockedNow())
				}
				// As with a home from before there was a vault.
				if taken, err := v.Refresh(call(t), home, got.PrivateKey, got.AuthToken, oauth.ask); err != nil || !taken.Kept {
					t.Errorf("afterwards: %+v, %v", taken, err)
				}
			})
		})
	}
}

func TestASlowStorageIsOnlySlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		s.fails(func(context.Context, string, string) error { time.Sleep(time.Second); return nil })
		v := open(t, keys, s)
		pair := v.Upgraded(call(t), home, account, oauth.login("a"))
		if pair.Unsaved != nil {
			t.Fatal(pair.Unsaved)
		}
		time.Sleep(2 * time.Hour)
		got, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask)
		if err != nil || got.Unsaved != nil {
			t.Errorf("got %+v, %v", got, err)
		}
		if !v.Close(call(t)) {
			t.Error("something is still to be written")
		}
		time.Sleep(time.Minute)
	})
}

func TestWhoGoesAwayLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		oauth.takes = 10 * time.Second
		v := open(t, keys, s)
		pair := v.Upgraded(call(t), home, account, oauth.login("a"))
		time.Sleep(2 * time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := v.Refresh(ctx, home, pair.PrivateKey, pair.AuthToken, oauth.ask); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		// What was asked is finished, and kept.
		if got, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil || oauth.times() != 1 {
			t.Errorf("got %+v, %v; asked %d times", got, err, oauth.times())
		}
	})
}

func TestALeaderWithLittleTimeDoesNotDecideForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		pair := v.Upgraded(call(t), home, account, oauth.login("a"))
		time.Sleep(2 * time.Hour)
		unlock, err := v.lock(t.Context(), ptr(keys.Namers()[0].Record(home, seal.OfAccount, account)), 1) // as another instance does
		if err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := v.Refresh(ctx, home, pair.PrivateKey, pair.AuthToken, oauth.ask); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		wait.Go(func() {
			if _, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(4 * time.Second)
		unlock()
		wait.Wait()
		if oauth.times() != 1 {
			t.Errorf("asked %d times", oauth.times())
		}
	})
}

func ptr[T any](value T) *T { return &value }

func TestAPanicOfWhoAsksLeavesNoLock(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	v := open(t, keys, s)
	pair := v.Upgraded(call(t), home, account, oauth.login("a"))
	for _, key := range []string{pair.PrivateKey, "unknown"} {
		_, err := v.Refresh(call(t), home, key, pair.AuthToken, func(context.Context, string, func() bool) (Tokens, error) { panic("x") })
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		for deadline := time.Now().Add(10 * time.Second); s.lockedNow() != 0; time.Sleep(time.Millisecond) { // it is let go after the answer
			if time.Now().After(deadline) {
				t.Fatalf("%d locks are left", s.lockedNow())
			}
		}
	}
}

// A storage's lock can be taken from an instance that was thought dead. What the server then refuses is a token whose
// time is over, and no reason to sign anybody out.
func TestARefusalOfATokenWhoseTimeIsOverIsNone(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	v, other := open(t, keys, s), open(t, keys, s)
	pair := v.Upgraded(call(t), home, account, oauth.login("a"))
	got, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, func(ctx context.Context, _ string, _ func() bool) (Tokens, error) {
		clear(s.locks)
		if _, err := other.Refresh(ctx, home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
			t.Error(err)
		}
		return Tokens{}, errRefused
	})
	if err != nil || got.AuthToken == pair.AuthToken {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestOperationsAreBoundedAndObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		seen := map[string]int{}
		var mu sync.Mutex
		keys := sealtest.NewKeys(t)
		v := New(Config{Keys: func() *seal.Keys { return keys }, Storage: at(s), Observe: func(op, result string, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			seen[op+" "+result]++
		}})
		s.fails(hang("load", time.Minute))
		var wait sync.WaitGroup
		for i := range store.MaxOperations + 10 {
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _ = v.Refresh(ctx, home, handleOf(&keys.Namers()[0], fmt.Sprint(i)), "", nil)
			})
		}
		wait.Wait()
		if seen["load late"] != store.MaxOperations || seen["load failed"] != 10 {
			t.Errorf("seen %v", seen)
		}
		time.Sleep(time.Hour)
	})
}

func TestAPanicOfTheStorageIsLoggedAndGivesItsPlaceBack(t *testing.T) {
	s, keys := newStorage(), sealtest.NewKeys(t)
	core, logs := observer.New(zap.InfoLevel)
	v := New(Config{Keys: func() *seal.Keys { return keys }, Storage: at(s), Logger: zap.New(core)})
	s.fails(panics("list"))
	for range store.MaxOperations + 1 {
		if _, err := v.Failures(t.Context(), account, time.Time{}); !errors.Is(err, ErrUnavailable) || !v.Failing() {
			t.Fatal(err)
		}
	}
	said := logs.FilterMessage("the storage panicked").All()
	if len(said) != store.MaxOperations+1 || !strings.Contains(fmt.Sprintf("%s", said[0].ContextMap()["stack"]), "memoryStorage") {
		t.Errorf("%d lines, the first %v", len(said), said)
	}
	s.fails(nil)
	if _, err := v.Failures(t.Context(), account, time.Time{}); err != nil {
		t.Error(err)
	}
}

// lateLocks gives locks when nobody waits for them any more, and takes none back.
type lateLocks struct{ *memoryStorage }

func (s lateLocks) Lock(ctx context.Context, lock string) error {
	<-ctx.Done()
	time.Sleep(time.Second)
	return s.memoryStorage.Lock(context.WithoutCancel(ctx), lock)
}

func (lateLocks) Unlock(context.Context, string) error { panic("a mistake in the storage") }

func TestALockThatComesTooLateMayPanicWhenItIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		pair := open(t, keys, s).Upgraded(call(t), home, account, oauth.login("a"))
		time.Sleep(2 * time.Hour)
		core, logs := observer.New(zap.InfoLevel)
		v := New(Config{Keys: func() *seal.Keys { return keys }, Storage: at(lateLocks{s}), Logger: zap.New(core)})
		if _, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if logs.FilterMessage("the storage panicked").Len() == 0 {
			t.Error("it did not")
		}
	})
}

func handleOf(n *seal.Namer, home string) string {
	m := n.Record(home, seal.OfAccount, account)
	return m.Handle()
}

// The mark says no more than that there was something. One that is damaged, or that another key has sealed, keeps nobody
// from being upgraded.
func TestAMarkThatCannotBeReadIsNoObstacle(t *testing.T) {
	for name, spoil := range map[string]func(*memoryStorage, string){
		"damaged": func(s *memoryStorage, key string) { s.objects[key] = memoryObject{[]byte("x"), time.Now()} },
		"of another key": func(s *memoryStorage, key string) {
			sealed, err := sealtest.NewKeys(t).SealObject(map[string]time.Time{"created_at": time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			s.objects[key] = memoryObject{sealed, time.Now()}
		},
	} {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		spoil(s, store.MarkKey(&keys.Namers()[0]))
		if got := open(t, keys, s).Upgraded(call(t), home, account, oauth.login("a")); !got.Kept || got.Unsaved != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
