package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// slowRecords has records written too late for their players.
func slowRecords(_ context.Context, op, key string) error {
	if op == "store" && strings.Contains(key, "/records/") {
		time.Sleep(4 * time.Second)
	}
	return nil
}

// The first pair of an account goes out as it came where the storage is slow, and its record is removed when it is written after
// all. Whoever was given the handle meanwhile keeps it.
func TestWhoeverHasAHandleKeepsItHoweverLateARecordIs(t *testing.T) {
	for _, same := range []bool{false, true} {
		for after := time.Duration(0); after < 14*time.Second; after += 250 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
				v, other := open(t, keys, s), open(t, keys, s)
				var once sync.Once
				s.fails(func(ctx context.Context, op, key string) error {
					if op == "delete" {
						time.Sleep(2 * time.Second)
					} else if op == "store" && strings.Contains(key, "/records/") {
						once.Do(func() { _ = slowRecords(ctx, op, key) })
					}
					return nil
				})
				tokens := oauth.login("a")
				tokens.Obtained = time.Now()
				var wait sync.WaitGroup
				var pairs [3]Result
				wait.Go(func() { pairs[0] = v.Upgraded(call(t), home, account, tokens) })
				wait.Go(func() {
					time.Sleep(after)
					later := tokens
					if !same {
						later = oauth.login("b")
					}
					pairs[1] = other.Upgraded(call(t), home, account, later)
				})
				wait.Go(func() {
					time.Sleep(after)
					pairs[2], _ = other.Recent(call(t), home, account, tokens.Obtained)
				})
				wait.Wait()
				time.Sleep(time.Minute)
				s.fails(nil)
				time.Sleep(2 * time.Hour)
				for i, pair := range pairs {
					if !pair.Kept {
						continue
					}
					if _, err := other.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
						t.Errorf("same %v, after %v: player %d is told %v", same, after, i, err)
					}
				}
				synctest.Wait()
				if s.lockedNow() != 0 {
					t.Error("a lock is left")
				}
			})
		}
	}
}

// A record that was there is somebody's, however late it is written again and however many wait to be.
func TestARecordThatIsWrittenAgainTooLateStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		var pairs []Result
		const homes = 4096 + 2 // more than are kept in memory
		for i := range homes {
			pairs = append(pairs, v.Upgraded(call(t), fmt.Sprint(home, i), account, oauth.login(fmt.Sprint(i))))
		}
		time.Sleep(2 * time.Hour)
		s.fails(during("store"))
		var wait sync.WaitGroup
		for i := range homes {
			if i == homes-2 {
				wait.Wait()
				s.fails(slowRecords)
			}
			wait.Go(func() { v.Upgraded(call(t), fmt.Sprint(home, i), account, oauth.login(fmt.Sprint(i))) })
		}
		wait.Wait()
		time.Sleep(time.Minute)
		s.fails(nil)
		time.Sleep(time.Hour)
		for i, pair := range pairs {
			if _, err := v.Refresh(call(t), fmt.Sprint(home, i), pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
				t.Fatalf("home %d: %v", i, err)
			}
		}
	})
}

// fickle gives a lock back at the second try.
func fickle() func(context.Context, string, string) error {
	var mu sync.Mutex
	tried := map[string]bool{}
	return func(_ context.Context, op, key string) error {
		mu.Lock()
		defer mu.Unlock()
		if op != "unlock" || tried[key] {
			return nil
		}
		tried[key] = true
		return errors.New("connection reset")
	}
}

// asFiles is a storage that is taken for a file system.
type asFiles struct{ *memoryStorage }

func (asFiles) Filename(key string) string { return key }

var _ = asFiles{}.Filename(new(certmagic.FileStorage).Filename("")) // which has it

// Where an operation that failed may have been done, the lock may be somebody else's since.
func TestALockThatMayHaveBeenGivenBackIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, keys := newStorage(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		unlock, err := v.store.Lock(t.Context(), "lock")
		if err != nil {
			t.Fatal(err)
		}
		s.fails(func(ctx context.Context, op, lock string) error {
			if op == "unlock" {
				s.fails(nil)
				_ = s.Unlock(ctx, lock)
				return errors.New("connection reset when it was done")
			}
			return nil
		})
		unlock()
		if err := s.Lock(t.Context(), "lock"); err != nil { // as another instance does
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if s.lockedNow() != 1 {
			t.Error("the lock of the other instance was given back")
		}
	})
}

