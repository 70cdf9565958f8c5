package caddymodule

import (
	"hash/maphash"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
)

// networkSeed makes digests that no other process has.
var networkSeed = maphash.MakeSeed()

// networkOf is where a request comes from: the IPv4 /24 or the IPv6 /48 of Caddy's client address, 0 where there is none.
func networkOf(r *http.Request) pacing.Network {
	prefix := prefixOf(r)
	if !prefix.IsValid() {
		return 0
	}
	return pacing.Network(maphash.Comparable(networkSeed, prefix))
}

func prefixOf(r *http.Request) (prefix netip.Prefix) {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if ip == "" {
		return prefix
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return prefix
	}
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	prefix, _ = addr.Prefix(bits) // which fits
	return prefix
}

// lookup finds Caddy's placeholders of an HTTP request.
func lookup(r *http.Request) exchange.Lookup {
	return func(name string) string {
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			text, _ := repl.GetString(name)
			return text
		}
		return ""
	}
}
