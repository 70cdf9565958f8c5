package exchange

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token/tokentest"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
)

// listing is a storage in which List does as it is told. Looking at failures begins with it.
type listing struct {
	certmagic.Storage
	list func() error
}

func (s *listing) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	if err := s.list(); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, path, recursive)
}

// kept is an exchanger with a vault, whose token endpoint issues.
func kept(t *testing.T, list func() error) exchanging {
	t.Helper()
	e, _ := keptBeside(t, list)
	return e
}

// keptBeside is kept, and the vault of another instance.
func keptBeside(t *testing.T, list func() error) (e exchanging, other *vault.Vault) {
	t.Helper()
	keys, storage := sealtest.NewKeys(t), &listing{&certmagic.FileStorage{Path: t.TempDir()}, list}
	config := vault.Config{
		Keys:        func() *seal.Keys { return keys },
		Storage:     func() certmagic.Storage { return storage },
		ForgetAfter: func() time.Duration { return time.Hour },
	}
	e = at(stub(func(url.Values) (int, http.Header, string) { return 200, nil, issued }), guarded)
	e.Vault = vault.New(config)
	return e, vault.New(config)
}

func TestNoMoreThanHavePlacesLookAtTheVault(t *testing.T) {
	var looking, most atomic.Int32
	e := kept(t, func() error {
		n := looking.Add(1)
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
		time.Sleep(time.Millisecond)
		looking.Add(-1)
		return nil
	})
	var all sync.WaitGroup
	for i := range 3000 {
		all.Go(func() {
			q := guessing("ella"+strconv.Itoa(i), "x", "home", "network")
			if r := e.Exchange(context.Background(), time.Now().Add(time.Minute), q); r.Class != token.Issued {
				t.Errorf("%+v", r)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n > int32(e.Places) {
		t.Errorf("%d looked at once", n)
	}
}

func TestAStorageThatHangsIsSoonInNobodyElsesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := kept(t, func() error { time.Sleep(time.Hour); return nil })
		for range 2 * e.Places {
			go e.Exchange(context.Background(), soon(), guessing("ella", rand.Text(), "home", "network"))
		}
		synctest.Wait()
		if r := e.Exchange(context.Background(), soon(), refreshOf("key")); r.Class != token.Issued || r.Waited > 0 {
			t.Errorf("a refresh: %+v", r)
		}
		if r := e.Exchange(context.Background(), soon(), login("session", "id")); r.Class != token.Issued || r.Waited > 2*maxLook {
			t.Errorf("a login that looks at nothing: %+v", r)
		}
		time.Sleep(2 * time.Hour)
	})
}

// Who follows has more time than who leads, also while that looks at the vault.
func TestALookAtTheVaultHasNotTheTimeOfWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := kept(t, func() error { time.Sleep(time.Second); return nil })
		q := guessing("ella", "x", "home", "network")
		go e.Exchange(context.Background(), time.Now().Add(500*time.Millisecond), q)
		synctest.Wait()
		if r := e.Exchange(context.Background(), soon(), q); r.Class != token.Issued {
			t.Errorf("got %+v", r)
		}
		time.Sleep(time.Minute)
	})
}

// What other instances know of an account is found in a place, and then known for a while: a stranger who guesses on holds none.
func TestGuessesAtAnAccountThatIsGuardedElsewhereHoldNoPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		e, other := keptBeside(t, func() error { looks.Add(1); time.Sleep(20 * time.Millisecond); return nil })
		for i := range 4 {
			if err := other.Failed(t.Context(), "ella", vault.Failure{At: time.Now(), Proof: strconv.Itoa(i), Network: "n"}, time.Now().Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		looks.Store(0)
		for range 4000 {
			go e.Exchange(context.Background(), soon(), guessing("ella", rand.Text(), "home", "network"))
			time.Sleep(time.Millisecond)
		}
		if r := e.Exchange(context.Background(), soon(), login("session", "id")); r.Class != token.Issued || r.Waited > time.Second {
			t.Errorf("another login: %+v", r)
		}
		if n := looks.Load(); n > 100 {
			t.Errorf("%d looks", n)
		}
		time.Sleep(time.Hour)
	})
}

