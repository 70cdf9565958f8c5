// Command caddy is Caddy with the smapi_upgrade handler, the program that xcaddy would generate.
package main

import (
	_ "time/tzdata"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
)

func main() {
	caddycmd.Main()
}
