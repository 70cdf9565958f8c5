package crowd_test

import (
	"os"
	"testing"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/sandbox"
)

// asSandbox in the environment makes the test binary the sandbox.
const asSandbox = "SMAPI_TEST_SANDBOX"

func TestMain(m *testing.M) {
	if os.Getenv(asSandbox) != "" {
		sandbox.Main()
		return
	}
	caddytest.Main(m)
}
