package households

import "testing"

func TestASuffixIsTheSameHome(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want Difference
	}{
		{"Sonos_abc.123", "Sonos_abc.123", None},
		{"Sonos_abc.123", "", None},
		{"Sonos_abc.123", "Sonos_abc.123_1a2b3c4d", Suffix},
		{"Sonos_abc.123_0", "Sonos_abc.123", Suffix},
		{"Sonos_abc.123_1a2b3c4d", "Sonos_abc.123_5e6f7a8b", Suffix},
		{"Sonos_abc", "Sonos_abc1", Home},
		{"Sonos_abc", "Sonos_def", Home},
		{"Sonos_abc_1a2b3c4d", "Sonos_def_1a2b3c4d", Home},
	} {
		if got, back := Compare(test.a, test.b), Compare(test.b, test.a); got != test.want || back != got {
			t.Errorf("%q and %q: %q and %q, want %q", test.a, test.b, got, back, test.want)
		}
	}
}
