package directive

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// wrongArgs is Dispenser.ArgErr without the argument, which may be a secret.
func wrongArgs(d *caddyfile.Dispenser, name string) error {
	return d.Errf("wrong number of values for %s, or a blank one, as of a {$VARIABLE} that is not set", name)
}

func text[T ~string](d *caddyfile.Dispenser, name string, to *T) error {
	var value string
	if !d.AllArgs(&value) || value == "" {
		return wrongArgs(d, name)
	}
	*to = T(value)
	return nil
}

func parsed[T any](d *caddyfile.Dispenser, name string, to *T, parse func(string) (T, error)) (err error) {
	var given string
	if err := text(d, name, &given); err != nil {
		return err
	}
	if *to, err = parse(given); err != nil {
		return d.Errf("%s: %v%s", name, err, value.Shown(given))
	}
	return nil
}

var (
	errDuration = errors.New("must be a positive duration, such as 15s")
	errCount    = errors.New("must be a whole number of at least 1")
)

func parseDuration(text string) (caddy.Duration, error) {
	d, err := caddy.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, errDuration
	}
	return caddy.Duration(d), nil
}

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, errCount
	}
	return n, nil
}

func flag(d *caddyfile.Dispenser, name string, to *bool) error {
	*to = true
	if d.NextArg() {
		return d.Errf("%s takes no value", name)
	}
	return nil
}

// pair is a name and a value, of which a name may have several.
func pair(d *caddyfile.Dispenser, field string, to *map[string][]string, check func(name, value string) error) error {
	var name, value string
	if !d.AllArgs(&name, &value) {
		return wrongArgs(d, field)
	}
	if err := check(name, value); err != nil {
		return d.WrapErr(err)
	}
	if *to == nil {
		*to = make(map[string][]string)
	}
	(*to)[name] = append((*to)[name], value)
	return nil
}

func onError(d *caddyfile.Dispenser, field string, to *settings.OnError) error {
	var name, class string
	if !d.AllArgs(&name, &class) {
		return wrongArgs(d, field)
	}
	if _, again := (*to)[name]; again {
		return d.Errf("%s is given twice for the same answer", field)
	}
	if *to == nil {
		*to = make(settings.OnError)
	}
	(*to)[name] = token.Class(class)
	if err := to.Check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func onOff(d *caddyfile.Dispenser, name string, to *bool) error {
	var given string
	if err := text(d, name, &given); err != nil {
		return err
	}
	if *to = strings.EqualFold(given, "on"); !*to && !strings.EqualFold(given, "off") {
		return d.Errf("%s: must be on or off%s", name, value.ShownWord(given))
	}
	return nil
}

const directiveName = "smapi_upgrade"

// unrecognized says what an option may have been meant to be, or where it belongs.
func unrecognized(d *caddyfile.Dispenser, block, name string) error {
	hint := value.Meant(name, settings.Blocks[block]...)
	if hint == "" && slices.Contains(settings.Blocks[directiveName], name) {
		hint = "; it belongs outside of " + block
	}
	for _, other := range slices.Sorted(maps.Keys(settings.Blocks)) {
		if hint == "" && slices.Contains(settings.Blocks[other], name) {
			hint = "; it belongs into the block of " + other
		}
	}
	if hint == "" && block == directiveName {
		hint = "; if it is a directive, a } is missing above"
	}
	return d.Errf("unrecognized %s subdirective '%s'%s", block, name, hint)
}
