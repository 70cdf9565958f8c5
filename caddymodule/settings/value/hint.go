package value

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// measure is a number with a unit, or with something that was meant to be one.
var measure = regexp.MustCompile(`^[-+]?\d{1,9}([.,]\d{1,9})?[a-zA-Zµ%]{0,4}$`)

// Shown is a wrong number, duration or share, to be put behind its error: ` (it is 25s)`. It is blank for a text that looks like
// anything else, such as a secret in the wrong place.
func Shown(text string) string {
	const most = 24 // of the characters of a duration such as 1h30m0.5s
	words := strings.Fields(text)
	for _, word := range words {
		if _, err := caddy.ParseDuration(word); !measure.MatchString(word) && (err != nil || len(word) > most) {
			return ""
		}
	}
	if len(words) == 0 || len(words) > 2 {
		return ""
	}
	return " (it is " + strings.Join(words, " ") + ")"
}

var plain = regexp.MustCompile(`^[a-zA-Z][a-zA-Z_-]{0,15}$`)

// ShownWord is Shown for an option that takes one of a few words. It is blank for what is no plain word.
func ShownWord(text string) string {
	if !plain.MatchString(text) {
		return ""
	}
	return " (it is " + strconv.Quote(text) + ")"
}

// Meant asks whether one of the names that there are was meant, to be put behind an error: `; did you mean observe?`. It is
// blank where none is like the text.
func Meant(text string, known ...string) string {
	if name := Similar(text, known...); name != "" {
		return "; did you mean " + name + "?"
	}
	return ""
}

// Similar is the name that a text is a misspelling or the beginning of, blank if there is none.
func Similar(text string, known ...string) (name string) {
	text = strings.ToLower(strings.ReplaceAll(text, "-", "_"))
	least := 1 + (len(text)+2)/4
	for _, k := range known {
		if edits := distance(text, k); edits < least {
			name, least = k, edits
		}
	}
	if name != "" || len(text) < 4 {
		return name
	}
	for _, k := range known {
		if strings.HasPrefix(k, text) {
			if name != "" {
				return "" // or the other
			}
			name = k
		}
	}
	return name
}

// distance is how many letters have to be added, left out, replaced or swapped with the next.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			edits := row[j]
			if a[i] != b[j] {
				edits = 1 + min(row[j], row[j+1], next[j])
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				edits = min(edits, 1+before[j-1])
			}
			next[j+1] = edits
		}
		before, row = row, next
	}
	return row[len(b)]
}
