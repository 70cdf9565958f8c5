// Command sandbox shows an upgrade on one machine: see package internal/sandbox.
package main

import "github.com/smapi-tools/caddy-smapi-upgrade/internal/sandbox"

func main() { sandbox.Main() }
