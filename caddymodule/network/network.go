// Package network tells where requests come from.
package network

import (
	"hash/maphash"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
)

// seed makes digests that no other process has.
var seed = maphash.MakeSeed()

// Of is where a request comes from: the IPv4 /24 or the IPv6 /48 of Caddy's client address, 0 where there is none.
func Of(r *http.Request) pacing.Network {
	prefix := Prefix(r)
	if !prefix.IsValid() {
		return 0
	}
	return pacing.Network(maphash.Comparable(seed, prefix))
}

// Prefix is that network by its addresses, the zero Prefix where there is none.
func Prefix(r *http.Request) (prefix netip.Prefix) {
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