// The time that a vault takes is not the token endpoint's.
func TestASlowStorageIsNotTheEndpointsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := kept(t, func() error { time.Sleep(maxLook - time.Millisecond); return nil })
		e.Fair, e.Places = time.Second, 64
		e.Endpoint = at(tokentest.Stub(func(url.Values) (int, http.Header, string) { time.Sleep(time.Hour); return 500, nil, "" })).Endpoint
		for i := range 40 {
			go e.Exchange(context.Background(), time.Now().Add(maxLook+500*time.Millisecond), guessing("x"+strconv.Itoa(i), "x", "home", "n"+strconv.Itoa(i)))
		}
		time.Sleep(time.Minute)
		if s := e.State.Logins.Status(); s.Breaker != "closed" {
			t.Errorf("the breaker is %s", s.Breaker)
		}
		time.Sleep(2 * time.Hour)
	})
}

func TestAPanicOfTheStorageEndsTheFlightAndGivesItsPlaceBack(t *testing.T) {
	e := kept(t, nil)
	e.Vault = new(vault.Vault) // which has nothing that it needs
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		e.Exchange(context.Background(), soon(), guessing("ella", "x", "home", "network"))
	}()
	if n := e.State.Logins.Status().InFlight; n != 0 {
		t.Errorf("%d have places for ever", n)
	}
	e.Vault = nil
	if r := e.Exchange(context.Background(), soon(), guessing("ella", "x", "home", "network")); r.Class != token.Issued {
		t.Errorf("after it: %+v", r)
	}
}

// The emergency brake of the handbook: what the operator takes for something else must not be told as a rejection by the way round
// through the vault.
func TestWhatIsNoRejectionByOnErrorIsNoneElsewhereEither(t *testing.T) {
	refuses := stub(func(url.Values) (int, http.Header, string) { return 400, nil, `{"error":"invalid_grant"}` })
	ask := func(e exchanging, class token.Class) Result {
		q := guessing("ella", "right", "home", "network")
		if class != "" {
			q.OnError = map[string]token.Class{"invalid_grant": class}
		}
		return e.Exchange(context.Background(), soon(), q)
	}
	for _, class := range []token.Class{token.Unavailable, token.Misconfigured} {
		t.Run(string(class), func(t *testing.T) {
			v := kept(t, func() error { return nil }).Vault
			instance := func() exchanging {
				e := at(refuses, guarded)
				e.Vault = v
				return e
			}
			here := instance()
			for range 3 {
				if r := ask(here, class); r.Class != class {
					t.Errorf("here: %+v", r)
				}
			}
			if r := ask(instance(), class); r.Class == token.Rejected {
				t.Errorf("at another instance: %+v", r)
			}
		})
		t.Run(string(class)+", after it was one", func(t *testing.T) {
			v := kept(t, func() error { return nil }).Vault
			for i, now := range []token.Class{"", class} {
				e := at(refuses, guarded)
				e.Vault = v
				if r := ask(e, now); (r.Class == token.Rejected) != (i == 0) {
					t.Errorf("with on_error %q: %+v", now, r)
				}
			}
		})
	}
}

// Between its place and its POST a login can lose all of its time, to a vault that answers slowly.
func TestNothingIsSentThatCannotBeAnsweredInTime(t *testing.T) {
	for name, slow := range map[string]func(*exchanging, *Request, time.Duration){
		"the look at the vault": func(e *exchanging, _ *Request, d time.Duration) {
			begun := time.Now()
			e.Vault = kept(t, func() error {
				if passed := time.Since(begun); passed > time.Second {
					time.Sleep(d - passed)
				}
				return nil
			}).Vault
		},
		"being ready": func(_ *exchanging, q *Request, d time.Duration) {
			begun := time.Now()
			q.Ready = func() bool { time.Sleep(d - time.Since(begun)); return true }
		},
	} {
		for left, sent := range map[time.Duration]int32{time.Second: 1, 50 * time.Millisecond: 0, -10 * time.Millisecond: 0} {
			synctest.Test(t, func(t *testing.T) {
				var posts atomic.Int32
				e := at(stub(func(url.Values) (int, http.Header, string) {
					posts.Add(1)
					time.Sleep(2 * time.Second)
					return 200, nil, issued
				}), guarded, func(c *config) { c.Fair = 5 * time.Second; c.MaxInFlight = 1 })
				go e.Exchange(context.Background(), soon(), login("another", "x")) // which has the place
				synctest.Wait()
				q := guessing("ella", "x", "home", "network")
				q.Deadline = time.Now().Add(4 * time.Second)
				slow(&e, &q, 4*time.Second-left)
				e.Exchanger.Exchange(context.Background(), &q)
				time.Sleep(time.Minute)
				if posts.Load() != 1+sent {
					t.Errorf("%s, with %v left: %d were sent", name, left, posts.Load()-1)
				}
			})
		}
	}
}
