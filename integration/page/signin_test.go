//go:build nobadger && browser

package page

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// The address of the answer is opened in a browser, where the listener signs in, and the next poll has tokens.
func TestAListenerSignsInInABrowser(t *testing.T) {
	oauth := caddytest.OAuthServer(t, map[string]string{"ella": "marker-password"})
	s := caddytest.Run(t, caddytest.Directive(oauth, caddytest.OldService(t),
		"sign_in {\ndevice_endpoint "+oauth.URL+"/device\napp_url_string_id SIGN_IN\n}"))
	folder := *pictures
	if folder != "" {
		folder, _ = filepath.Abs(folder)
	}
	signIn := func(l caddytest.DeviceLink, password string) string {
		t.Helper()
		cmd := exec.Command("node", "signin.mjs", l.URL, l.Code, "ella", password, folder)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, &said)
		}
		return strings.TrimSpace(string(out))
	}
	l := s.Link(t)
	caddytest.CheckAnswer(t, s.Poll(t, l), "not-linked-retry.xml")
	if says := signIn(l, "another"); says == "" {
		t.Error("the page says nothing of a wrong password")
	}
	caddytest.CheckAnswer(t, s.Poll(t, l), "not-linked-retry.xml")
	t.Logf("the page says: %s", signIn(l, "marker-password"))
	var got caddytest.Answer
	caddytest.Eventually(t, "the listener has signed in", func() bool { got = s.Poll(t, l); return got.Status == http.StatusOK })
	if authToken, key := caddytest.TokensOf(got); authToken == "" || key == "" {
		t.Errorf("the poll got %+v", got)
	}
}
