package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/census"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
)

const day = 24 * time.Hour

func TestRecordsThatNobodyUsesAreForgottenWithinADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		const homes = 300
		for i := range homes {
			v.Upgraded(t.Context(), fmt.Sprint(i), account, oauth.login("a"))
		}
		old := oauth.login("b")
		if _, err := v.Refresh(t.Context(), "old", old.Refresh, old.Access, oauth.ask); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * day)
		used := handleOf(&v.config.Keys().Namers()[0], "7")
		if _, err := v.Refresh(t.Context(), "7", used, "", oauth.ask); err != nil {
			t.Fatal(err)
		}
		long := oauth.login("long")
		long.Life = 1000 * day // in use all along, and never refreshed
		v.Upgraded(t.Context(), "long", account, long)
		s.objects[keys.Namers()[0].Shard(seal.Records, 0)+"/else"] = memoryObject{} // none of ours
		time.Sleep(190 * day)
		if total := forgetFor(t, v, 24); total.Removed != 0 || total.Records != homes+2 {
			t.Errorf("after 390 days: %+v", total)
		}
		time.Sleep(11 * day)
		ctx, cancel := context.WithTimeout(t.Context(), day+10*time.Minute)
		defer cancel()
		removed, most := 0, 0
		var mu sync.Mutex
		v.Run(ctx, func(f Forgotten, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			removed, most = removed+f.Removed, max(most, f.Seen)
		})
		if removed != homes || len(s.keys(seal.Records)) != 3 || len(s.keys("tokens")) != 0 || most > homes/4 {
			t.Errorf("removed %d, %d at once at most, left %v %v", removed, most, s.keys(seal.Records), s.keys("tokens"))
		}
		if s.lockedNow() != 0 {
			t.Error("a lock is left")
		}
	})
}

// forgetFor forgets for so many hours.
func forgetFor(t *testing.T, v *Vault, hours int) (total Forgotten) {
	t.Helper()
	for range hours {
		f, err := v.Forget(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total.Seen, total.Removed, total.Records = total.Seen+f.Seen, total.Removed+f.Removed, f.Records
		time.Sleep(time.Hour)
	}
	return total
}

func TestOneInstanceForgetsAtATimeAndTheNextGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		instances := [3]*Vault{open(t, keys, s), open(t, keys, s), open(t, keys, s)}
		for i := range 256 {
			instances[0].Upgraded(t.Context(), fmt.Sprint(i), account, oauth.login("a"))
		}
		seen := 0
		for hour := range 24 {
			if hour == 3 { // fails in the middle
				lists := 0
				s.fails(func(_ context.Context, op, _ string) error {
					if op == "list" {
						if lists++; lists > 5 {
							return errFull
						}
					}
					return nil
				})
				if f, err := instances[0].Forget(t.Context()); !errors.Is(err, ErrUnavailable) {
					t.Errorf("got %+v, %v", f, err)
				} else {
					seen += f.Seen
				}
				s.fails(nil)
			}
			done := map[int]int{}
			var wait sync.WaitGroup
			var mu sync.Mutex
			for _, v := range instances {
				wait.Go(func() {
					f, err := v.Forget(t.Context())
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					done[f.Seen]++
					seen += f.Seen
				})
			}
			wait.Wait()
			if done[0] < 2 {
				t.Errorf("hour %d: by seen records %v", hour, done)
			}
			time.Sleep(time.Hour)
		}
		if seen < 256 || seen > 256+30 {
			t.Errorf("%d records seen in a day", seen)
		}
	})
}

