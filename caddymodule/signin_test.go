package caddymodule_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// deviceServer is an authorization server with the device grant, which answers polls as it is told.
type deviceServer struct {
	*caddytest.Server
	mu    sync.Mutex
	code  string // answers device authorizations, in the place of a usual one
	polls http.HandlerFunc
}

const deviceCode = `{"device_code":"marker-device-code","user_code":"MARK-ER01","verification_uri":"https://auth.example.com/marker",` +
	`"verification_uri_complete":"https://auth.example.com/marker?user_code=MARK-ER01","expires_in":600,"interval":1}`

func newDeviceServer(t testing.TB) *deviceServer {
	d := &deviceServer{code: deviceCode, polls: caddytest.Says(400, `{"error":"authorization_pending"}`)}
	d.Server = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		polls, code := d.polls, d.code
		d.mu.Unlock()
		if r.URL.Path == "/token" {
			polls(w, r)
			return
		}
		caddytest.Says(200, code)(w, r)
	})
	return d
}

func (d *deviceServer) answers(polls http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.polls = polls
}

// signIn is the option, with others in its block.
func (d *deviceServer) signIn(more ...string) string {
	return "sign_in {\ndevice_endpoint " + d.URL + "/device\napp_url_string_id SIGN_IN\n" + strings.Join(more, "\n") + "\n}"
}

func TestAListenerSignsInAtTheAuthorizationServer(t *testing.T) {
	t.Parallel()
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	s := caddytest.Apart(t, caddytest.Directive(oauth.Server, old, "scope offline_access", "param audience api", oauth.signIn()))
	l := s.Link(t)
	if l.URL != "https://auth.example.com/marker?user_code=MARK-ER01" || l.Code != "MARK-ER01" || !l.Show || len(l.DeviceID) > 1024 {
		t.Errorf("the link is %+v", l)
	}
	asked := oauth.Asked()
	if len(asked) != 1 || asked[0].URL.Path != "/device" || asked[0].Text != "audience=api&scope=offline_access" && asked[0].Text != "scope=offline_access&audience=api" {
		t.Errorf("asked for a code by %+v", asked)
	}
	caddytest.CheckAnswer(t, s.Poll(t, l), "not-linked-retry.xml")
	caddytest.CheckAnswer(t, s.Poll(t, l), "not-linked-retry.xml") // too early
	if asked := oauth.Asked(); len(asked) != 1 || !strings.Contains(asked[0].Text, "grant_type="+url.QueryEscape("urn:ietf:params:oauth:grant-type:device_code")) ||
		!strings.Contains(asked[0].Text, "device_code=marker-device-code") {
		t.Errorf("polled by %+v", asked)
	}
	oauth.answers(caddytest.IssuesTokens)
	caddytest.Eventually(t, "the listener has signed in", func() bool { return s.Poll(t, l).Status == http.StatusOK })
	for range 2 { // the answer may have been lost
		got := s.Poll(t, l)
		if authToken, privateKey := caddytest.Pair(t, got.Body); authToken != "new-token" || privateKey != "new-key" || strings.Contains(got.Body, "userInfo") {
			t.Errorf("the answer is %s", got.Body)
		}
	}
	if len(old.Asked()) != 0 {
		t.Error("the old service was asked")
	}
}

