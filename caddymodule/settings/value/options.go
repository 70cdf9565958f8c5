package value

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
)

// NamesOf are the names of options, but for those that the Caddyfile has as arguments.
func NamesOf[T any](arguments ...string) (names []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if name := nameOf(&field); !slices.Contains(arguments, name) {
			names = append(names, name)
		}
	}
	return names
}

func nameOf(f *reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// ReadOptions reads the JSON of options. An error names the option and what it may have been meant to be.
func ReadOptions[T any](text []byte, to *T) error {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(text, &given); err != nil {
		return ofType(err)
	}
	fields := reflect.VisibleFields(reflect.TypeFor[T]())
	for _, name := range slices.Sorted(maps.Keys(given)) {
		at := slices.IndexFunc(fields, func(f reflect.StructField) bool { return strings.EqualFold(nameOf(&f), name) })
		if at < 0 {
			return fmt.Errorf("unknown field %q%s", name, Meant(name, NamesOf[T]()...))
		}
		one, err := json.Marshal(map[string]json.RawMessage{name: given[name]})
		if err != nil {
			return err
		}
		if err := json.Unmarshal(one, to); err != nil {
			return fmt.Errorf("%s: %w", name, wrongValue(err, fields[at].Type, given[name]))
		}
	}
	return nil
}

var errDuration = errors.New("must be a duration, such as 15s")

// wrongValue shows a value that can be no secret, by the type of its option.
func wrongValue(err error, option reflect.Type, given json.RawMessage) error {
	switch option {
	case reflect.TypeFor[caddy.Duration]():
		err = errDuration
	case reflect.TypeFor[Retention](), reflect.TypeFor[Fuse](), reflect.TypeFor[*FailedLogins](), reflect.TypeFor[*households.Percent](), reflect.TypeFor[int]():
	default:
		return ofType(err)
	}
	return fmt.Errorf("%w%s", ofType(err), Shown(strings.Trim(string(given), `"`)))
}

// ofType says in the words of JSON that a value is of another type.
func ofType(err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err
	}
	is, _, _ := strings.Cut(wrong.Value, " ")
	has := "an object"
	switch wrong.Type.Kind() {
	case reflect.String:
		has = "a string"
	case reflect.Bool:
		has = "true or false"
	case reflect.Int, reflect.Int64, reflect.Float64:
		has = "a number"
	case reflect.Slice:
		has = "an array"
	}
	return fmt.Errorf("is of type %s in JSON, and has to be %s", is, has)
}
