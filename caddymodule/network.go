package caddymodule

import (
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

// networkOf is where a request comes from: the IPv4 /24 or the IPv6 /48 of Caddy's client address, blank where there is
// none.
func networkOf(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	prefix, _ := addr.Prefix(bits) // which fits
	return prefix.String()
}

// lookup finds Caddy's placeholders of an HTTP request.
func lookup(r *http.Request) flow.Lookup {
	return func(name string) string {
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			text, _ := repl.GetString(name)
			return text
		}
		return ""
	}
}
