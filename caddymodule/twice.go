package caddymodule

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// another reports whether one more smapi_upgrade stands beside this one and meets the same calls. It looks at the routes of
// the module around, which hold JSON until they are loaded.
func another(ctx caddy.Context) bool {
	var around []caddyhttp.RouteList
	for _, module := range ctx.Modules() {
		switch m := module.(type) {
		case *caddyhttp.App:
			around = nil
			for _, server := range m.Servers {
				around = append(around, server.Routes)
			}
		case *caddyhttp.Subroute:
			around = []caddyhttp.RouteList{m.Routes}
		}
	}
	for _, routes := range around {
		all := 0 // that meet every call
		for _, route := range routes {
			here := 0
			for _, raw := range route.HandlersRaw {
				var handler struct {
					Handler string `json:"handler"`
				}
				if json.Unmarshal(raw, &handler) == nil && handler.Handler == "smapi_upgrade" {
					here++
				}
			}
			if len(route.MatcherSetsRaw) == 0 {
				all += here
			}
			if max(here, all) > 1 {
				return true
			}
		}
	}
	return false
}
