package history

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"math"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func TestADayIsCountedInStepsOfTenMinutes(t *testing.T) {
	h := New(noon)
	h.Add(flow.Upgraded, noon.Add(-24*time.Hour-time.Second)) // long ago
	h.Add(flow.Upgraded, noon.Add(-23*time.Hour))
	for range 3 {
		h.Add(flow.Rejected, noon)
	}
	h.Add(flow.Outcome(flow.NumOutcomes), noon) // which is none
	day := h.Day(noon)
	if day.StepSeconds != 600 || !day.Begins.Equal(noon.Add(-143*10*time.Minute)) || len(day.Counts) != 2 {
		t.Fatalf("%+v", day)
	}
	upgraded, rejected := day.Counts[flow.Upgraded], day.Counts[flow.Rejected]
	if len(upgraded) != 144 || upgraded[5] != 1 || rejected[143] != 3 {
		t.Errorf("%v, %v", upgraded, rejected)
	}
	if total, lately, steps := h.Sums(noon); total[flow.Upgraded] != 2 || lately[flow.Rejected] != 3 || lately[flow.Upgraded] != 0 || len(steps) != 30 || steps[29][flow.Rejected] != 3 {
		t.Errorf("%v, %v, %v", total, lately, steps)
	}
	if day := h.Day(noon.Add(25 * time.Hour)); len(day.Counts) != 0 {
		t.Errorf("a day later there is %v", day.Counts)
	}
}

func TestAClockThatIsWrongBreaksNothing(t *testing.T) {
	h := New(noon)
	for _, now := range []time.Time{{}, time.Unix(0, 0), noon, noon.Add(-time.Hour)} {
		h.Add(flow.Upgraded, now)
		h.Day(now)
		h.Sums(now)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	h, now := New(noon), noon
	if n := testing.AllocsPerRun(1000, func() { now = now.Add(time.Second); h.Add(flow.Upgraded, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var seed = maphash.MakeSeed()

func digest(i int) uint64 {
	return maphash.Bytes(seed, binary.LittleEndian.AppendUint64(nil, uint64(i)))
}

// Whoever tries the same account again, or makes up others, moves no figure but that of his own kind.
func TestDistinctAccountsAreEstimatedApart(t *testing.T) {
	const upgraded, refused = 20_000, 50_000
	var a Accounts
	for i := range upgraded {
		a.Note(Upgraded, digest(i))
		a.Note(Upgraded, digest(i))
	}
	before := a.Estimate()
	for i := range refused {
		a.Note(Refused, digest(-i))
	}
	got := a.Estimate()
	for _, one := range []struct{ want, got uint64 }{{upgraded, got.Upgraded}, {refused, got.Refused}} {
		if off := math.Abs(float64(one.got)-float64(one.want)) / float64(one.want); off > .04 { // five times the standard error
			t.Errorf("%d are estimated as %d", one.want, one.got)
		}
	}
	if before.Upgraded != got.Upgraded || got.SignedIn != 0 || got.Doubted != 0 {
		t.Errorf("%+v, and before %+v", got, before)
	}
}

func TestManyFaultsOfOneKindHideNoOther(t *testing.T) {
	var f Faults
	f.Add(Fault{At: noon, Reference: "MISTAKE", Outcome: flow.Misconfigured})
	for i := range 1000 {
		f.Add(Fault{At: noon.Add(time.Duration(i) * time.Second), Reference: fmt.Sprint(i), Outcome: flow.Rejected})
	}
	f.Add(Fault{Reference: "none", Outcome: flow.Outcome(flow.NumOutcomes)})
	last := f.Last()
	if len(last) != 5 || last[0].Reference != "999" || last[4].Reference != "MISTAKE" {
		text, _ := json.Marshal(last)
		t.Errorf("%s", text)
	}
}

func TestExchangeTimesAreThoseOfTheLastFiveMinutes(t *testing.T) {
	var d Durations
	if got := d.Lately(noon); got != nil {
		t.Errorf("before any: %+v", got)
	}
	for range 1000 {
		d.Note(time.Hour, noon.Add(-301*time.Second))
	}
	for i := range 100 { // 10 ms, 20 ms and so on
		d.Note(time.Duration(i+1)*10*time.Millisecond, noon.Add(-time.Duration(i)*2*time.Second))
	}
	got := d.Lately(noon)
	near := func(got, want float64) bool { return got >= want && got < want*bucketStep }
	if got == nil || got.Exchanges != 100 || !near(got.Median, .5) || !near(got.Most, .95) || got.Longest != 1 {
		t.Errorf("%+v", got)
	}
	for took, want := range map[time.Duration]float64{0: 0, time.Microsecond: 1e-6, 7 * time.Second: 7, time.Hour: 3600} {
		var d Durations
		d.Note(took, noon)
		if got := d.Lately(noon); got.Median > want || got.Longest != want {
			t.Errorf("%v alone: %+v", took, got)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { d.Note(time.Second, noon) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