func TestASignInThatFailsEndsForGood(t *testing.T) {
	for name, polls := range map[string]http.HandlerFunc{
		"refused": caddytest.Says(403, `{"error":"access_denied"}`),
		"expired": caddytest.Says(400, `{"error":"expired_token"}`),
		"used":    caddytest.Says(400, `{"error":"invalid_grant"}`),
	} {
		oauth, old := newDeviceServer(t), caddytest.OldService(t)
		oauth.answers(polls)
		s := caddytest.Run(t, caddytest.Directive(oauth.Server, old, oauth.signIn()))
		t.Log(name)
		caddytest.CheckAnswer(t, s.Poll(t, s.Link(t)), "link-failed.xml")
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnOutageOfTheTokenEndpointIsNotYet(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(oauth.Server, old, oauth.signIn()))
	l := s.Link(t)
	for _, polls := range []http.HandlerFunc{caddytest.Says(503, ""), caddytest.Says(429, ""), raw("no HTTP\r\n\r\n"), caddytest.Says(200, "<html>")} {
		oauth.answers(polls)
		caddytest.CheckAnswer(t, s.Poll(t, l), "not-linked-retry.xml")
	}
}

func TestWhatIsNotOursOfASignInIsForwarded(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(oauth.Server, old, oauth.signIn()))
	for name, body := range map[string][]byte{
		"a poll of the old service":      caddytest.File(t, "requests", "sign-in-poll.xml"),
		"a linkDeviceId of 1 MB":         bytes.Replace(caddytest.File(t, "requests", "sign-in-poll.xml"), []byte("sealed"), bytes.Repeat([]byte("x"), 1<<20), 1),
		"one that looks as if it were":   bytes.Replace(caddytest.File(t, "requests", "sign-in-poll.xml"), []byte("sealed"), []byte("eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAAAAAAAAAAAAAA.e30.AAAAAAAAAAAAAAAAAAAAAA"), 1),
		"a poll without a linkDeviceId":  caddytest.File(t, "requests", "forward-poll.xml"),
		"a poll with the old account":    caddytest.File(t, "requests", "forward-poll-with-login.xml"),
		"another method":                 caddytest.File(t, "requests", "forward-get-metadata.xml"),
		"a linkCode that is not Sonos's": caddytest.File(t, "requests", "forward-unqualified-link-code.xml"),
	} {
		r := s.Request(t, body)
		r.Header.Del("SOAPAction")
		if got := s.Do(t, r); got.Status != http.StatusTeapot {
			t.Errorf("%s: %+v", name, got)
		}
		if asked := old.Asked(); len(asked) != 1 || asked[0].Text != string(body) {
			t.Errorf("%s: forwarded as %+v", name, asked)
		}
	}
	if len(oauth.Asked()) != 0 {
		t.Error("the authorization server was asked")
	}
}

func TestWithoutSignInAllOfItIsForwarded(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(oauth.Server, old))
	for method, request := range map[string]string{
		"getAppLink": "sign-in-get-app-link.xml", "getDeviceLinkCode": "sign-in-get-device-link-code.xml", "getDeviceAuthToken": "sign-in-poll.xml",
	} {
		if got := s.Ask(t, method, caddytest.File(t, "requests", request)); got.Status != http.StatusTeapot {
			t.Errorf("%s: %+v", method, got)
		}
	}
}

func TestModesSayWhatBecomesOfASignIn(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(oauth.Server, old, "mode reauthorize", "refresh_auth_tokens", oauth.signIn()))
	caddytest.CheckAnswer(t, s.Upgrade(t), "reauthorize.xml")
	oauth.answers(caddytest.IssuesTokens)
	if got := s.Poll(t, s.Link(t)); got.Status != http.StatusOK {
		t.Errorf("in mode reauthorize: %+v", got)
	}
	got := s.Ask(t, "refreshAuthToken", caddytest.File(t, "requests", "refresh-auth-token.xml"))
	if caddytest.CheckAnswer(t, got, "refreshed.xml"); strings.Contains(s.Log(t), "there is no sign_in") {
		t.Error("it warns of a sign_in that is there")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	oauth.Asked()
	s = caddytest.Run(t, caddytest.Directive(oauth.Server, old, "mode observe", oauth.signIn()))
	if got := s.Ask(t, "getAppLink", caddytest.File(t, "requests", "sign-in-get-app-link.xml")); got.Status != http.StatusTeapot || len(oauth.Asked()) != 0 {
		t.Errorf("in mode observe: %+v", got)
	}
	if lines := observedLines(s.Log(t)); len(lines) != 1 || !strings.Contains(lines[0], `"would":"exchange"`) || !strings.Contains(lines[0], `"method":"getAppLink"`) {
		t.Errorf("observed as %v", lines)
	}
}