func TestALockThatCouldNotBeGivenBackIsGivenBackSoon(t *testing.T) {
	for name, fault := range map[string]func(context.Context, string, string) error{"fails once": fickle(), "is busy": nil} {
		synctest.Test(t, func(t *testing.T) {
			s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
			v, other := open(t, keys, asFiles{s}), open(t, keys, s)
			pair := v.Upgraded(call(t), home, account, oauth.login("a"))
			time.Sleep(2 * time.Hour)
			s.fails(fault)
			refused := func(context.Context, string, func() bool) (Tokens, error) {
				if fault == nil { // as many operations hang as there is room for
					s.fails(hang("stat", time.Minute))
					for range store.MaxOperations {
						go func() { _, _ = v.store.Stat(t.Context(), "x") }()
					}
					synctest.Wait()
				}
				return Tokens{}, errRefused
			}
			if _, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, refused); err == nil {
				t.Error("it was not refused")
			}
			time.Sleep(time.Second)
			if _, err := other.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			time.Sleep(time.Hour)
			if s.lockedNow() != 0 {
				t.Errorf("%s: a lock is left", name)
			}
		})
	}
}

// keepsLocks is a storage that takes no lock back.
type keepsLocks struct{ *memoryStorage }

func (keepsLocks) Unlock(context.Context, string) error { return errFull }

func TestALockThatIsNotTakenBackIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := sealtest.NewKeys(t)
		core, logs := observer.New(zap.InfoLevel)
		v := New(Config{Keys: func() *seal.Keys { return keys }, Storage: at(keepsLocks{newStorage()}), Logger: zap.New(core)})
		v.Upgraded(call(t), home, account, newServer().login("a"))
		time.Sleep(time.Hour)
		if logs.FilterMessage("a lock of the storage could not be given back").Len() != 1 {
			t.Errorf("logged: %v", logs.All())
		}
	})
}

// A lock that is not kept fresh while the storage fails is taken for a dead process's. So tokens are written as soon as it works.
func TestTokensThatWaitAreWrittenAsSoonAsTheStorageWorks(t *testing.T) {
	for _, outage := range []time.Duration{10 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
			v := open(t, keys, s)
			const homes = 300
			var pairs []Result
			for i := range homes {
				pairs = append(pairs, v.Upgraded(call(t), fmt.Sprint(home, i), account, oauth.login(fmt.Sprint(i))))
			}
			time.Sleep(2 * time.Hour)
			var all sync.WaitGroup
			for i, pair := range pairs {
				all.Go(func() {
					_, err := v.Refresh(call(t), fmt.Sprint(home, i), pair.PrivateKey, pair.AuthToken, func(ctx context.Context, token string, ready func() bool) (Tokens, error) {
						time.Sleep(time.Second)
						s.fails(during("store", "unlock"))
						return oauth.ask(ctx, token, ready)
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if v.Pending() != homes {
				t.Errorf("%d wait", v.Pending())
			}
			time.Sleep(outage)
			s.fails(nil)
			time.Sleep(1500 * time.Millisecond)
			if n := v.Pending(); n != 0 {
				t.Errorf("after an outage of %v, %d still wait", outage, n)
			}
		})
	}
}

func TestAClockThatIsAheadTakesNoTokensAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		ahead := New(Config{Keys: func() *seal.Keys { return keys }, Storage: at(s), Now: func() time.Time { return time.Now().Add(time.Hour) }})
		first := ahead.Upgraded(call(t), home, account, withFields(oauth.login("a")))
		issued := oauth.login("b")
		if got := v.Upgraded(call(t), home, account, issued); got.AuthToken != issued.Access {
			t.Errorf("the player has %q, and was issued %q", got.AuthToken, issued.Access)
		}
		o, err := ahead.Open(call(t), first.Reference, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ahead.Bury(call(t), o); err != nil {
			t.Fatal(err)
		}
		issued = oauth.login("c")
		if got := v.Upgraded(call(t), home, account, issued); got.AuthToken != issued.Access {
			t.Errorf("after it was dead, the player has %q, and was issued %q", got.AuthToken, issued.Access)
		}
		if o, err = v.Open(call(t), first.Reference, true); err != nil || o.Dead {
			t.Errorf("it is dead still: %+v, %v", o, err)
		}
	})
}

func TestARefusalIsNoneWhereTheStorageDoesNotSayWhetherTheRecordHasChanged(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	v := open(t, keys, s)
	pair := v.Upgraded(call(t), home, account, oauth.login("a"))
	_, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, func(context.Context, string, func() bool) (Tokens, error) {
		s.fails(during("load"))
		return Tokens{}, errRefused
	})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestARecordThatIsUsedJustNowIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v, other := open(t, keys, s), open(t, keys, s)
		pair := v.Upgraded(call(t), home, account, oauth.login("a"))
		time.Sleep(401 * day)
		oauth.takes = 5 * time.Second
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		m := keys.Namers()[0].Record(home, seal.OfAccount, account)
		if counted, removed, err := other.forgetShard(t.Context(), m.Namer(), m.Home[0]); err != nil || removed != 0 || counted.Records != 1 {
			t.Errorf("%d forgotten of %d, %v", removed, counted.Records, err)
		}
		wait.Wait()
		if _, err := v.Refresh(call(t), home, pair.PrivateKey, "", oauth.ask); err != nil {
			t.Error(err)
		}
	})
}

