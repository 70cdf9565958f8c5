package figures

import (
	"strings"
	"testing"
	"time"
)

func TestWhatIsLittleIsNotRoundedToNothing(t *testing.T) {
	for share, want := range map[float64]string{0: "0.0%", 1e-9: "<0.1%", 0.001: "0.1%", 0.5: "50.0%", 0.9999: ">99.9%", 1: "100.0%"} {
		if got := Percent(share); got != want {
			t.Errorf("%v is %s, want %s", share, got, want)
		}
	}
	for s, want := range map[float64]string{0.0000005: "0.5 µs", 0.0123: "12 ms", 0.0012: "1.2 ms", 9.99: "10.0 s", 61: "61 s"} {
		if got := Brief(s); got != want {
			t.Errorf("%v is %s, want %s", s, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0.0 s", 59.9: "59.9 s", 600: "10m", 7200: "2h0m", 3 * 86400: "3 days"} {
		if got := Lasting(s); got != want {
			t.Errorf("%v is %s, want %s", s, got, want)
		}
	}
}

func TestABarFits(t *testing.T) {
	for _, test := range []struct {
		done, all int
		took      time.Duration
		width     int
		want      string
	}{
		{0, 10, 0, 79, "[" + strings.Repeat(" ", 40) + "]  0 of 10"},
		{5, 10, time.Second, 79, "[" + strings.Repeat("=", 20) + strings.Repeat(" ", 20) + "]  5 of 10"},
		{5, 10, 3 * time.Second, 29, "[====     ]  5 of 10, 3s left"},
		{10, 10, 3 * time.Second, 79, "[" + strings.Repeat("=", 40) + "] 10 of 10, 0s left"},
		{5, 10, 3 * time.Second, 8, "  5 of 1"},
		{5, 10, 0, 0, ""},
	} {
		if got := Bar(test.done, test.all, test.took, test.width); got != test.want || len(got) > test.width {
			t.Errorf("%+v: %q", test, got)
		}
	}
}
