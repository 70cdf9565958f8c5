package wholeway

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// narrowed is a configuration that has come down to one handler and what is around and behind it.
type narrowed struct {
	config []byte
	server string // by its name
	url    string // of the service, as its matchers have it
}

var errElsewhere = errors.New("it is not in the routes of an HTTP server")

// narrow changes a configuration: the handler at this path is in mode upgrade for all homes, of its server there is no more than
// the route to it, which matches everything, and there are no other servers. The storage is a folder.
func narrow(config []byte, at, storage string) (n narrowed, err error) {
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	var root map[string]any
	if err := decoder.Decode(&root); err != nil {
		return n, err
	}
	const toServer, toRoute = 4, 6 // apps/http/servers/NAME/routes/N
	path := strings.Split(at, "/")
	if len(path) <= toRoute || path[1] != "http" || path[2] != "servers" || path[toServer] != "routes" {
		return n, errElsewhere
	}
	servers, _ := step(step(step(root, path[0]), path[1]), path[2]).(map[string]any)
	n.server = path[3]
	server, _ := servers[n.server].(map[string]any)
	route, _ := step(step(server, "routes"), path[toRoute-1]).(map[string]any)
	if route == nil {
		return n, errElsewhere
	}
	n.url = "http://" + first(route, "host", "smapi-upgrade-check.invalid") + first(route, "path", "/")
	server["routes"] = []any{route}
	for name := range servers {
		if name != n.server {
			delete(servers, name)
		}
	}
	var node any = route
	for _, name := range path[toRoute:] {
		if way, ok := node.(map[string]any); ok {
			delete(way, "match")
		}
		node = step(node, name)
	}
	handler, _ := node.(map[string]any)
	if handler == nil {
		return n, errElsewhere
	}
	delete(handler, "mode")
	delete(handler, "households")
	root["storage"] = map[string]any{"module": "file_system", "root": storage}
	n.config, err = json.Marshal(root)
	return n, err
}

// step is what a value has under a name, or in a place, nil for nothing.
func step(value any, name string) any {
	switch value := value.(type) {
	case map[string]any:
		return value[name]
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(value) {
			return value[i]
		}
	}
	return nil
}

// first is the first text without a wildcard or a placeholder that some matcher in a value has for a host or a path.
func first(value any, matcher, otherwise string) string {
	if found := find(value, matcher); found != "" {
		return found
	}
	return otherwise
}

func find(value any, matcher string) (found string) {
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			if found = find(v, matcher); found != "" {
				return found
			}
		}
	case map[string]any:
		if sets, ok := value["match"].([]any); ok {
			for _, set := range sets {
				texts, _ := step(set, matcher).([]any)
				for _, text := range texts {
					if found = plain(text, matcher); found != "" {
						return found
					}
				}
			}
		}
		if handlers := value["handle"]; handlers != nil {
			return find(handlers, matcher)
		}
		return find(value["routes"], matcher)
	}
	return ""
}

func plain(text any, matcher string) string {
	s, _ := text.(string)
	if matcher == "path" {
		s = strings.TrimRight(s, "*")
		if !strings.HasPrefix(s, "/") {
			return ""
		}
	}
	if strings.ContainsAny(s, "*{ ?#") {
		return ""
	}
	return s
}
