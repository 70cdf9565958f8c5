package crowd_test

import (
	"testing"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func TestMain(m *testing.M) { caddytest.Main(m) }
