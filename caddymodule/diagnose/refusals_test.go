package diagnose

import (
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// What check says to add is an option that loads, whatever the server calls its errors.
func TestTheOnErrorThatCheckSaysToAddLoads(t *testing.T) {
	for name, says := range map[string]bool{
		"account_locked": true, "account-locked": true, "a.b": true, "17003": true, "e0000011": true, "2fa": true, "403": true,
		"99": false, "0403": false, "4xx": false, "401-1": false, "other": false, "": true,
	} {
		tried := Tried{Error: name, Status: 403, ofStatus: true}
		line := tried.onError(token.Rejected)
		if (line != "") != says {
			t.Errorf("of %q it says %q", name, line)
		}
		if line == "" {
			continue
		}
		text := "example.com {\n\tsmapi_upgrade https://a.example/token {\n\t\tclient_id id\n\t\tclient_auth none\n\t\t" + line + "\n\t}\n}\n"
		if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
