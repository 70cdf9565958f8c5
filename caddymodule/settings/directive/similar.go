package directive

import (
	"reflect"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
)

// similar is the option that a name is a misspelling of, blank if there is none.
func similar(name string) (option string) {
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	least := 1 + len(name)/4
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings.Options]()) {
		known, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if known == "token_endpoint" || known == "private_key_fallback" { // which are arguments
			continue
		}
		if edits := distance(name, known); edits < least {
			option, least = known, edits
		}
	}
	return option
}

// distance is how many letters have to be added, left out or replaced (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			edits := diagonal
			if a[i] != b[j] {
				edits = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], edits
		}
	}
	return row[len(b)]
}
