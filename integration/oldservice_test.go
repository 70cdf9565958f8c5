//go:build nobadger

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// oldServices are real SOAP servers that know nothing of OAuth, by Session IDs or logins. They keep sessions in a folder.
var oldServices = map[string]func(t testing.TB, kind, sessions string) (address string){
	"PHP's SoapServer": runPHP,
	"npm's soap": func(t testing.TB, kind, sessions string) string {
		return startNode(t, []string{"KIND=" + kind, "SESSIONS=" + sessions}, "oldservice.mjs", "../oldservice/smapi.wsdl")
	},
}

func runPHP(t testing.TB, kind, sessions string) (address string) {
	t.Helper()
	address = loopback.FreeAddress()
	cmd := exec.Command("php", "-S", address, "server.php")
	cmd.Dir, cmd.Env = "oldservice", append(os.Environ(), "KIND="+kind, "SESSIONS="+sessions)
	start(t, cmd) // Debian has it in php-cli and php-soap
	listening(t, address)
	return "http://" + address
}

// controller calls a method as npm's @svrooij/sonos does, which players have nothing to do with. Its householdId is that of
// all calls here.
func (s site) controller(t testing.TB, options map[string]string, method string, argument any) (result map[string]any) {
	t.Helper()
	options["url"], options["householdId"], options["auth"] = s.url+"/smapi", "Sonos_abc123", "AppLink"
	texts := make([]string, 2)
	for i, value := range []any{options, argument} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	said, err := node(nil, "controller.mjs", texts[0], method, texts[1]).Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			t.Log(string(exit.Stderr))
		}
		t.Fatalf("%s: %v (%s)", method, err, nodePackages)
	}
	if err := json.Unmarshal(said, &result); err != nil {
		t.Fatalf("%s: %v in %s", method, err, said)
	}
	return result
}

// browses looks whether the old service answers a home with this pair.
func (s site) browses(t testing.TB, p pair) {
	t.Helper()
	got := s.controller(t, map[string]string{"deviceId": "00-0E-58-5B-06-D6:8", "authToken": p.authToken, "key": p.privateKey},
		"GetMetadata", map[string]any{"id": "root", "index": 0, "count": 10})
	albums, _ := got["mediaCollection"].([]any)
	if len(albums) != 1 {
		t.Fatalf("browsing got %v", got)
	}
	if album := albums[0].(map[string]any); album["id"] != "root/1" || !strings.HasPrefix(fmt.Sprint(album["title"]), "Älbum") {
		t.Errorf("browsing got %v", album)
	}
}

func begun(t testing.TB, sessions string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(sessions, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A controller that nobody here wrote, with the tokens of an upgrade, at old services that nobody has touched.
func TestAnUpgradedHomeBrowsesRealOldServices(t *testing.T) {
	for name, run := range oldServices {
		for _, kind := range []string{"session_id", "login"} {
			t.Run(name+" by "+kind, func(t *testing.T) {
				oauth, sessions, storage := runFosite(t), t.TempDir(), t.TempDir()
				options := []string{bySecret, keepSignedIn, "vault " + vaultKeys(t), "old_service " + kind}
				proxy := "reverse_proxy " + run(t, kind, sessions)
				s := caddyBefore(t, storage, proxy, oauth.tokenEndpoint, options...)
				home := signedIn(t, s.upgrade(t, testuser))
				for range 2 {
					s.browses(t, home)
				}
				want := map[string]int{"session_id": 1}[kind]
				if files := begun(t, sessions); len(files) != want {
					t.Errorf("%d sessions have begun, want %d", len(files), want)
				}
				for _, session := range begun(t, sessions) { // it forgets them
					if err := os.Remove(session); err != nil {
						t.Fatal(err)
					}
				}
				s.browses(t, home)
				if err := caddy.Stop(); err != nil {
					t.Fatal(err)
				}
				s = caddyBefore(t, storage, proxy, oauth.tokenEndpoint, options...)
				s.browses(t, home)
				if files := begun(t, sessions); len(files) != 2*want { // it was forgotten here with the process
					t.Errorf("%d sessions have begun, want %d", len(files), 2*want)
				}
				if refreshed := signedIn(t, s.refresh(t, home)); refreshed != home {
					t.Errorf("refreshed to %+v", refreshed)
				}
			})
		}
	}
}

// The same controller is signed in, with what getAppLink gave it.
func TestAControllerThatNobodyHereWroteSignsIn(t *testing.T) {
	atEach(t, time.Minute, func(t *testing.T, oauth deviceServer) {
		s := oauth.signIn(t)
		got := s.controller(t, map[string]string{"deviceId": "00-0E-58-5B-06-D6:8"}, "GetLoginLink", nil)
		code, device := fmt.Sprint(got["linkCode"]), fmt.Sprint(got["linkDeviceId"])
		if got["showLinkCode"] != true || got["regUrl"] != oauth.pageFor(code) {
			t.Fatalf("the link is %v", got)
		}
		poll := func() map[string]any {
			return s.controller(t, map[string]string{"deviceId": device}, "GetDeviceAuthToken", code)
		}
		if got := poll(); got["fault"] != "Client.NOT_LINKED_RETRY" {
			t.Errorf("before the listener has signed in: %v", got)
		}
		oauth.listener(t, code, true)
		s.pollUntil(t, link{Code: code, DeviceID: device})
		got = poll() // and the answer is given again
		token := fmt.Sprint(got["authToken"])
		if !oauth.works(t, token) || got["privateKey"] == "" {
			t.Errorf("signed in with %v", got)
		}
	})
}
