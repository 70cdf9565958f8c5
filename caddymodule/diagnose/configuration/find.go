package configuration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
)

// Handler is a smapi_upgrade of a configuration.
type Handler struct {
	At      string          // its path in the configuration, blank where there is no configuration
	Matches []string        // what the routes around it match
	Raw     json.RawMessage // its options
}

// Default is what is asked without a configuration. Its endpoint and client are never seen.
func Default() Handler {
	return Handler{Raw: json.RawMessage(`{"token_endpoint":"https://token-endpoint.invalid","client_id":"client","client_secret":"secret"}`)}
}

// Options are those that it has.
func (h *Handler) Options() (*settings.Options, error) {
	o := new(settings.Options)
	if err := caddy.StrictUnmarshalJSON(h.Raw, o); err != nil {
		return nil, fmt.Errorf("the smapi_upgrade at %s: %w", h.At, err)
	}
	return o, nil
}

// Find finds every smapi_upgrade of a configuration in JSON, wherever a module may hold a handler. None is an error.
func Find(config []byte) ([]Handler, error) {
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	var root struct {
		Apps any `json:"apps"`
	}
	if err := decoder.Decode(&root); err != nil {
		return nil, errors.New("the configuration is no JSON; say what it is by --adapter")
	}
	all := walk(root.Apps, "apps", nil)
	if len(all) == 0 {
		return nil, errors.New("there is no smapi_upgrade in the configuration")
	}
	return all, nil
}

func walk(value any, at string, matches []string) (all []Handler) {
	switch value := value.(type) {
	case []any:
		for i, v := range value {
			all = append(all, walk(v, fmt.Sprint(at, "/", i), matches)...)
		}
	case map[string]any:
		if value["handler"] == "smapi_upgrade" {
			options := maps.Clone(value)
			delete(options, "handler")
			raw, _ := json.Marshal(options) // it has been JSON before
			return []Handler{{at, matches, raw}}
		}
		if sets, ok := value["match"].([]any); ok {
			matches = append(slices.Clip(matches), matched(sets))
		}
		for _, name := range slices.Sorted(maps.Keys(value)) {
			all = append(all, walk(value[name], at+"/"+name, matches)...)
		}
	}
	return all
}

// matched says what a route matches: hosts, paths and methods, and of other matchers only that they are there.
func matched(sets []any) string {
	var alternatives []string
	for _, set := range sets {
		set, _ := set.(map[string]any)
		var all []string
		for _, name := range slices.Sorted(maps.Keys(set)) {
			text := name
			if values, ok := set[name].([]any); ok && slices.Contains([]string{"host", "path", "method"}, name) {
				for _, v := range values {
					text += " " + fmt.Sprint(v)
				}
			}
			all = append(all, text)
		}
		alternatives = append(alternatives, strings.Join(all, " and "))
	}
	return strings.Join(alternatives, ", or ")
}
