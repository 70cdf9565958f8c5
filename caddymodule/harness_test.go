package caddymodule_test

import (
	"os"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(clockFile); path != "" { // of a node
		caddymodule.SetClock(clockOf(path))
	}
	caddymodule.SetSecretInterval(10 * time.Millisecond)
	caddytest.Main(m)
}
