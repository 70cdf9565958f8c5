//go:build nobadger

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// rotating are servers that take whoever comes with a refresh token a second time for a thief. Access tokens are good for so
// long.
var rotating = map[string]func(t testing.TB, life time.Duration) *server{
	"fosite":        runFositeFor,
	"oidc-provider": func(t testing.TB, life time.Duration) *server { return runOIDCProvider(t, life, time.Minute).server },
}

// Without this the tests of refreshing would prove nothing.
func TestTheseServersRevokeTheFamilyOfARefreshTokenThatComesAgain(t *testing.T) {
	for name, run := range rotating {
		t.Run(name, func(t *testing.T) {
			oauth := run(t, time.Hour)
			first := oauth.ask(t, byPassword)
			second := oauth.ask(t, byRefresh(first.Refresh))
			if second.status != http.StatusOK || second.Refresh == "" || second.Refresh == first.Refresh || !oauth.works(t, second.Access) {
				t.Fatalf("refreshed to %+v", second)
			}
			if again := oauth.ask(t, byRefresh(first.Refresh)); again.status != http.StatusBadRequest || again.Error != "invalid_grant" {
				t.Errorf("the old token again gets %+v", again)
			}
			if newest := oauth.ask(t, byRefresh(second.Refresh)); newest.status != http.StatusBadRequest || newest.Error != "invalid_grant" {
				t.Errorf("the newest token then gets %+v", newest)
			}
			if oauth.works(t, second.Access) {
				t.Error("its access token is still good")
			}
		})
	}
}

// A household holds the pair of the upgrade for ever, and each controller a new one in its own memory only. Lives are
// shortened: these servers know no other clock.
func TestAHomeWithTwoControllersStaysSignedInWithAVault(t *testing.T) {
	for name, run := range rotating {
		t.Run(name, func(t *testing.T) { staysSignedIn(t, run) })
	}
}

func staysSignedIn(t *testing.T, server func(testing.TB, time.Duration) *server) {
	const life = 2 * time.Second
	oauth := server(t, life)
	storage, keys := t.TempDir(), vaultKeys(t)
	run := func() site {
		return caddyRunOn(t, storage, oauth.tokenEndpoint, bySecret, keepSignedIn, "replay off", "vault "+keys)
	}
	s := run()
	household := signedIn(t, s.upgrade(t, testuser))
	controllers := [2]pair{household, household}
	asked := 0
	for lives := range 4 {
		time.Sleep(life)
		if lives == 2 {
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			s = run()
			controllers[1] = household // it was restarted, too
		}
		begun := time.Now()
		for i, held := range controllers {
			got := signedIn(t, s.refresh(t, held))
			if works := oauth.works(t, got.authToken); got.privateKey != household.privateKey || got.authToken == held.authToken ||
				!works && time.Since(begun) < life/2 {
				t.Errorf("life %d, controller %d: %+v works: %v", lives, i, got, works)
			}
			controllers[i] = got
		}
		now := oauth.count("refresh_token")
		// A machine that is so slow has lived a life more.
		if inOneLife := time.Since(begun) < life/2; inOneLife && (now != asked+1 || controllers[0] != controllers[1]) {
			t.Errorf("life %d: %d refreshes, to %+v", lives, now-asked, controllers)
		}
		asked = now
	}
}

// The household goes on holding the key from before.
func TestAHomeThatWasUpgradedBeforeThereWasAVaultIsTakenIn(t *testing.T) {
	oauth := runFosite(t)
	storage, keys := t.TempDir(), vaultKeys(t)
	s := caddyRunOn(t, storage, oauth.tokenEndpoint, bySecret, keepSignedIn)
	household := signedIn(t, s.upgrade(t, testuser))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s = caddyRunOn(t, storage, oauth.tokenEndpoint, bySecret, keepSignedIn, "vault "+keys)
	first := signedIn(t, s.refresh(t, household))
	again := signedIn(t, s.refresh(t, household))
	if first != again || first.privateKey == household.privateKey || !oauth.works(t, again.authToken) {
		t.Errorf("refreshed to %+v and %+v", first, again)
	}
	oauth.checkPosts(t, "refresh_token", 1)
}

// A server of another make, by another grant: the handle is that of the old token, at every upgrade.
func TestAHomeThatIsUpgradedByTokenExchangeKeepsItsHandle(t *testing.T) {
	oauth := runZitadel(t)
	s := caddyRunOn(t, t.TempDir(), oauth.tokenEndpoint, bySecret, keepSignedIn, exchangeLoginToken, "replay off", "vault "+vaultKeys(t))
	household := signedIn(t, s.upgrade(t, oldToken))
	first := signedIn(t, s.refresh(t, household))
	check(t, s.refresh(t, household), answer{status: http.StatusOK, pair: first}) // another controller
	oauth.checkPosts(t, "refresh_token", 1)
	again := signedIn(t, s.upgrade(t, oldToken))
	check(t, s.refresh(t, first), answer{status: http.StatusOK, pair: again}) // whose tokens are the newest
	oauth.checkPosts(t, "refresh_token", 1)
	last := signedIn(t, s.refresh(t, again))
	oauth.checkPosts(t, "refresh_token", 2)
	for _, p := range []pair{first, again, last} {
		if p.privateKey != household.privateKey || !oauth.works(t, p.authToken) {
			t.Errorf("%+v after %+v", p, household)
		}
	}
}

func vaultKeys(t testing.TB) string {
	t.Helper()
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vault.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
