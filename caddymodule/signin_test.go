package caddymodule_test

import (
	"encoding/xml"
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
)

// deviceServer is an authorization server with the device grant, which answers polls as it is told.
type deviceServer struct {
	*server
	mu    sync.Mutex
	code  string // answers device authorizations, in the place of a usual one
	polls http.HandlerFunc
}

const deviceCode = `{"device_code":"marker-device-code","user_code":"MARK-ER01","verification_uri":"https://auth.example.com/marker",` +
	`"verification_uri_complete":"https://auth.example.com/marker?user_code=MARK-ER01","expires_in":600,"interval":1}`

func newDeviceServer(t testing.TB) *deviceServer {
	d := &deviceServer{code: deviceCode, polls: says(400, `{"error":"authorization_pending"}`)}
	d.server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		polls, code := d.polls, d.code
		d.mu.Unlock()
		if r.URL.Path == "/token" {
			polls(w, r)
			return
		}
		says(200, code)(w, r)
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

type deviceLink struct {
	URL      string `xml:"regUrl"`
	Code     string `xml:"linkCode"`
	Show     bool   `xml:"showLinkCode"`
	DeviceID string `xml:"linkDeviceId"`
}

// ask sends a call of a method.
func (s *site) ask(t testing.TB, method string, body []byte) answer {
	t.Helper()
	r := s.request(t, body)
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+method+`"`)
	return s.do(t, r)
}

// link asks where to sign in.
func (s *site) link(t testing.TB) (l deviceLink) {
	t.Helper()
	got := s.ask(t, "getAppLink", file(t, "requests", "sign-in-get-app-link.xml"))
	var parsed struct {
		Text string     `xml:"Body>getAppLinkResponse>getAppLinkResult>authorizeAccount>appUrlStringId"`
		Link deviceLink `xml:"Body>getAppLinkResponse>getAppLinkResult>authorizeAccount>deviceLink"`
	}
	if err := xml.Unmarshal([]byte(got.body), &parsed); err != nil || got.status != http.StatusOK || parsed.Text != "SIGN_IN" {
		t.Fatalf("%v, %+v", err, got)
	}
	checkHeader(t, got)
	return parsed.Link
}

func (s *site) poll(t testing.TB, l deviceLink) answer {
	t.Helper()
	body := strings.Replace(string(file(t, "requests", "sign-in-poll.xml")), ">sealed<", ">"+l.DeviceID+"<", 1)
	return s.ask(t, "getDeviceAuthToken", []byte(strings.Replace(body, "ABC-123", l.Code, 1)))
}

func TestAListenerSignsInAtTheAuthorizationServer(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	s := caddyRun(t, directive(oauth.server, old, "scope offline_access", "param audience api", oauth.signIn()))
	l := s.link(t)
	if l.URL != "https://auth.example.com/marker?user_code=MARK-ER01" || l.Code != "MARK-ER01" || !l.Show || len(l.DeviceID) > 1024 {
		t.Errorf("the link is %+v", l)
	}
	asked := oauth.asked()
	if len(asked) != 1 || asked[0].URL.Path != "/device" || asked[0].body != "audience=api&scope=offline_access" && asked[0].body != "scope=offline_access&audience=api" {
		t.Errorf("asked for a code by %+v", asked)
	}
	checkAnswer(t, s.poll(t, l), "not-linked-retry.xml")
	checkAnswer(t, s.poll(t, l), "not-linked-retry.xml") // too early
	if asked := oauth.asked(); len(asked) != 1 || !strings.Contains(asked[0].body, "grant_type="+url.QueryEscape("urn:ietf:params:oauth:grant-type:device_code")) ||
		!strings.Contains(asked[0].body, "device_code=marker-device-code") {
		t.Errorf("polled by %+v", asked)
	}
	oauth.answers(issuesTokens)
	eventually(t, "the listener has signed in", func() bool { return s.poll(t, l).status == http.StatusOK })
	for range 2 { // the answer may have been lost
		got := s.poll(t, l)
		if authToken, privateKey := pair(t, got.body); authToken != "new-token" || privateKey != "new-key" || strings.Contains(got.body, "userInfo") {
			t.Errorf("the answer is %s", got.body)
		}
	}
	if len(old.asked()) != 0 {
		t.Error("the old service was asked")
	}
}

