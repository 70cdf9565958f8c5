package diagnose

import (
	"context"
	"fmt"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/capture"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/wholeway"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// checkOldService goes the whole way of an account that can be upgraded: through the handler, and with the pair to the old service.
func (x *Checked) checkOldService(ctx context.Context, config []byte, c smapi.Credentials) {
	const check = "old service"
	if x.settings.Policy.OldService == nil || x.Right == nil || x.Right.Outcome != flow.Upgraded {
		return
	}
	c.DeviceID, c.DeviceProvider = capture.CloudDevice, "Sonos"
	upgrade, everyday, err := wholeway.Try(ctx, config, x.at, player.Account{HouseholdID: checkHome, Credentials: c})
	switch {
	case err != nil:
		x.say(Fix, check, "not tried: "+err.Error())
		return
	case upgrade.Outcome != player.Upgraded:
		x.say(Problem, check, fmt.Sprintf("not called, because the upgrade through the whole handler came to %s", upgrade.Outcome),
			"see whether the call and the token response have what old_service is made of")
		return
	}
	says := wholeway.Says(everyday, x.settings.Policy.OldService.Kind)
	switch everyday.Outcome {
	case player.Served:
		x.say(Well, check, says)
	case player.SessionExpired:
		x.say(Problem, check, says+": it refuses the account's user name and password",
			"see whether the account has the same password there, and what old_service is made of")
	case player.NotSMAPI, player.NoAnswer:
		x.say(Problem, check, says, "see whether what is behind smapi_upgrade in the configuration is the old service, and can be reached from here")
	default:
		x.say(Problem, check, says, "see whether it knows "+string(x.settings.Policy.OldService.Kind)+", and what old_service is made of")
	}
}
