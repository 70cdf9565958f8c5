package replay

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// held is how many values there are.
func (m *Memory[V]) held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values.Len()
}

func TestAValueIsKeptForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := NewMemory[int](10, time.Now), DigestOf("call")
		m.Put(d, 1, time.Minute)
		time.Sleep(time.Minute - 1)
		if v, ok := m.Get(d); !ok || v != 1 {
			t.Errorf("within its time it is %v, %v", v, ok)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if v, ok := m.Get(d); ok || m.held() != 0 {
			t.Errorf("after it it is %v, and %d are held", v, m.held())
		}
	})
}

func TestAValueInThePlaceOfAnotherIsKeptForATimeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := NewMemory[int](10, time.Now), DigestOf("call")
		m.Put(d, 1, time.Minute)
		time.Sleep(30 * time.Second)
		m.Put(d, 2, time.Minute)
		time.Sleep(45 * time.Second)
		if v, ok := m.Get(d); !ok || v != 2 {
			t.Errorf("it is %v, %v", v, ok)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if m.held() != 0 {
			t.Error("it is held for ever")
		}
	})
}

func TestWhatIsNotToBeKeptIsNot(t *testing.T) {
	for _, keep := range []time.Duration{0, -time.Second} {
		m, d := NewMemory[int](10, time.Now), DigestOf("call")
		m.Put(d, 1, keep)
		if v, ok := m.Get(d); ok {
			t.Errorf("for %v it is %v", keep, v)
		}
	}
}

func TestOfTooManyValuesThosePutLastAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory[int](10, time.Now)
		of := func(i int) Digest { return DigestOf(strconv.Itoa(i)) }
		for i := range 100 {
			m.Put(of(i), i, time.Minute)
		}
		for i := range 100 {
			if _, ok := m.Get(of(i)); ok != (i >= 90) {
				t.Errorf("%d: %v", i, ok)
			}
		}
		if m.held() != 10 {
			t.Errorf("%d are held", m.held())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if m.held() != 0 {
			t.Errorf("%d are held after their time", m.held())
		}
	})
}

// What is kept for longer stands in the way of what was put after it, for as long: it is not told, and forgotten then.
func TestValuesOfDifferentTimesAreAllForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory[int](10, time.Now)
		for i := range 5 {
			m.Put(DigestOf(strconv.Itoa(i)), i, time.Duration(5-i)*time.Minute)
		}
		time.Sleep(150 * time.Second)
		for i := range 5 {
			if _, ok := m.Get(DigestOf(strconv.Itoa(i))); ok != (i < 3) {
				t.Errorf("%d: %v", i, ok)
			}
		}
		time.Sleep(151 * time.Second)
		synctest.Wait()
		if n := m.held(); n != 0 {
			t.Errorf("%d are held after their time", n)
		}
		m.Put(DigestOf("later"), 1, time.Minute) // and the timer is set again
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := m.held(); n != 0 {
			t.Errorf("%d are held after their time", n)
		}
	})
}

func TestADigestTellsPartsApart(t *testing.T) {
	if DigestOf("ab", "c") == DigestOf("a", "bc") || DigestOf("a") == DigestOf("a", "") {
		t.Error("they are confused")
	}
}
