//go:build nobadger

package integration

import (
	"cmp"
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The device grant of zitadel/oidc. Its page is that of whoever uses it, and stands for the listener here.

func (s *zitadelStorage) StoreDeviceAuthorization(_ context.Context, client, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices[deviceCode] = &op.DeviceAuthorizationState{ClientID: client, Expires: expires, Scopes: scopes}
	s.userCodes[userCode] = deviceCode
	return nil
}

// GetDeviceAuthorizatonState gives a code up with its success, as most servers do.
func (s *zitadelStorage) GetDeviceAuthorizatonState(_ context.Context, client, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.devices[deviceCode]
	if state == nil || state.ClientID != client {
		return nil, errUnknown
	}
	if state.Done {
		delete(s.devices, deviceCode)
	}
	return state, nil
}

// listener types a code in, and allows or denies.
func (s *zitadelStorage) listener(t testing.TB, userCode string, allows bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.devices[s.userCodes[userCode]]
	if state == nil {
		t.Fatalf("the server does not know the code %q", userCode)
	}
	state.Done, state.Denied, state.Subject, state.AuthTime = allows, !allows, "testuser", time.Now()
}

const deviceGrant = string(oidc.GrantTypeDeviceCode)

const signInOption = "sign_in {\n\t\t\tapp_url_string_id SIGN_IN\n\t\t}"

// deviceServer is one whose listeners type in codes.
type deviceServer struct {
	*server
	listener func(t testing.TB, userCode string, allows bool)
	client   string // as it is configured
	issuer   string // where it has a path, and
	page     string // where its page is elsewhere than at /device?user_code=: these
	denies   bool   // it has a page on which a listener can
	repeats  bool   // it answers a code that is used up as before
}

// deviceServers are run with codes that are good for so long.
var deviceServers = map[string]func(t testing.TB, codeLife time.Duration) deviceServer{
	"zitadel": func(t testing.TB, codeLife time.Duration) deviceServer {
		oauth, store := newZitadelWithStorage(t, zitadelClient{auth: oidc.AuthMethodBasic, codeLife: codeLife})
		return deviceServer{server: oauth, listener: store.listener, client: bySecret + "\n\t\tscope offline_access", denies: true}
	},
	"oidc-provider": func(t testing.TB, codeLife time.Duration) deviceServer {
		p := runOIDCProvider(t, time.Hour, codeLife)
		return deviceServer{server: p.server, listener: p.listener, client: bySecret + "\n\t\tscope offline_access", denies: true}
	},
	"Dex": func(t testing.TB, codeLife time.Duration) deviceServer {
		oauth := runDex(t, codeLife)
		return deviceServer{
			server:   oauth,
			listener: func(t testing.TB, userCode string, _ bool) { dexListener(t, oauth.url, userCode) },
			client:   bySecret + "\n\t\tclient_auth post\n\t\tscope openid offline_access",
			repeats:  true,
		}
	},
	"Glewlwyd": func(t testing.TB, codeLife time.Duration) deviceServer {
		oauth, listener := runGlewlwyd(t, codeLife)
		return deviceServer{
			server:   oauth,
			listener: func(t testing.TB, userCode string, _ bool) { listener(t, userCode) },
			client:   bySecret + "\n\t\tclient_auth basic_raw\n\t\tscope openid",
			issuer:   "/api/oidc",
			page:     "/api/oidc/device?code=",
		}
	},
}

// pageFor is where a listener signs in who has this code.
func (d deviceServer) pageFor(userCode string) string {
	return d.url + cmp.Or(d.page, "/device?user_code=") + userCode
}

// signIn is a Caddy that signs listeners in there.
func (d deviceServer) signIn(t testing.TB, options ...string) site {
	t.Helper()
	return caddyRun(t, "", append(options, "issuer "+d.url+d.issuer, d.client, "refresh_auth_tokens", signInOption)...)
}

// atEach runs a test at each of these servers.
func atEach(t *testing.T, codeLife time.Duration, test func(t *testing.T, oauth deviceServer)) {
	for name, run := range deviceServers {
		t.Run(name, func(t *testing.T) { test(t, run(t, codeLife)) })
	}
}

type link struct {
	URL      string `xml:"regUrl"`
	Code     string `xml:"linkCode"`
	Show     bool   `xml:"showLinkCode"`
	DeviceID string `xml:"linkDeviceId"`
}

func (s site) link(t testing.TB) (l link) {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(s.request(t, "getAppLink", "<householdId>Sonos_abc123</householdId>", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Link link `xml:"Body>getAppLinkResponse>getAppLinkResult>authorizeAccount>deviceLink"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil || response.StatusCode != http.StatusOK || answer.Link.DeviceID == "" {
		t.Fatalf("no link: %d %s, %v", response.StatusCode, body, err)
	}
	return answer.Link
}

func (s site) poll(t testing.TB, l link) answer {
	t.Helper()
	const method = "getDeviceAuthToken"
	return do(t, method, s.request(t, method, "<householdId>Sonos_abc123</householdId><linkCode>"+l.Code+"</linkCode><linkDeviceId>"+l.DeviceID+"</linkDeviceId>", ""))
}

// pollUntil polls as a player does, until the answer is another than not yet.
func (s site) pollUntil(t testing.TB, l link) (got answer) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if got = s.poll(t, l); got != notYet || time.Now().After(deadline) {
			return got
		}
	}
}

var (
	notYet = answer{status: http.StatusInternalServerError, fault: "Client.NOT_LINKED_RETRY"}
	never  = answer{status: http.StatusInternalServerError, fault: "Client.NOT_LINKED_FAILURE"}
)

func TestAListenerSignsInByTheDeviceGrant(t *testing.T) {
	atEach(t, time.Minute, func(t *testing.T, oauth deviceServer) {
		s := oauth.signIn(t)
		l := s.link(t)
		if l.URL != oauth.pageFor(l.Code) || !l.Show {
			t.Fatalf("the link is %+v", l)
		}
		for range 5 { // within one interval
			check(t, s.poll(t, l), notYet)
		}
		oauth.checkPosts(t, deviceGrant, 1)
		oauth.listener(t, l.Code, true)
		first := signedIn(t, s.pollUntil(t, l))
		if !oauth.works(t, first.authToken) {
			t.Error("the token does not work")
		}
		// The code is used up, and the answer may have been lost.
		if again := signedIn(t, s.poll(t, l)); again != first {
			t.Errorf("again %+v and not %+v", again, first)
		}
		if second := signedIn(t, s.refresh(t, first)); !oauth.works(t, second.authToken) || second == first {
			t.Errorf("refreshed to %+v", second)
		}
	})
}

// The handle is the player's from the first.
func TestAListenerSignsInWithAVault(t *testing.T) {
	atEach(t, time.Minute, func(t *testing.T, oauth deviceServer) {
		s := oauth.signIn(t, "vault "+vaultKeys(t))
		l := s.link(t)
		oauth.listener(t, l.Code, true)
		first := signedIn(t, s.pollUntil(t, l))
		if second := signedIn(t, s.refresh(t, first)); second.privateKey != first.privateKey || !oauth.works(t, second.authToken) {
			t.Errorf("refreshed to %+v", second)
		}
		if third := signedIn(t, s.refresh(t, first)); third.privateKey != first.privateKey || !oauth.works(t, third.authToken) {
			t.Errorf("another controller has %+v", third)
		}
		oauth.checkPosts(t, "refresh_token", 1)
	})
}

// As two instances ask that do not know of each other.
func TestAServerThatIsAskedTooFastIsNotYet(t *testing.T) {
	atEach(t, time.Minute, func(t *testing.T, oauth deviceServer) {
		s := oauth.signIn(t)
		l := s.link(t)
		check(t, s.poll(t, l), notYet)
		for n := range 2 {
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			check(t, oauth.signIn(t).poll(t, l), notYet)
			oauth.checkPosts(t, deviceGrant, n+2)
		}
	})
}

func TestAListenerWhoDeniesIsNotSignedIn(t *testing.T) {
	atEach(t, time.Minute, func(t *testing.T, oauth deviceServer) {
		if !oauth.denies {
			return
		}
		s := oauth.signIn(t)
		l := s.link(t)
		oauth.listener(t, l.Code, false)
		check(t, s.pollUntil(t, l), never)
	})
}

func TestACodeThatHasRunOutSignsNobodyIn(t *testing.T) {
	atEach(t, 2*time.Second, func(t *testing.T, oauth deviceServer) {
		s := oauth.signIn(t)
		check(t, s.pollUntil(t, s.link(t)), never)
	})
}

func TestASignInSurvivesARestartAndAnOutage(t *testing.T) {
	atEach(t, time.Minute, func(t *testing.T, oauth deviceServer) {
		l := oauth.signIn(t).link(t)
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		s := oauth.signIn(t)
		check(t, s.poll(t, l), notYet)
		oauth.listener(t, l.Code, true)
		signedIn(t, s.pollUntil(t, l))

		l = s.link(t)
		oauth.listener(t, l.Code, true)
		oauth.stop()
		check(t, s.poll(t, l), notYet)
		oauth.restart()
		if first := signedIn(t, s.pollUntil(t, l)); !oauth.works(t, first.authToken) {
			t.Error("the token does not work")
		}
	})
}

func TestAUsedCodeIsTheServersToJudgeAtAnInstanceThatDoesNotKnowIt(t *testing.T) {
	atEach(t, time.Minute, func(t *testing.T, oauth deviceServer) {
		s := oauth.signIn(t)
		l := s.link(t)
		oauth.listener(t, l.Code, true)
		first := signedIn(t, s.pollUntil(t, l))
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		want := never
		if oauth.repeats {
			want = answer{status: http.StatusOK, pair: first}
		}
		check(t, oauth.signIn(t).pollUntil(t, l), want)
	})
}