func TestAMarkThatCannotBeReadIsNoProofOfALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		pair := v.Upgraded(call(t), home, account, oauth.login("a"))
		time.Sleep(48 * time.Hour)
		if _, err := v.ForgetHousehold(call(t), home); err != nil {
			t.Fatal(err)
		}
		s.objects[store.MarkKey(&keys.Namers()[0])] = memoryObject{[]byte("x"), time.Now()}
		if _, err := v.Refresh(call(t), home, pair.PrivateKey, "", oauth.ask); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// An account that was forgotten and upgraded again begins anew, also in the memory of who had it open.
func TestAnAccountThatWasForgottenIsNotInMemoryAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		here, elsewhere := open(t, keys, s), open(t, keys, s)
		var token string
		for range 3 {
			token = here.Upgraded(call(t), home, account, withFields(oauth.login("a"))).Reference
			time.Sleep(time.Second)
		}
		if _, err := elsewhere.ForgetHousehold(call(t), home); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		again := oauth.login("a")
		again.Fields = map[string]string{"smapi.password": "another"}
		elsewhere.Upgraded(call(t), home, account, again)
		if o, err := here.Open(call(t), token, true); err != nil || o.Fields["smapi.password"] != "another" {
			t.Errorf("here it is still %+v, %v", o, err)
		}
	})
}

// recursive lists what is in folders, too, and no folders, as some object stores do.
type recursive struct{ *memoryStorage }

func (s recursive) List(_ context.Context, folder string, _ bool) (keys []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.objects {
		if strings.HasPrefix(key, folder+"/") {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func TestAStorageThatListsWhatIsInFoldersForgetsOnlyWhatIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, keys := newStorage(), sealtest.NewKeys(t)
		v := open(t, keys, recursive{s})
		for range 3 {
			time.Sleep(25 * time.Hour)
			if err := v.Failed(call(t), account, Failure{At: time.Now(), Proof: "p", Network: "n"}, time.Now().Add(-day)); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.forgetFailed(t.Context(), &keys.Namers()[0]); err != nil {
			t.Fatal(err)
		}
		if n := len(s.keys("failed")); n != 1 {
			t.Errorf("%d are left of one that counts and two that do not", n)
		}
	})
}

// shifted is a storage whose clock is another.
type shifted struct {
	*memoryStorage
	by time.Duration
}

func (s shifted) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	info, err := s.memoryStorage.Stat(ctx, key)
	info.Modified = info.Modified.Add(s.by)
	return info, err
}

func TestClocksThatAreApartAreFoundByTrying(t *testing.T) {
	keys := sealtest.NewKeys(t)
	for by, want := range map[time.Duration]string{
		0: "<nil>", 2 * time.Second: "<nil>",
		time.Minute:  "its clock and that of this machine are 1m0s apart: locks need them to be the same",
		-time.Minute: "its clock and that of this machine are 1m0s apart: locks need them to be the same",
	} {
		if got := fmt.Sprint(open(t, keys, shifted{newStorage(), by}).Try(call(t))); got != want {
			t.Errorf("%v: %s", by, got)
		}
	}
}

