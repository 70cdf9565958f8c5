package caddymodule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// With a vault an instance knows what others have just been refused. Each of these homes comes to one of them first, and
// then to the other: each has clients, and so fuses, of their own.
func TestARefusalAtAnotherInstanceIsWeighedToo(t *testing.T) {
	endpoint, old := serve(t, says(400, `{"error":"invalid_grant"}`)), oldService(t)
	first, second := loopback.FreeAddress(), loopback.FreeAddress()
	keys := vaultFile(t)
	site := func(address, id string) string {
		return fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}\n", address,
			strings.Replace(directive(endpoint, old, "refresh_auth_tokens", "vault "+keys), "the-id", id, 1))
	}
	s := caddyRun(t, strings.TrimSuffix("respond ok\n}\n"+site(first, "first")+site(second, "second"), "}\n"))
	const accounts = 60
	for _, address := range []string{first, second} {
		s.url = "http://" + address
		became := map[string]int{}
		for i := range accounts {
			became[told(t, s.post(t, tries(t, fmt.Sprint("account", i), "right", "home")))]++
		}
		if became["blank"] > 19 || became["blank"]+became["unavailable"] != accounts {
			t.Errorf("%v", became)
		}
	}
	if n := len(endpoint.asked()); n != accounts {
		t.Errorf("%d were asked for", n)
	}
}