func TestAHomeAndAnAccountCanBeForgotten(t *testing.T) {
	s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
	v := open(t, keys, s)
	for _, h := range []string{"h1", "h2", "h3"} {
		for _, a := range []string{"a1", "a2"} {
			v.Upgraded(t.Context(), h, a, oauth.login(h+a))
		}
	}
	old := oauth.login("b")
	if _, err := v.Refresh(t.Context(), "h1", old.Refresh, old.Access, oauth.ask); err != nil {
		t.Fatal(err)
	}
	if err := v.Failed(t.Context(), "a1", Failure{At: time.Now(), Proof: "p", Network: "n"}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if n, err := v.ForgetHousehold(t.Context(), "h1"); n != 3 || err != nil || len(s.keys("tokens")) != 0 {
		t.Errorf("%d of the home, %v", n, err)
	}
	if n, err := v.ForgetAccount(t.Context(), "a1", "a1"); n != 2 || err != nil || len(s.keys(seal.Failed)) != 0 {
		t.Errorf("%d of the account, %v", n, err)
	}
	if n, err := v.ForgetHousehold(t.Context(), "nobody"); n != 0 || err != nil || len(s.keys(seal.Records)) != 2 {
		t.Errorf("%d of nobody, %v; left %d", n, err, len(s.keys(seal.Records)))
	}
}

func TestASummaryCountsByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		for i, wait := range []time.Duration{500 * day, 5 * day, 0} {
			for j := range i + 1 {
				v.Upgraded(t.Context(), fmt.Sprint(i, j), account, oauth.login("a"))
			}
			time.Sleep(wait)
		}
		damaged := keys.Namers()[0].Record("damaged", seal.OfAccount, account)
		s.objects[damaged.Key()] = memoryObject{[]byte("x"), time.Now()}
		got, err := v.Summarize(t.Context(), true)
		if err != nil || got.Records != 7 || got.Written != [4]int{4, 2, 0, 0} || got.Older != 1 || got.Kids[keys.Kid()] != 6 || got.Unreadable != 1 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestFailedLoginsCountAtEveryInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, keys := newStorage(), sealtest.NewKeys(t)
		instances := [3]*Vault{open(t, keys, s), open(t, keys, s), open(t, keys, s)}
		var wait sync.WaitGroup
		for i := range 6 { // at the same moment, and none is lost
			wait.Go(func() {
				v := instances[i%3]
				f := Failure{At: time.Now(), Proof: v.Digest("proof", fmt.Sprint(i)), Network: v.Digest("network", "n")}
				if err := v.Failed(t.Context(), account, f, time.Now().Add(-time.Hour)); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		for i, v := range instances {
			got, err := v.Failures(t.Context(), account, time.Now().Add(-time.Minute))
			if err != nil || len(got) != 6 || got[0].Network != v.Digest("network", "n") {
				t.Errorf("instance %d: %v, %v", i, got, err)
			}
			elsewhere := 0
			for _, f := range got {
				if f.Elsewhere {
					elsewhere++
				}
			}
			if elsewhere != 4 {
				t.Errorf("instance %d: %d elsewhere", i, elsewhere)
			}
		}
		if got, err := instances[0].Failures(t.Context(), "another", time.Time{}); err != nil || len(got) != 0 {
			t.Errorf("another account: %v, %v", got, err)
		}
		time.Sleep(2 * time.Hour)
		if got, _ := instances[0].Failures(t.Context(), account, time.Now().Add(-time.Hour)); len(got) != 0 {
			t.Errorf("later: %v", got)
		}
		// The next failure takes those away that count no more, and forgetting what is left.
		_ = instances[0].Failed(t.Context(), account, Failure{At: time.Now(), Proof: "p", Network: "n"}, time.Now().Add(-time.Hour))
		if n := len(s.keys(seal.Failed)); n != 1 {
			t.Errorf("%d are left", n)
		}
		forgetFor(t, instances[0], 3)
		if n := len(s.keys(seal.Failed)); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// Accounts can be made up, so that what is kept of them is bounded by how many logins the endpoint can refuse in hours.
func TestFailedLoginsOfAllAccountsAreForgottenEveryHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		v := open(t, sealtest.NewKeys(t), s)
		for i := range 1000 {
			_ = v.Failed(t.Context(), fmt.Sprint("made-up", i), Failure{At: time.Now(), Proof: "p", Network: "n"}, time.Now().Add(-time.Hour))
		}
		forgetFor(t, v, 1)
		if n := len(s.keys(seal.Failed)); n != 1000 {
			t.Errorf("%d are left while they count", n)
		}
		time.Sleep(time.Hour)
		forgetFor(t, v, 1)
		if n := len(s.keys(seal.Failed)); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

func TestRecordsAreCountedByHowTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		for i := range 5 {
			v.Upgraded(t.Context(), fmt.Sprint(i), account, oauth.login("a"))
		}
		for i := range 3 {
			listener := oauth.login("b")
			listener.SignedIn = true
			v.Upgraded(t.Context(), fmt.Sprint(i), "a code", listener)
		}
		old := oauth.login("c")
		if _, err := v.Refresh(t.Context(), "old", old.Refresh, old.Access, oauth.ask); err != nil {
			t.Fatal(err)
		}
		var f Forgotten
		for range 24 {
			if f.Whole {
				t.Fatal("a part is taken for the whole")
			}
			var err error
			if f, err = v.Forget(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if want := (census.Totals{Records: 9, Upgraded: 5, SignedIn: 3, TakenIn: 1, Whole: true}); f.Totals != want {
			t.Errorf("%+v", f.Totals)
		}
	})
}

func TestALargeVaultIsOpenedOnlyInPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, oauth, keys := newStorage(), newServer(), sealtest.NewKeys(t)
		v := open(t, keys, s)
		forgetFor(t, v, 25)
		empty := s.of("load")
		const accounts = 5 * census.MaxOpened // of one home, which are in one shard
		for i := range accounts {
			v.Upgraded(t.Context(), home, fmt.Sprint(i), oauth.login("a"))
		}
		before := s.of("load")
		forgetFor(t, v, 25)
		// In 25 hours, some shards are visited twice.
		if n := s.of("load") - before - empty; n != census.MaxOpened && n != 2*census.MaxOpened {
			t.Errorf("%d objects were read more than of an empty vault", n)
		}
	})
}
