package history

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// shared is a storage in files that instances share, and what they log.
type shared struct {
	*certmagic.FileStorage
	keys   atomic.Pointer[seal.Keys]
	hang   chan struct{} // until when it does, nil where it does not
	stored atomic.Int64
	log    *observer.ObservedLogs
	logger *zap.Logger
}

func newShared(t testing.TB) *shared {
	s := &shared{FileStorage: &certmagic.FileStorage{Path: t.TempDir()}}
	s.keys.Store(sealtest.NewKeys(t))
	var core zapcore.Core
	core, s.log = observer.New(zap.DebugLevel)
	s.logger = zap.New(core)
	return s
}

func (s *shared) hangs() {
	if s.hang != nil {
		<-s.hang
	}
}

func (s *shared) Load(ctx context.Context, key string) ([]byte, error) {
	s.hangs()
	return s.FileStorage.Load(ctx, key)
}

func (s *shared) Store(ctx context.Context, key string, content []byte) error {
	s.hangs()
	s.stored.Add(1)
	return s.FileStorage.Store(ctx, key, content)
}

func (s *shared) folder() store.Folder {
	return store.New(store.Config{
		Keys: s.keys.Load, Storage: func() certmagic.Storage { return s }, Instance: "process", Now: time.Now,
	}).Folder("history")
}

// file is where an instance keeps what it has.
func (s *shared) file(instance string) string {
	return filepath.Join(s.Path, "history", instance+seal.Extension)
}

// keeps has an instance keep a history, until the test ends.
func (s *shared) keeps(t testing.TB, instance string, h *History) *Keeper {
	return NewKeeper(KeeperConfig{
		History: h, Folder: s.folder, Instance: func() (string, error) { return instance, nil },
		Logger: func() *zap.Logger { return s.logger }, Now: time.Now,
	})
}

// end is the end of a process that is given a second for it.
func end(t testing.TB, k *Keeper) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	k.Close(ctx)
}

func looks() {
	time.Sleep(lookEvery + firstLook)
	synctest.Wait()
}

func TestAnInstanceGoesOnWhereItsLastProcessStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := newShared(t), New(time.Now())
		begun := first.Since()
		k := s.keeps(t, "one", first)
		for i := range 3 {
			first.Add(flow.Upgraded, time.Now())
			first.Accounts.Note(Upgraded, digest(i))
		}
		looks()
		first.Add(flow.Rejected, time.Now()) // of the last ten minutes
		for _, reference := range []string{"1", "2", "3", "4"} {
			first.Faults.Add(Fault{At: time.Now(), Reference: reference, Outcome: flow.Unavailable})
			time.Sleep(time.Second)
		}
		end(t, k)

		time.Sleep(time.Hour)
		second := New(time.Now())
		second.Add(flow.Upgraded, time.Now()) // before it has looked
		second.Accounts.Note(Upgraded, digest(0))
		second.Faults.Add(Fault{At: time.Now(), Reference: "5", Outcome: flow.Unavailable})
		k = s.keeps(t, "one", second)
		looks()
		check := func(when string) {
			t.Helper()
			total, lately, _ := second.Sums(time.Now())
			day, steps := second.Day(time.Now()), map[flow.Outcome]uint32{}
			for o, counts := range day.Counts {
				for _, n := range counts {
					steps[o] += n
				}
			}
			if total[flow.Upgraded] != 4 || total[flow.Rejected] != 1 || steps[flow.Upgraded] != 4 || steps[flow.Rejected] != 1 ||
				lately[flow.Rejected] != 0 || second.Accounts.Estimate() != (Estimate{Upgraded: 3}) || !second.Since().Equal(begun) {
				t.Errorf("%s: %v in all, %v of the day, %+v since %v", when, total, steps, second.Accounts.Estimate(), second.Since())
			}
			last := ""
			for _, fault := range second.Faults.Of(flow.Unavailable) {
				last += fault.Reference
			}
			if last != "5432" {
				t.Errorf("%s: the last faults are %s", when, last)
			}
		}
		check("after the restart")
		end(t, k)
		k = s.keeps(t, "one", second) // a configuration without it, and one with it
		looks()
		check("after it was taken out and put back")
		end(t, k)
		if s.log.Len() != 0 {
			t.Errorf("%v", s.log.All())
		}
	})
}

func TestTheLastFiveMinutesOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := newShared(t), New(time.Now())
		k := s.keeps(t, "one", first)
		note := func(h *History, o flow.Outcome, took time.Duration) {
			h.Add(o, time.Now())
			h.Exchanges.Note(took, time.Now())
		}
		note(first, flow.Doubted, time.Second)
		time.Sleep(3 * time.Minute)
		note(first, flow.Rejected, 2*time.Second)
		end(t, k)
		time.Sleep(3 * time.Minute)
		second := New(time.Now())
		k = s.keeps(t, "one", second)
		defer end(t, k)
		note(second, flow.Upgraded, 3*time.Second)
		time.Sleep(2 * firstLook)
		synctest.Wait()
		_, lately, steps := second.Sums(time.Now())
		times := second.Exchanges.Lately(time.Now())
		if len(lately) != 2 || lately[flow.Rejected] != 1 || lately[flow.Upgraded] != 1 || steps[29-18][flow.Rejected] != 1 ||
			times == nil || times.Exchanges != 2 || times.Longest != 3 {
			t.Errorf("%v, %v, %+v", lately, steps, times)
		}
	})
}

func TestAProcessThatEndsBeforeItHasLookedLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		for range 3 {
			h := New(time.Now())
			k := s.keeps(t, "one", h)
			h.Add(flow.Upgraded, time.Now())
			end(t, k)
		}
		h := New(time.Now())
		end(t, s.keeps(t, "one", h))
		if total, _, _ := h.Sums(time.Now()); total[flow.Upgraded] != 3 {
			t.Errorf("%v", total)
		}
	})
}

func TestInstancesAddUpTheirAccountsAndNotTheirCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		var all [2]*History
		for i, name := range []string{"one", "another"} {
			h := New(time.Now())
			all[i] = h
			k := s.keeps(t, name, h)
			defer end(t, k)
			for account := range 10 { // of which five are at both
				h.Add(flow.Upgraded, time.Now())
				h.Accounts.Note(Upgraded, digest(5*i+account))
			}
		}
		looks()
		looks()
		for i, h := range all {
			if total, _, _ := h.Sums(time.Now()); total[flow.Upgraded] != 10 || h.Accounts.Estimate().Upgraded != 15 {
				t.Errorf("instance %d: %v calls of %d accounts", i, total, h.Accounts.Estimate().Upgraded)
			}
		}
	})
}

func TestAHistoryThatCannotBeReadIsNeverWrittenOver(t *testing.T) {
	for name, ruin := range map[string]func(t *testing.T, s *shared){
		"another key": func(t *testing.T, s *shared) { s.keys.Store(sealtest.NewKeys(t)) },
		"damaged": func(t *testing.T, s *shared) {
			if err := os.WriteFile(s.file("one"), []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a later version": func(t *testing.T, s *shared) {
			if err := s.folder().Write(t.Context(), "one", kept{Version: version + 1}); err != nil {
				t.Fatal(err)
			}
		},
		"a sketch of another kind": func(t *testing.T, s *shared) {
			if err := s.folder().Write(t.Context(), "one", kept{Version: version, Accounts: map[string][]byte{"upgraded": []byte("no sketch")}}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, h := newShared(t), New(time.Now())
				k := s.keeps(t, "one", h)
				h.Add(flow.Upgraded, time.Now())
				end(t, k)
				keys := s.keys.Load()
				ruin(t, s)
				before, err := os.ReadFile(s.file("one"))
				if err != nil {
					t.Fatal(err)
				}
				h = New(time.Now())
				k = s.keeps(t, "one", h)
				h.Add(flow.Rejected, time.Now())
				looks()
				looks()
				if after, err := os.ReadFile(s.file("one")); err != nil || string(after) != string(before) {
					t.Errorf("it was written over: %v", err)
				}
				if told := s.log.All(); len(told) != 1 || !strings.Contains(told[0].Message, "cannot be read; it is left as it is") || told[0].ContextMap()["cause"] == "" {
					t.Errorf("logged %v", told)
				}
				if name == "another key" { // which the operator puts back
					s.keys.Store(keys)
					looks()
					if total, _, _ := h.Sums(time.Now()); total[flow.Upgraded] != 1 || total[flow.Rejected] != 1 {
						t.Errorf("%v", total)
					}
				}
				end(t, k)
			})
		})
	}
}

func TestAStorageThatHangsKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := newShared(t), New(time.Now())
		first.Add(flow.Upgraded, time.Now())
		end(t, s.keeps(t, "one", first))

		s.hang = make(chan struct{})
		second, begun := New(time.Now()), time.Now()
		k := s.keeps(t, "one", second)
		second.Add(flow.Upgraded, time.Now())
		if time.Since(begun) != 0 {
			t.Errorf("it took %v to begin", time.Since(begun))
		}
		looks()
		looks()
		if told := s.log.FilterMessage("cannot keep the history of this instance in the vault"); told.Len() != 1 || s.log.Len() != 1 {
			t.Errorf("logged %v", s.log.All())
		}
		begun = time.Now()
		end(t, k)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v to end", took)
		}
		k = s.keeps(t, "one", second)
		close(s.hang)
		looks()
		if total, _, _ := second.Sums(time.Now()); total[flow.Upgraded] != 2 {
			t.Errorf("%v", total)
		}
		end(t, k)
	})
}

