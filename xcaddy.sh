#!/bin/sh
# Builds ./caddy: Caddy with the smapi_upgrade module of this checkout, by xcaddy.
#
#   ./xcaddy.sh [<xcaddy build arguments>...]      such as --with github.com/caddy-dns/cloudflare
#
# CADDY_VERSION overrides the version of Caddy, which is pinned in go.mod.
set -eu
cd "$(dirname "$0")"

module=github.com/smapi-tools/caddy-smapi-upgrade
version=${CADDY_VERSION:-$(go list -m -f '{{.Version}}' github.com/caddyserver/caddy/v2)}

if command -v xcaddy >/dev/null 2>&1; then
	xcaddy=xcaddy
else
	xcaddy="go tool -modfile=.ci/tools.mod xcaddy"
fi

# The version v0.0.0 keeps Go from asking for published versions of a module that is replaced anyway.
$xcaddy build "$version" --output ./caddy --with "$module@v0.0.0=." "$@"
