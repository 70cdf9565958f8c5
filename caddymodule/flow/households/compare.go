package households

import (
	"regexp"
	"strings"
)

// Difference is how two householdIds differ.
type Difference string

// The values of Difference. Sonos appends a suffix for a second account of a home, and the calls of one account come with
// different ones.
const (
	None   Difference = ""
	Suffix Difference = "suffix"
	Home   Difference = "home"
)

// Differences are those that there may be.
var Differences = [...]Difference{Suffix, Home}

// suffix is that of a second account, as it was seen. The id of the home itself may have underscores, too.
var suffix = regexp.MustCompile(`_[0-9a-f]{8}$`)

// Compare says how two householdIds differ. One that is blank is not known, and no different one.
func Compare(a, b string) Difference {
	switch {
	case a == b || a == "" || b == "":
		return None
	case strings.HasPrefix(a, b+"_") || strings.HasPrefix(b, a+"_") || suffix.ReplaceAllString(a, "") == suffix.ReplaceAllString(b, ""):
		return Suffix
	}
	return Home
}
