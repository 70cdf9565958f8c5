package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
)

// Blocks are the options by the directive or the option in whose block the Caddyfile has them.
var Blocks = map[string][]string{
	"smapi_upgrade": namesOf[Options]("token_endpoint", "private_key_fallback"),
	"exchange":      namesOf[Exchange]("credentials", "grant_type"),
	"vault":         namesOf[Vault]("key_file"),
	"sign_in":       namesOf[SignIn](),
	"old_service":   namesOf[OldService]("credentials"),
}

// namesOf are the names of options, but for those that the Caddyfile has as arguments.
func namesOf[T any](arguments ...string) (names []string) {
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

// read reads the JSON of options. An error names the option and what it may have been meant to be.
func read[T any](text []byte, to *T) error {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(text, &given); err != nil {
		return ofType(err)
	}
	fields := reflect.VisibleFields(reflect.TypeFor[T]())
	for _, name := range slices.Sorted(maps.Keys(given)) {
		at := slices.IndexFunc(fields, func(f reflect.StructField) bool { return strings.EqualFold(nameOf(&f), name) })
		if at < 0 {
			return fmt.Errorf("unknown field %q%s", name, value.Meant(name, namesOf[T]()...))
		}
		one, err := json.Marshal(map[string]json.RawMessage{name: given[name]})
		if err != nil {
			return err
		}
		if err := json.Unmarshal(one, to); err != nil {
			return FieldError{name, wrongValue(err, fields[at].Type, given[name])}
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
	case reflect.TypeFor[value.Retention](), reflect.TypeFor[value.Fuse](), reflect.TypeFor[*value.FailedLogins](), reflect.TypeFor[*Percent](), reflect.TypeFor[int]():
	default:
		return ofType(err)
	}
	return fmt.Errorf("%w%s", ofType(err), value.Shown(strings.Trim(string(given), `"`)))
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

// UnmarshalJSON reads the options, and finds those that there are not.
func (o *Options) UnmarshalJSON(text []byte) error {
	type plain Options
	return read(text, (*plain)(o))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (o *OldService) UnmarshalJSON(text []byte) error {
	type plain OldService
	return read(text, (*plain)(o))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (v *Vault) UnmarshalJSON(text []byte) error {
	type plain Vault
	return read(text, (*plain)(v))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (x *Exchange) UnmarshalJSON(text []byte) error {
	type plain Exchange
	return read(text, (*plain)(x))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (s *SignIn) UnmarshalJSON(text []byte) error {
	type plain SignIn
	return read(text, (*plain)(s))
}
