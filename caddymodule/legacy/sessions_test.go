package legacy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneSessionIsBegunForAllCallsOfAnAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(10, time.Now)
		begin := func() (string, time.Duration, error) {
			time.Sleep(time.Second)
			return fmt.Sprint("session-", s.Begun()), 0, nil
		}
		get := func(refused Session, want string) (got Session) {
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if got, err := s.Get(t.Context(), AccountAt("a", "", [16]byte{}), refused, begin); got.ID != want || err != nil {
						t.Errorf("%q, %v, want %q", got.ID, err, want)
					}
				})
			}
			all.Wait()
			got, _ = s.Get(t.Context(), AccountAt("a", "", [16]byte{}), refused, begin)
			return got
		}
		first := get(Session{}, "session-1")
		get(first, "session-2") // the old service forgot it
		get(first, "session-2") // and calls that were under way with the first one come late
		if s.Begun() != 2 || s.Len() != 1 {
			t.Errorf("%d were begun, %d are known", s.Begun(), s.Len())
		}
	})
}

func TestASessionThatIsGivenOnceMoreIsAnotherOne(t *testing.T) {
	s := NewSessions(10, time.Now)
	begin := func() (string, time.Duration, error) { return "of the account", 0, nil }
	get := func(refused Session) Session {
		got, err := s.Get(t.Context(), AccountAt("a", "", [16]byte{}), refused, begin)
		if err != nil || got.ID != "of the account" || got == refused {
			t.Errorf("%+v, %v", got, err)
		}
		return got
	}
	first := get(Session{})
	second := get(first)
	if late := get(first); late != second || s.Begun() != 2 {
		t.Errorf("%+v, %+v, %d were begun", second, late, s.Begun())
	}
}

func TestWhatRefusesASessionIsAskedAgainOnlyAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(10, time.Now)
		refusal := errors.New("refused")
		hold := 30 * time.Second
		begin := func() (string, time.Duration, error) { return "", hold, refusal }
		for n := range 10 {
			_, err := s.Get(t.Context(), AccountAt("a", "", [16]byte{}), Session{}, begin)
			if _, remembered := errors.AsType[*Remembered](err); remembered != (n > 0) || !errors.Is(err, refusal) {
				t.Fatalf("the %d. time %T, %v", n+1, err, err)
			}
		}
		if s.Begun() != 1 {
			t.Errorf("%d were begun", s.Begun())
		}
		time.Sleep(hold)
		hold = 0
		for range 2 {
			_, _ = s.Get(t.Context(), AccountAt("a", "", [16]byte{}), Session{}, begin)
		}
		if s.Begun() != 3 {
			t.Errorf("%d were begun", s.Begun())
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	s := NewSessions(10, time.Now)
	for i := range 100 {
		_, _ = s.Get(t.Context(), AccountAt(fmt.Sprint(i), "", [16]byte{}), Session{}, func() (string, time.Duration, error) { return "s", 0, nil })
	}
	if s.Len() != 10 {
		t.Errorf("%d are kept", s.Len())
	}
}

func TestNobodyWaitsForASessionLongerThanItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(10, time.Now)
		go func() {
			_, _ = s.Get(t.Context(), AccountAt("a", "", [16]byte{}), Session{}, func() (string, time.Duration, error) {
				time.Sleep(time.Minute)
				return "s", 0, nil
			})
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Get(ctx, AccountAt("a", "", [16]byte{}), Session{}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got, err := s.Get(t.Context(), AccountAt("a", "", [16]byte{}), Session{}, nil); got.ID != "s" || err != nil {
			t.Error(got, err)
		}
	})
}

func TestABeginThatPanicsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(10, time.Now)
		go func() {
			defer func() { _ = recover() }()
			_, _ = s.Get(t.Context(), AccountAt("a", "", [16]byte{}), Session{}, func() (string, time.Duration, error) {
				time.Sleep(time.Second)
				panic("at the disco")
			})
		}()
		synctest.Wait()
		if _, err := s.Get(t.Context(), AccountAt("a", "", [16]byte{}), Session{}, nil); err != ErrBroken {
			t.Error(err)
		}
		if got, _ := s.Get(t.Context(), AccountAt("a", "", [16]byte{}), Session{}, func() (string, time.Duration, error) { return "s", 0, nil }); got.ID != "s" {
			t.Error(got)
		}
	})
}