func TestASignInThatFailsEndsForGood(t *testing.T) {
	for name, polls := range map[string]http.HandlerFunc{
		"refused": says(403, `{"error":"access_denied"}`),
		"expired": says(400, `{"error":"expired_token"}`),
		"used":    says(400, `{"error":"invalid_grant"}`),
	} {
		oauth, old := newDeviceServer(t), oldService(t)
		oauth.answers(polls)
		s := caddyRun(t, directive(oauth.server, old, oauth.signIn()))
		t.Log(name)
		checkAnswer(t, s.poll(t, s.link(t)), "link-failed.xml")
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnOutageOfTheTokenEndpointIsNotYet(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	s := caddyRun(t, directive(oauth.server, old, oauth.signIn()))
	l := s.link(t)
	for _, polls := range []http.HandlerFunc{says(503, ""), says(429, ""), raw("no HTTP\r\n\r\n"), says(200, "<html>")} {
		oauth.answers(polls)
		checkAnswer(t, s.poll(t, l), "not-linked-retry.xml")
	}
}

func TestWhatIsNotOursOfASignInIsForwarded(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	s := caddyRun(t, directive(oauth.server, old, oauth.signIn()))
	for name, body := range map[string][]byte{
		"a poll of the old service":      file(t, "requests", "sign-in-poll.xml"),
		"a poll without a linkDeviceId":  file(t, "requests", "forward-poll.xml"),
		"a poll with the old account":    file(t, "requests", "forward-poll-with-login.xml"),
		"another method":                 file(t, "requests", "forward-get-metadata.xml"),
		"a linkCode that is not Sonos's": file(t, "requests", "forward-unqualified-link-code.xml"),
	} {
		r := s.request(t, body)
		r.Header.Del("SOAPAction")
		if got := s.do(t, r); got.status != http.StatusTeapot {
			t.Errorf("%s: %+v", name, got)
		}
		if asked := old.asked(); len(asked) != 1 || asked[0].body != string(body) {
			t.Errorf("%s: forwarded as %+v", name, asked)
		}
	}
	if len(oauth.asked()) != 0 {
		t.Error("the authorization server was asked")
	}
}

func TestWithoutSignInAllOfItIsForwarded(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	s := caddyRun(t, directive(oauth.server, old))
	for method, request := range map[string]string{
		"getAppLink": "sign-in-get-app-link.xml", "getDeviceLinkCode": "sign-in-get-device-link-code.xml", "getDeviceAuthToken": "sign-in-poll.xml",
	} {
		if got := s.ask(t, method, file(t, "requests", request)); got.status != http.StatusTeapot {
			t.Errorf("%s: %+v", method, got)
		}
	}
}

func TestModesSayWhatBecomesOfASignIn(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	s := caddyRun(t, directive(oauth.server, old, "mode reauthorize", "refresh_auth_tokens", oauth.signIn()))
	checkAnswer(t, s.upgrade(t), "reauthorize.xml")
	oauth.answers(issuesTokens)
	if got := s.poll(t, s.link(t)); got.status != http.StatusOK {
		t.Errorf("in mode reauthorize: %+v", got)
	}
	got := s.ask(t, "refreshAuthToken", file(t, "requests", "refresh-auth-token.xml"))
	if checkAnswer(t, got, "refreshed.xml"); strings.Contains(s.log(t), "there is no sign_in") {
		t.Error("it warns of a sign_in that is there")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	oauth.asked()
	s = caddyRun(t, directive(oauth.server, old, "mode observe", oauth.signIn()))
	if got := s.ask(t, "getAppLink", file(t, "requests", "sign-in-get-app-link.xml")); got.status != http.StatusTeapot || len(oauth.asked()) != 0 {
		t.Errorf("in mode observe: %+v", got)
	}
	if lines := observedLines(s.log(t)); len(lines) != 1 || !strings.Contains(lines[0], `"would":"exchange"`) || !strings.Contains(lines[0], `"method":"getAppLink"`) {
		t.Errorf("observed as %v", lines)
	}
}

func TestItWarnsWhereNobodyIsKnownToSignListenersIn(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	for options, want := range map[string]bool{
		"mode reauthorize": true, "expire_session_ids": true, "refresh_auth_tokens": false, "expire_session_ids\nhouseholds 10%": false,
		"expire_session_ids\n" + oauth.signIn(): false,
	} {
		s := caddyRun(t, directive(oauth.server, old, options))
		if got := strings.Contains(s.log(t), "there is no sign_in"); got != want {
			t.Errorf("%s: warned %v", options, got)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// Another client than the one for upgrades, and an issuer whose metadata says where.
func TestSignInMayHaveAClientOfItsOwn(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "device-secret")
	s := caddyRun(t, directive(oauth.server, old, oauth.signIn("client_id devices", "client_secret {file."+secret+"}", "client_auth post", "scope one two", "show_link_code off")))
	l := s.link(t)
	if asked := oauth.asked(); len(asked) != 1 || asked[0].Header.Get("Authorization") != "" ||
		asked[0].body != "scope=one+two&client_id=devices&client_secret=device-secret" {
		t.Errorf("asked by %+v", asked)
	}
	if l.Show {
		t.Error("the code is shown though the address has it")
	}
	s.poll(t, l)
	if asked := oauth.asked(); len(asked) != 1 || !strings.HasSuffix(asked[0].body, "&client_id=devices&client_secret=device-secret") {
		t.Errorf("polled by %+v", asked)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}

	var metadata *server
	metadata = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"issuer":"`+metadata.URL+`","token_endpoint":"`+oauth.URL+`/token","device_authorization_endpoint":"`+oauth.URL+`/device"}`)
		}
	})
	s = caddyRun(t, "smapi_upgrade {\nissuer "+metadata.URL+"\nclient_id the-id\nclient_secret s\nsign_in {\napp_url_string_id SIGN_IN\n}\n}\nreverse_proxy "+old.URL)
	oauth.answers(issuesTokens)
	if got := s.poll(t, s.link(t)); got.status != http.StatusOK || len(metadata.asked()) != 1 {
		t.Errorf("by an issuer: %+v", got)
	}
}

// Nothing of a sign-in that is a secret gets out, with all switched on that an operator can see more by.
func TestNothingSecretOfASignInGetsOut(t *testing.T) {
	received := collect(t)
	for name, polls := range map[string]http.HandlerFunc{
		"pending": says(403, `{"error":"authorization_pending","error_description":"marker-device-code"}`),
		"linked":  says(200, `{"access_token":"marker-new-token","refresh_token":"marker-new-key"}`),
		"unfit":   says(200, `{"access_token":"marker-new-token"}`),
		"failed":  says(400, `{"error":"marker-device-code"}`),
		"refused": says(403, `{"error":"access_denied","error_uri":"marker"}`),
		"failing": raw("HTTP/1.1 marker-device-code\r\n\r\n"),
	} {
		oauth := newDeviceServer(t)
		oauth.answers(polls)
		o := operate(t, "tracing {\nspan request\n}\n"+directive(oauth.server, oldService(t), oauth.signIn()))
		for _, code := range []string{deviceCode, `{"device_code":"marker-device-code","user_code":"` + strings.Repeat("marker", 6) + `","verification_uri":"https://marker"}`, `{"error":"marker is no name of an error"}`} {
			oauth.mu.Lock()
			oauth.code = code
			oauth.mu.Unlock()
			got := o.ask(t, "getAppLink", marked(t, "sign-in-get-app-link.xml"))
			if got.status != http.StatusOK {
				checkNoMarker(t, name+", a fault", got.body)
				continue
			}
			var l deviceLink
			_, after, _ := strings.Cut(got.body, "<linkDeviceId>")
			l.DeviceID, _, _ = strings.Cut(after, "<")
			body := strings.Replace(string(marked(t, "sign-in-poll.xml")), ">sealed<", ">"+l.DeviceID+"<", 1)
			if got := o.ask(t, "getDeviceAuthToken", []byte(body)); got.status != http.StatusOK {
				checkNoMarker(t, name+", a fault", got.body)
			}
			for _, text := range []string{o.log(t), o.admin.get(t, "/metrics").body, o.admin.get(t, "/smapi_upgrade/status").body, o.admin.get(t, "/smapi_upgrade/page.json").body} {
				if strings.Contains(text, l.DeviceID) {
					t.Errorf("%s: the linkDeviceId", name)
				}
			}
		}
		for _, text := range []string{o.log(t), o.admin.get(t, "/metrics").body, o.admin.get(t, "/smapi_upgrade/status").body, o.admin.get(t, "/smapi_upgrade/page.json").body} {
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
			says(200, `{"access_token":"newer-token","refresh_token":"newer-key","expires_in":3600}`)(w, r)
		case given.CompareAndSwap(false, true):
			says(200, `{"access_token":"new-token","refresh_token":"new-key","expires_in":3600`+more+`}`)(w, r)
		default:
			says(400, `{"error":"invalid_grant"}`)(w, r)
		}
	}
}

func TestASignInIsSpreadOverInstancesOfWhichOneDies(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	c := startCluster(t, 3, directive(oauth.server, old, "refresh_auth_tokens", "vault "+vaultFile(t), oauth.signIn()))
	l := c.sites[0].link(t)
	for _, s := range c.sites {
		checkAnswer(t, s.poll(t, l), "not-linked-retry.xml")
	}
	_ = c.nodes[0].Process.Kill()
	oauth.answers(givesOnce(""))
	eventually(t, "the listener has signed in", func() bool { return c.sites[1].poll(t, l).status == http.StatusOK })
	// The answer was lost, and the next poll is at whichever instance.
	authToken, handle := tokensOf(c.sites[1].poll(t, l))
	var other string
	eventually(t, "the other instance has asked", func() bool {
		got := c.sites[2].poll(t, l)
		if got.status == http.StatusOK {
			_, other = tokensOf(got)
		}
		return got.status == http.StatusOK
	})
	if authToken != "new-token" || !strings.HasPrefix(handle, "smv1") || other != handle {
		t.Errorf("the pairs are %q, %q and %q", authToken, handle, other)
	}
	if newer, key := tokensOf(c.sites[2].refresh(t, authToken, handle)); newer != "newer-token" || key != handle {
		t.Errorf("refreshed to %q, %q", newer, key)
	}
}

func TestAVaultSealsForAPublicClientAndHashesUsers(t *testing.T) {
	oauth, old := newDeviceServer(t), oldService(t)
	keys, storage := vaultFile(t), t.TempDir()
	site := "smapi_upgrade " + oauth.URL + "/token {\nclient_id the-id\nclient_auth none\nrefresh_auth_tokens\nvault " + keys + "\n" +
		oauth.signIn("user_id sub") + "\n}\nreverse_proxy " + old.URL
	hashes := map[string]bool{}
	for range 2 { // the same for ever
		oauth.answers(givesOnce(`,"id_token":"e30.eyJzdWIiOiJtYXJrZXItdXNlciJ9.c2ln"`))
		s := caddyRunOn(t, storage, site)
		got := s.poll(t, s.link(t))
		_, after, _ := strings.Cut(got.body, "<userIdHashCode>")
		hash, _, _ := strings.Cut(after, "<")
		if hashes[hash] = true; got.status != http.StatusOK || hash == "" {
			t.Fatalf("%+v", got)
		}
		checkNoMarker(t, "the answer", got.body)
		checkNoMarker(t, "the log", s.log(t))
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
	oauth, old := newDeviceServer(t), oldService(t)
	oauth.answers(givesOnce(""))
	storage := filepath.Join(t.TempDir(), "storage")
	s := caddyRunOn(t, storage, directive(oauth.server, old, "refresh_auth_tokens", "vault "+vaultFile(t), oauth.signIn()))
	l := s.link(t)
	if err := os.RemoveAll(storage); err != nil {
		t.Fatal(err)
	}
	write(t, storage, "") // nothing can be written
	checkAnswer(t, s.call(t, "refreshAuthToken", "refresh-auth-token.xml"), "service-unavailable.xml")
	oauth.asked()
	if checkAnswer(t, s.poll(t, l), "not-linked-retry.xml"); len(oauth.asked()) != 0 {
		t.Error("a code was spent")
	}
	if err := os.Remove(storage); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener has signed in", func() bool { return s.poll(t, l).status == http.StatusOK })
	if _, handle := tokensOf(s.poll(t, l)); !strings.HasPrefix(handle, "smv1") {
		t.Errorf("the privateKey is %q", handle)
	}
}

func TestWhoHasSignedInBrowsesAnOldServiceThatNeverLearnsOfIt(t *testing.T) {
	oauth, old := newDeviceServer(t), strict(t, "login")
	oauth.answers(givesOnce(`,"legacy_user":"testuser","legacy_password":"12345"`))
	s := caddyRun(t, directive(oauth.server, old.server, "refresh_auth_tokens", "vault "+vaultFile(t),
		"old_service login {\nusername {token.legacy_user}\npassword {token.legacy_password}\n}", oauth.signIn()))
	authToken, key := tokensOf(s.poll(t, s.link(t)))
	if !strings.HasPrefix(authToken, "smv1.") || !strings.HasPrefix(key, "smv1") {
		t.Fatalf("the pair is %q, %q", authToken, key)
	}
	checkServed(t, s.browse(t, "getMetadata", authToken, key))

	// Who signs in again may send the token that is no longer good, and is not sent away for it.
	account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>Sonos_abc123</householdId></loginToken>"
	bearing := func(request string) []byte {
		return []byte(strings.Replace(string(file(t, "requests", request)), "<deviceProvider>Sonos</deviceProvider>", "<deviceProvider>Sonos</deviceProvider>"+account, 1))
	}
	if got := s.ask(t, "getAppLink", bearing("sign-in-get-app-link.xml")); got.status != http.StatusOK || !strings.Contains(got.body, "<linkDeviceId>") {
		t.Errorf("the link is %+v", got)
	}
	// A poll that is not ours goes to the old service, without the token.
	s.ask(t, "getDeviceAuthToken", bearing("sign-in-poll.xml"))
	old.checkOld(t)
}