// Another record that is late may be there when somebody looks again: only under the lock is it the one that stays.
func TestAHandleIsGivenOutOnlyOfARecordThatStays(t *testing.T) {
	for _, same := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
			first, looks, another := open(t, keys, s), open(t, keys, s), open(t, keys, s)
			type slow struct{}
			var stores, loads atomic.Int32
			s.fails(func(ctx context.Context, op, key string) error {
				switch {
				case !strings.Contains(key, "/records/"):
				case op == "delete":
					time.Sleep(2 * time.Second)
				case op == "store" && stores.Add(1) <= 2:
					time.Sleep(4 * time.Second)
				case op == "load" && ctx.Value(slow{}) != nil && loads.Add(1) == 2:
					time.Sleep(5 * time.Second)
				}
				return nil
			})
			tokens := oauth.login("a")
			tokens.Obtained = time.Now()
			var all sync.WaitGroup
			all.Go(func() { first.Upgraded(call(t), home, account, tokens) })
			all.Go(func() {
				time.Sleep(6500 * time.Millisecond)
				another.Upgraded(call(t), home, account, oauth.login("b"))
			})
			time.Sleep(4500 * time.Millisecond)
			ctx := context.WithValue(call(t), slow{}, true)
			var pair Result
			if same {
				pair = looks.Upgraded(ctx, home, account, tokens)
			} else {
				pair, _ = looks.Recent(ctx, home, account, tokens.Obtained)
			}
			all.Wait()
			time.Sleep(time.Minute)
			s.fails(nil)
			time.Sleep(48 * time.Hour)
			if _, err := looks.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); pair.Kept && err != nil {
				t.Errorf("same %v: %v", same, err)
			}
		})
	}
}

func TestAStorageThatFailsIsTriedOnceASecondHoweverManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		const homes = 500
		for i := range homes {
			v.Upgraded(call(t), fmt.Sprint(home, i), account, oauth.login(fmt.Sprint(i)))
		}
		time.Sleep(2 * time.Hour)
		s.fails(during("store"))
		for i := range homes {
			go v.Upgraded(call(t), fmt.Sprint(home, i), account, oauth.login(fmt.Sprint(i)))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		before := s.of("store")
		time.Sleep(time.Minute)
		if n := s.of("store") - before; v.Pending() != homes || n > 61 {
			t.Errorf("%d wait, and %d writes were tried in a minute", v.Pending(), n)
		}
		// Writes that hang then are in nobody's way.
		var hang atomic.Int32
		s.fails(func(_ context.Context, op, key string) error {
			if op == "store" && strings.Contains(key, "/records/") && hang.Add(1) <= 200 {
				time.Sleep(day)
			}
			return nil
		})
		time.Sleep(time.Minute)
		if n := v.Pending(); n != 200 {
			t.Errorf("%d are not written", n)
		}
		time.Sleep(2 * day)
	})
}

func TestAMarkThatIsDamagedIsLeftAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		v.Upgraded(call(t), home, account, oauth.login("a"))
		mark := store.MarkKey(&keys.Namers()[0])
		for _, content := range [][]byte{[]byte("x"), nil} {
			if delete(s.objects, mark); content != nil {
				s.objects[mark] = memoryObject{content, time.Now()}
			}
			if _, err := v.Refresh(call(t), "forgotten", handleOf(&keys.Namers()[0], "forgotten"), "", oauth.ask); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
			v.Upgraded(call(t), home, account, oauth.login("a"))
			if err := v.store.Read(t.Context(), mark, new(struct{})); err != nil {
				t.Errorf("%q: %v", content, err)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestTryingASlowStorageFindsNoClocksApartAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, keys := newStorage(), sealtest.NewKeys(t)
		s.fails(func(_ context.Context, op, _ string) error {
			if op == "stat" || op == "load" {
				time.Sleep(3 * time.Second)
			}
			return nil
		})
		if err := open(t, keys, s).Try(call(t)); err != nil {
			t.Error(err)
		}
		if err := open(t, keys, shifted{s, time.Hour}).Try(call(t)); err == nil || len(s.objects) != 0 {
			t.Errorf("%v, and %d objects are left", err, len(s.objects))
		}
	})
}

// An instance with newer keys uses a record that this one cannot open any more, at the moment when it is to be forgotten.
func TestARecordThatNewerKeysHaveJustSealedIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth := newStorage(), newServer()
		text, err := seal.GenerateKeys(nil)
		if err != nil {
			t.Fatal(err)
		}
		more, err := seal.GenerateKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		keys := parseKeys(t, text)
		old, newer := open(t, keys, s), open(t, parseKeys(t, more), s)
		pair := old.Upgraded(call(t), home, account, oauth.login("a"))
		time.Sleep(401 * day)
		var loads atomic.Int32
		s.fails(func(_ context.Context, op, key string) error {
			if op == "load" && strings.Contains(key, "/records/") && loads.Add(1) == 2 {
				s.fails(nil)
				if _, err := newer.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		m := keys.Namers()[0].Record(home, seal.OfAccount, account)
		if _, removed, err := old.forgetShard(t.Context(), m.Namer(), m.Home[0]); err != nil || removed != 0 {
			t.Errorf("%d forgotten, %v", removed, err)
		}
		if _, err := newer.Refresh(call(t), home, pair.PrivateKey, "", oauth.ask); err != nil {
			t.Error(err)
		}
	})
}