func TestOnlyWhatIsNewIsWrittenAndOnceADayAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := newShared(t), New(time.Now())
		k := s.keeps(t, "one", h)
		defer end(t, k)
		wrote := func(what string, want int64) {
			t.Helper()
			if n := s.stored.Swap(0); n != want {
				t.Errorf("%s: wrote %d times", what, n)
			}
		}
		looks()
		wrote("nothing has happened", 0)
		h.Add(flow.Upgraded, time.Now())
		looks()
		wrote("a call", 1)
		looks()
		looks()
		wrote("no call", 0)
		for range 3 * 24 * 6 {
			looks()
		}
		wrote("three days", 3)
	})
}

func TestWhatNoInstanceHasWrittenForAMonthGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		k := s.keeps(t, "one", New(time.Now()))
		defer end(t, k)
		for name, age := range map[string]time.Duration{"one": 60, "gone": 31, "lately": 29, "gone-unsaid": 31, "lately-unsaid": 29} {
			h := New(time.Now())
			h.Accounts.Note(Upgraded, digest(1))
			content, _, err := h.keep(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			then := time.Now().Add(-age * 24 * time.Hour)
			file := then
			if content.Written = then; strings.HasSuffix(name, "unsaid") { // as an earlier version has it
				content.Written = time.Time{}
			} else {
				file = time.Now().Add(-400 * 24 * time.Hour) // by the clock of the storage
			}
			if err := s.folder().Write(t.Context(), name, content); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(s.file(name), file, file); err != nil {
				t.Fatal(err)
			}
		}
		looks()
		names, err := s.folder().Names(t.Context())
		if err != nil || strings.Join(names, " ") != "lately-unsaid lately one" {
			t.Errorf("there are %q: %v", names, err)
		}
		if n := k.History.Accounts.Estimate().Upgraded; n != 1 {
			t.Errorf("%d accounts", n)
		}
	})
}

func TestTheFullestHistoryFitsIntoAnObject(t *testing.T) {
	h := New(noon)
	for i := range 200_000 {
		h.Accounts.Note(Came(i%int(came)), digest(i))
	}
	for step := range daySteps {
		for _, o := range flow.Outcomes() {
			for range 10 {
				h.Add(o, noon.Add(-time.Duration(step)*DayStep))
			}
			h.day.slotOf(h.day.number(noon.Add(-time.Duration(step) * DayStep))).counts[o] = 1<<32 - 1
			h.recent.slotOf(h.recent.number(noon.Add(-time.Duration(step%recentSteps) * RecentStep))).counts[o] = 1<<32 - 1
			if level := o.Row().Level; level >= zapcore.WarnLevel || o == flow.Rejected || o == flow.LinkFailed {
				text := strings.Repeat("x", 200) // which causes and fixes seldom have
				h.Faults.Add(Fault{At: noon, Reference: "ABCDEFGH", Method: string(smapi.GetDeviceAuthToken), Outcome: o, Cause: text, Fix: text})
			}
		}
		for bucket := range buckets {
			h.Exchanges.slotOf(h.recent.number(noon) - int64(step%recentSteps)).Counts[bucket] = 1<<32 - 1
		}
	}
	content, _, err := h.keep(noon)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealtest.NewKeys(t).SealObject(content)
	if err != nil || len(sealed) > seal.MaxObject*9/10 {
		t.Errorf("%d bytes of %d: %v", len(sealed), seal.MaxObject, err)
	}
}

func FuzzResume(f *testing.F) {
	h := New(noon)
	h.Add(flow.Upgraded, noon)
	h.Accounts.Note(Upgraded, 1)
	content, _, err := h.keep(noon)
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(content)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"lately":{"begins":"9999-01-01T00:00:00Z","counts":{"upgraded":[1]}},"times":[{"at":-1},{"at":177789360}],"faults":[{"outcome":"what","reference":"1"}]}`))
	f.Add([]byte(`{"version":1,"day":{"begins":"1000-01-01T00:00:00Z","counts":{"upgraded":[1,2,3],"what":[4]}},"accounts":{"refused":"AAAA"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var k kept
		if json.Unmarshal(text, &k) != nil {
			return
		}
		h := New(noon)
		if h.merge(&k) == nil {
			h.resume(&k, noon)
		}
		h.Accounts.Estimate()
		if _, _, err := h.keep(noon); err != nil {
			t.Error(err)
		}
	})
}
