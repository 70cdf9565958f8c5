// Package smapiupgrade adds the smapi_upgrade handler to a Caddy build:
//
//	xcaddy build --with github.com/smapi-tools/caddy-smapi-upgrade
//
// The handler itself lives in package caddymodule, the commands in caddymodule/command.
package smapiupgrade

import (
	_ "github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	_ "github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command"
)
