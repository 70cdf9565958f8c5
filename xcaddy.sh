#!/bin/sh
# Builds ./caddy: Caddy with the smapi_upgrade module of this checkout, by xcaddy.
#
#   ./xcaddy.sh [<xcaddy build arguments>...]      such as --with github.com/caddy-dns/cloudflare
#
# CADDY_VERSION takes a later version of Caddy than go.mod has. An earlier one cannot be had: Go builds with the latest that
# any module asks for.
set -eu
cd "$(dirname "$0")"

module=github.com/smapi-tools/caddy-smapi-upgrade
tested=$(go list -m -f '{{.Version}}' github.com/caddyserver/caddy/v2)
version=${CADDY_VERSION:-$tested}
case $version in
v[0-9]*)
	if [ "$(printf '%s\n' "$version" "$tested" | sort -V | head -n 1)" != "$tested" ]; then
		echo "xcaddy.sh: CADDY_VERSION $version is earlier than $tested, which go.mod needs; take that or a later one" >&2
		exit 2
	fi
	;;
esac

if command -v xcaddy >/dev/null 2>&1; then
	xcaddy=xcaddy
else
	xcaddy="go tool -modfile=.ci/tools.mod xcaddy"
fi

# The version v0.0.0 keeps Go from asking for published versions of a module that is replaced anyway.
$xcaddy build "$version" --output ./caddy --with "$module@v0.0.0=." "$@"
