package replay

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestAValueIsKeptForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := NewMemory[int](10, time.Now), DigestOf("call")
		m.Put(d, 1, time.Minute)
		time.Sleep(time.Minute - 1)
		if v, ok := m.Get(d); !ok || v != 1 {
			t.Errorf("within its time it is %v, %v", v, ok)
		}
		time.Sleep(1)
		synctest.Wait()
		if v, ok := m.Get(d); ok || m.cache.Len() != 0 {
			t.Errorf("after it it is %v, and %d are held", v, m.cache.Len())
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
		if m.cache.Len() != 0 {
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

func TestOfTooManyValuesThoseUsedLastAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory[int](10, time.Now)
		of := func(i int) Digest { return DigestOf(strconv.Itoa(i)) }
		for i := range 100 {
			m.Put(of(i), i, time.Minute)
			m.Get(of(0))
		}
		for i := range 100 {
			if _, ok := m.Get(of(i)); ok != (i == 0 || i > 90) {
				t.Errorf("%d: %v", i, ok)
			}
		}
		if m.cache.Len() != 10 {
			t.Errorf("%d are held", m.cache.Len())
		}
		time.Sleep(time.Minute)
		synctest.Wait() // no timer of one that had to go takes another with it, and none is left
		if m.cache.Len() != 0 {
			t.Errorf("%d are held after their time", m.cache.Len())
		}
	})
}

func TestADigestTellsPartsApart(t *testing.T) {
	if DigestOf("ab", "c") == DigestOf("a", "bc") || DigestOf("a") == DigestOf("a", "") {
		t.Error("they are confused")
	}
}