func TestItWarnsWhereNobodyIsKnownToSignListenersIn(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	for options, want := range map[string]bool{
		"mode reauthorize": true, "expire_session_ids": true, "refresh_auth_tokens": false, "expire_session_ids\nhouseholds 10%": false,
		"expire_session_ids\n" + oauth.signIn(): false,
	} {
		s := caddytest.Run(t, caddytest.Directive(oauth.Server, old, options))
		if got := strings.Contains(s.Log(t), "there is no sign_in"); got != want {
			t.Errorf("%s: warned %v", options, got)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// Another client than the one for upgrades, and an issuer whose metadata says where.
func TestSignInMayHaveAClientOfItsOwn(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	secret := filepath.Join(t.TempDir(), "secret")
	caddytest.Write(t, secret, "device-secret")
	s := caddytest.Run(t, caddytest.Directive(oauth.Server, old, oauth.signIn("client_id devices", "client_secret {file."+secret+"}", "client_auth post", "scope one two", "show_link_code off")))
	l := s.Link(t)
	if asked := oauth.Asked(); len(asked) != 1 || asked[0].Header.Get("Authorization") != "" ||
		asked[0].Text != "scope=one+two&client_id=devices&client_secret=device-secret" {
		t.Errorf("asked by %+v", asked)
	}
	if l.Show {
		t.Error("the code is shown though the address has it")
	}
	s.Poll(t, l)
	if asked := oauth.Asked(); len(asked) != 1 || !strings.HasSuffix(asked[0].Text, "&client_id=devices&client_secret=device-secret") {
		t.Errorf("polled by %+v", asked)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}

	var metadata *caddytest.Server
	metadata = caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"issuer":"`+metadata.URL+`","token_endpoint":"`+oauth.URL+`/token","device_authorization_endpoint":"`+oauth.URL+`/device"}`)
		}
	})
	s = caddytest.Run(t, "smapi_upgrade {\nissuer "+metadata.URL+"\nclient_id the-id\nclient_secret s\nsign_in {\napp_url_string_id SIGN_IN\n}\n}\nreverse_proxy "+old.URL)
	oauth.answers(caddytest.IssuesTokens)
	if got := s.Poll(t, s.Link(t)); got.Status != http.StatusOK || len(metadata.Asked()) != 1 {
		t.Errorf("by an issuer: %+v", got)
	}
}

// Nothing of a sign-in that is a secret gets out, with all switched on that an operator can see more by.
func TestNothingSecretOfASignInGetsOut(t *testing.T) {
	received := collect(t)
	for name, polls := range map[string]http.HandlerFunc{
		"pending": caddytest.Says(403, `{"error":"authorization_pending","error_description":"marker-device-code"}`),
		"linked":  caddytest.Says(200, `{"access_token":"marker-new-token","refresh_token":"marker-new-key"}`),
		"unfit":   caddytest.Says(200, `{"access_token":"marker-new-token"}`),
		"failed":  caddytest.Says(400, `{"error":"marker-device-code"}`),
		"refused": caddytest.Says(403, `{"error":"access_denied","error_uri":"marker"}`),
		"failing": raw("HTTP/1.1 marker-device-code\r\n\r\n"),
	} {
		oauth := newDeviceServer(t)
		oauth.answers(polls)
		o := caddytest.Operate(t, "tracing {\nspan request\n}\n"+caddytest.Directive(oauth.Server, caddytest.OldService(t), oauth.signIn()))
		for _, code := range []string{deviceCode, `{"device_code":"marker-device-code","user_code":"` + strings.Repeat("marker", 6) + `","verification_uri":"https://marker"}`, `{"error":"marker is no name of an error"}`} {
			oauth.mu.Lock()
			oauth.code = code
			oauth.mu.Unlock()
			got := o.Ask(t, "getAppLink", marked(t, "sign-in-get-app-link.xml"))
			if got.Status != http.StatusOK {
				checkNoMarker(t, name+", a fault", got.Body)
				continue
			}
			var l caddytest.DeviceLink
			_, after, _ := strings.Cut(got.Body, "<linkDeviceId>")
			l.DeviceID, _, _ = strings.Cut(after, "<")
			body := strings.Replace(string(marked(t, "sign-in-poll.xml")), ">sealed<", ">"+l.DeviceID+"<", 1)
			if got := o.Ask(t, "getDeviceAuthToken", []byte(body)); got.Status != http.StatusOK {
				checkNoMarker(t, name+", a fault", got.Body)
			}
			for _, text := range []string{o.Log(t), o.Admin.Get(t, "/metrics").Body, o.Admin.Get(t, "/smapi_upgrade/status").Body, o.Admin.Get(t, "/smapi_upgrade/page.json").Body} {
				if strings.Contains(text, l.DeviceID) {
					t.Errorf("%s: the linkDeviceId", name)
				}
			}
		}
		for _, text := range []string{o.Log(t), o.Admin.Get(t, "/metrics").Body, o.Admin.Get(t, "/smapi_upgrade/status").Body, o.Admin.Get(t, "/smapi_upgrade/page.json").Body} {
			checkNoMarker(t, name, text)
			if !strings.Contains(text, "link_started") {
				t.Errorf("%s: nothing of it in %.500s", name, text)
			}
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	received.mu.Lock()
	defer received.mu.Unlock()
	if len(received.all) == 0 {
		t.Fatal("there are no spans")
	}
	checkNoMarker(t, "the spans", received.raw.String())
}

// givesOnce answers polls as most servers do: with the tokens once, and that the code is used up from then on.
func givesOnce(more string) http.HandlerFunc {
	var given atomic.Bool
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.PostFormValue("grant_type") == "refresh_token":
			caddytest.Says(200, `{"access_token":"newer-token","refresh_token":"newer-key","expires_in":3600}`)(w, r)
		case given.CompareAndSwap(false, true):
			caddytest.Says(200, `{"access_token":"new-token","refresh_token":"new-key","expires_in":3600`+more+`}`)(w, r)
		default:
			caddytest.Says(400, `{"error":"invalid_grant"}`)(w, r)
		}
	}
}

func TestASignInIsSpreadOverInstancesOfWhichOneDies(t *testing.T) {
	t.Parallel()
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	c := caddytest.StartCluster(t, 3, caddytest.Directive(oauth.Server, old, "refresh_auth_tokens", "vault "+caddytest.VaultFile(t), oauth.signIn("user_id sub")))
	l := c.Sites[0].Link(t)
	for _, s := range c.Sites {
		caddytest.CheckAnswer(t, s.Poll(t, l), "not-linked-retry.xml")
	}
	_ = c.Nodes[0].Process.Kill()
	oauth.answers(givesOnce(`,"id_token":"e30.eyJzdWIiOiJtYXJrZXItdXNlciJ9.c2ln"`))
	caddytest.Eventually(t, "the listener has signed in", func() bool { return c.Sites[1].Poll(t, l).Status == http.StatusOK })
	// The answer was lost, and the next poll is at whichever instance.
	first := c.Sites[1].Poll(t, l)
	authToken, handle := caddytest.TokensOf(first)
	var again caddytest.Answer
	caddytest.Eventually(t, "the other instance has asked", func() bool {
		again = c.Sites[2].Poll(t, l)
		return again.Status == http.StatusOK
	})
	if authToken != "new-token" || !strings.HasPrefix(handle, "smv1") || !strings.Contains(first.Body, "<userIdHashCode>") || again.Body != first.Body {
		t.Errorf("the answers are %s and %s", first.Body, again.Body)
	}
	if newer, key := caddytest.TokensOf(c.Sites[2].Refresh(t, authToken, handle)); newer != "newer-token" || key != handle {
		t.Errorf("refreshed to %q, %q", newer, key)
	}
}

func TestAVaultSealsForAPublicClientAndHashesUsers(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	keys, storage := caddytest.VaultFile(t), t.TempDir()
	site := "smapi_upgrade " + oauth.URL + "/token {\nclient_id the-id\nclient_auth none\nrefresh_auth_tokens\nvault " + keys + "\n" +
		oauth.signIn("user_id sub") + "\n}\nreverse_proxy " + old.URL
	hashes := map[string]bool{}
	for range 2 { // the same for ever
		oauth.answers(givesOnce(`,"id_token":"e30.eyJzdWIiOiJtYXJrZXItdXNlciJ9.c2ln"`))
		s := caddytest.RunOn(t, storage, site)
		got := s.Poll(t, s.Link(t))
		_, after, _ := strings.Cut(got.Body, "<userIdHashCode>")
		hash, _, _ := strings.Cut(after, "<")
		if hashes[hash] = true; got.Status != http.StatusOK || hash == "" {
			t.Fatalf("%+v", got)
		}
		checkNoMarker(t, "the answer", got.Body)
		checkNoMarker(t, "the log", s.Log(t))
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if len(hashes) != 1 {
		t.Errorf("the hashes are %v", hashes)
	}
}

// What a code brings is given once, so that nobody is asked whose tokens could not be kept.
func TestAStorageThatFailsCostsNoCode(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.OldService(t)
	oauth.answers(givesOnce(""))
	storage := filepath.Join(t.TempDir(), "storage")
	s := caddytest.RunOn(t, storage, caddytest.Directive(oauth.Server, old, "refresh_auth_tokens", "vault "+caddytest.VaultFile(t), oauth.signIn()))
	l := s.Link(t)
	caddytest.Break(t, storage)
	caddytest.CheckAnswer(t, s.Call(t, "refreshAuthToken", "refresh-auth-token.xml"), "service-unavailable.xml")
	oauth.Asked()
	if caddytest.CheckAnswer(t, s.Poll(t, l), "not-linked-retry.xml"); len(oauth.Asked()) != 0 {
		t.Error("a code was spent")
	}
	if err := os.Remove(storage); err != nil {
		t.Fatal(err)
	}
	caddytest.Eventually(t, "the listener has signed in", func() bool { return s.Poll(t, l).Status == http.StatusOK })
	if _, handle := caddytest.TokensOf(s.Poll(t, l)); !strings.HasPrefix(handle, "smv1") {
		t.Errorf("the privateKey is %q", handle)
	}
}

func TestWhoHasSignedInBrowsesAnOldServiceThatNeverLearnsOfIt(t *testing.T) {
	oauth, old := newDeviceServer(t), caddytest.Strict(t, "login")
	oauth.answers(givesOnce(`,"legacy_user":"testuser","legacy_password":"12345"`))
	s := caddytest.Run(t, caddytest.Directive(oauth.Server, old.Server, "refresh_auth_tokens", "vault "+caddytest.VaultFile(t),
		"old_service login {\nusername {token.legacy_user}\npassword {token.legacy_password}\n}", oauth.signIn()))
	authToken, key := caddytest.TokensOf(s.Poll(t, s.Link(t)))
	if !strings.HasPrefix(authToken, "smv1.") || !strings.HasPrefix(key, "smv1") {
		t.Fatalf("the pair is %q, %q", authToken, key)
	}
	checkServed(t, s.Browse(t, "getMetadata", authToken, key))

	// Who signs in again may send the token that is no longer good, and is not sent away for it.
	account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>Sonos_abc123</householdId></loginToken>"
	bearing := func(request string) []byte {
		return []byte(strings.Replace(string(caddytest.File(t, "requests", request)), "<deviceProvider>Sonos</deviceProvider>", "<deviceProvider>Sonos</deviceProvider>"+account, 1))
	}
	if got := s.Ask(t, "getAppLink", bearing("sign-in-get-app-link.xml")); got.Status != http.StatusOK || !strings.Contains(got.Body, "<linkDeviceId>") {
		t.Errorf("the link is %+v", got)
	}
	// A poll that is not ours goes to the old service, without the token.
	s.Ask(t, "getDeviceAuthToken", bearing("sign-in-poll.xml"))
	old.Check(t)
}
