package caddymodule_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func TestEverySpellingOfTheCallIsUpgradedAtARealServer(t *testing.T) {
	oauth, old := caddytest.OAuthServer(t, map[string]string{"testuser": "12345"}), caddytest.OldService(t)
	s := caddytest.Run(t, "encode gzip {\nminimum_length 1\n}\n"+caddytest.Directive(oauth, old, "replay off"))
	files, err := filepath.Glob(filepath.Join(caddytest.Testdata, "requests", "upgrade*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			got := s.Post(t, caddytest.File(t, "requests", filepath.Base(path)))
			if got.Status != http.StatusOK {
				t.Fatal(got)
			}
			authToken, privateKey := caddytest.Pair(t, got.Body)
			if authToken == "" || privateKey == "" {
				t.Errorf("the pair is %q, %q", authToken, privateKey)
			}
			caddytest.CheckHeader(t, got)
			if n := len(oauth.Asked()); n != 1 {
				t.Errorf("%d POSTs", n)
			}
		})
	}
	if n := len(old.Asked()); n != 0 {
		t.Errorf("the old service was asked %d times", n)
	}
}

func TestCredentialsReachARealServerExactly(t *testing.T) {
	escaped := map[string]string{ // by what they are
		`<&>"'`:                 `&lt;&amp;&gt;<![CDATA["']]>`,
		`  spaces  `:            `  spaces  `,
		`p+w=d&x=%20`:           `p+w=d<!-- a comment -->&amp;x=%20`,
		`пароль 音楽 🎵`:           `пароль 音楽 &#x1F3B5;`,
		`{env.HOME} {$HOME} {}`: `{env.HOME} {$HOME} {}`,
	}
	accounts := map[string]string{}
	for value := range escaped {
		accounts[value] = value + value
	}
	oauth := caddytest.OAuthServer(t, accounts)
	s := caddytest.Run(t, caddytest.Directive(oauth, caddytest.OldService(t)))
	for value, text := range escaped {
		body := strings.NewReplacer("testuser", text, "12345", text+text).Replace(string(caddytest.File(t, "requests", "upgrade.xml")))
		if authToken, _ := caddytest.Pair(t, s.Post(t, []byte(body)).Body); authToken == "" {
			t.Errorf("%q was refused, sent as %s", value, oauth.Asked()[0].Text)
		}
	}
}

func TestAWrongPasswordCostsOneLogin(t *testing.T) {
	oauth, old := caddytest.OAuthServer(t, map[string]string{"testuser": "another"}), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(oauth, old))
	caddytest.CheckAnswer(t, s.Upgrade(t), "reauthorize.xml")
	if n := len(oauth.Asked()); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

// The table from what happened to what the player is told and what is logged.
func TestEveryOutcomeHasItsAnswer(t *testing.T) {
	long := strings.Repeat("x", 2049)
	for _, test := range []struct {
		name    string
		options string
		request string
		says    http.HandlerFunc
		posts   int
		answer  string
		log     []string
	}{
		{
			"upgraded", "", "upgrade.xml", caddytest.IssuesTokens, 1, "upgraded.xml",
			[]string{`"level":"info"`, `"outcome":"upgraded"`, `"credentials":"login"`, `"status":200`, `"duration":`},
		},
		{
			"upgraded, escaped", "", "upgrade.xml",
			caddytest.Says(200, `{"access_token":"<&>\"'","refresh_token":"音楽 ]]>"}`), 1, "upgraded-escaped.xml",
			[]string{`"outcome":"upgraded"`},
		},
		{
			"upgraded from other fields", "auth_token id\nprivate_key key", "upgrade.xml",
			caddytest.Says(200, `{"id":"new-token","key":"new-key","access_token":"x","refresh_token":"y"}`), 1, "upgraded.xml", nil,
		},
		{
			"upgraded with the fallback", "private_key refresh_token new-key", "upgrade.xml",
			caddytest.Says(200, `{"access_token":"new-token"}`), 1, "upgraded.xml", nil,
		},
		{
			"reauthorize: a login token", "", "login-token.xml", caddytest.IssuesTokens, 0, "reauthorize.xml",
			[]string{`"level":"info"`, `"outcome":"reauthorize"`, `"credentials":"login_token"`, `"cause":"no exchange for these credentials"`},
		},
		{"reauthorize: a login token elsewhere", "", "login-token-in-authorization.xml", caddytest.IssuesTokens, 0, "reauthorize.xml", nil},
		{"reauthorize: needs_reauth", "", "login-token-needs-reauth.xml", caddytest.IssuesTokens, 0, "reauthorize.xml", nil},
		{"reauthorize: a session id", "", "session-id.xml", caddytest.IssuesTokens, 0, "reauthorize.xml", nil},
		{"reauthorize: nobody", "", "anonymous.xml", caddytest.IssuesTokens, 0, "reauthorize.xml", nil},
		{
			"rejected", "", "upgrade.xml", caddytest.Says(400, `{"error":"invalid_grant"}`), 1, "reauthorize.xml",
			[]string{`"level":"info"`, `"outcome":"rejected"`, `"status":400`, `"oauth_error":"invalid_grant"`},
		},
		{
			"rejected, not_linked", "on_rejected not_linked", "upgrade.xml", caddytest.Says(400, `{"error":"invalid_grant"}`), 1,
			"not-linked-failure.xml", []string{`"outcome":"rejected"`},
		},
		{
			"an outage with not_linked", "on_rejected not_linked", "upgrade.xml", caddytest.Says(500, `oops`), 1,
			"service-unavailable.xml", []string{`"outcome":"unavailable"`},
		},
		{
			"unavailable", "", "upgrade.xml", caddytest.Says(503, `<html>`), 1, "service-unavailable.xml",
			[]string{`"level":"warn"`, `"outcome":"unavailable"`, `"status":503`, `"cause":`},
		},
		{"unavailable: garbage", "", "upgrade.xml", caddytest.Says(200, `<html>`), 1, "service-unavailable.xml", nil},
		{"unavailable: too many", "", "upgrade.xml", caddytest.Says(429, `{}`), 1, "service-unavailable.xml", nil},
		{
			"unavailable: timeout", "timeout 100ms", "upgrade.xml",
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 1, "service-unavailable.xml",
			[]string{`"outcome":"unavailable"`, `"cause":"no answer in time"`},
		},
		{
			"unavailable: cut", "", "upgrade.xml", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = io.WriteString(w, `{"access_token":"new-token","refresh_token":"new-key"}`)
			}, 1, "service-unavailable.xml", []string{`"outcome":"unavailable"`},
		},
		{
			"misconfigured: the client", "", "upgrade.xml", caddytest.Says(401, `{"error":"invalid_client"}`), 1, "service-unavailable.xml",
			[]string{`"level":"error"`, `"outcome":"misconfigured"`, `"oauth_error":"invalid_client"`, `"fix":"check client_id`},
		},
		{
			"misconfigured: a redirect", "", "upgrade.xml", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
			}, 1, "service-unavailable.xml", []string{`"level":"error"`, `"outcome":"misconfigured"`, `"status":308`, `"fix":`},
		},
		{
			"misconfigured: no refresh token", "", "upgrade.xml", caddytest.Says(200, `{"access_token":"new-token"}`), 1,
			"service-unavailable.xml", []string{`"outcome":"misconfigured"`, `offline_access`, `fallback`},
		},
		{
			"misconfigured: no token", "private_key refresh_token none", "upgrade.xml", caddytest.Says(200, `{"token":"new-token"}`), 1,
			"service-unavailable.xml", []string{`"outcome":"misconfigured"`, `"fix":"check auth_token`},
		},
		{
			"misconfigured: a long token", "", "upgrade.xml", caddytest.Says(200, `{"access_token":"`+long+`","refresh_token":"k"}`), 1,
			"service-unavailable.xml", []string{`"outcome":"misconfigured"`, `2048`},
		},
		{
			"misconfigured: a long key", "", "upgrade.xml", caddytest.Says(200, `{"access_token":"t","refresh_token":"`+long+`"}`), 1,
			"service-unavailable.xml", []string{`"outcome":"misconfigured"`, `2048`},
		},
		{
			"misconfigured: no text for XML", "", "upgrade.xml", caddytest.Says(200, `{"access_token":"\u0000","refresh_token":"k"}`), 1,
			"service-unavailable.xml", []string{`"outcome":"misconfigured"`, `"fix":`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint, old := caddytest.Serve(t, test.says), caddytest.OldService(t)
			s := caddytest.Run(t, caddytest.Directive(endpoint, old, test.options))
			got := s.Post(t, caddytest.File(t, "requests", test.request))
			caddytest.CheckAnswer(t, got, test.answer)
			if n := len(endpoint.Asked()); n != test.posts {
				t.Errorf("%d POSTs, want %d", n, test.posts)
			}
			if n := len(old.Asked()); n != 0 {
				t.Errorf("the old service was asked %d times", n)
			}
			line := answeredLines(s.Log(t))
			if len(line) != 1 {
				t.Fatalf("%d lines in the log, want 1", len(line))
			}
			for _, want := range test.log {
				if !strings.Contains(line[0], want) {
					t.Errorf("the log lacks %s: %s", want, line[0])
				}
			}
			if said := caddytest.Reference.FindString(got.Body); said != "" {
				if code := strings.TrimPrefix(said, "reference "); !strings.Contains(line[0], `"reference":"`+code+`"`) {
					t.Errorf("the log lacks the fault's %s: %s", said, line[0])
				}
			}
		})
	}
}

func answeredLines(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "answered a call") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestAFullTokenEndpointIsNoRejection(t *testing.T) {
	t.Parallel()
	endpoint, arrived, proceed := caddytest.Hanging(t)
	defer proceed()
	s := caddytest.Apart(t, caddytest.Directive(endpoint, caddytest.OldService(t), "max_in_flight 1", "timeout 1s"))
	first := make(chan caddytest.Answer)
	go func() { first <- s.Post(t, caddytest.Account(t, "first")) }()
	<-arrived
	caddytest.CheckAnswer(t, s.Post(t, caddytest.Account(t, "second")), "service-unavailable.xml")
	caddytest.CheckAnswer(t, <-first, "service-unavailable.xml")
}

func TestAnUnreachableTokenEndpointIsNoRejection(t *testing.T) {
	gone := &caddytest.Server{Server: &httptest.Server{URL: "http://" + caddytest.DeadAddress(t)}}
	s := caddytest.Run(t, caddytest.Directive(gone, caddytest.OldService(t)))
	caddytest.CheckAnswer(t, s.Upgrade(t), "service-unavailable.xml")
	if !strings.Contains(s.Log(t), `"cause":"the connection failed: connection refused"`) {
		t.Error("the log does not say why")
	}
}

func TestEverythingElseIsForwarded(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(endpoint, old))
	files, err := filepath.Glob(filepath.Join(caddytest.Testdata, "requests", "forward-*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			body := caddytest.File(t, "requests", filepath.Base(path))
			sent := s.Request(t, body)
			if got := s.Do(t, sent); got.Status != http.StatusTeapot || got.Body != "the old service" {
				t.Errorf("the answer is %+v", got)
			}
			requests := old.Asked()
			if len(requests) != 1 {
				t.Fatalf("forwarded %d times", len(requests))
			}
			got := requests[0]
			if got.Text != string(body) || got.ContentLength != int64(len(body)) || got.RequestURI != "/smapi" {
				t.Errorf("forwarded as %s of %d bytes: %s", got.RequestURI, got.ContentLength, got.Text)
			}
			for _, name := range slices.Collect(maps.Keys(sent.Header)) {
				if got.Header.Get(name) != sent.Header.Get(name) {
					t.Errorf("%s is forwarded as %q", name, got.Header.Get(name))
				}
			}
		})
	}
	if n := len(endpoint.Asked()); n != 0 {
		t.Errorf("%d POSTs", n)
	}
}

// reverse_proxy leaves in the request's context where to dial, and forward_auth is one.
func TestAPasswordGoesNowhereButToTheTokenEndpoint(t *testing.T) {
	auth := caddytest.Serve(t, caddytest.Says(http.StatusOK, ""))
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, "forward_auth "+auth.URL+" {\nuri /check\n}\n"+caddytest.Directive(endpoint, caddytest.OldService(t)))
	caddytest.CheckAnswer(t, s.Upgrade(t), "upgraded.xml")
	if asked := auth.Asked(); len(asked) != 1 || asked[0].URL.Path != "/check" || asked[0].Text != "" {
		t.Errorf("forward_auth was asked %v", asked)
	}
	if n := len(endpoint.Asked()); n != 1 {
		t.Errorf("%d POSTs", n)
	}
}

func TestTheExchangeIsWhatTheConfigurationSays(t *testing.T) {
	t.Setenv("SMAPI_TEST_SECRET", "\uFEFFfrom the environment\r\n") // as editors and shells leave it
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, fmt.Sprintf(`smapi_upgrade %s/token {
		client_id "the id {env.SMAPI_TEST_SECRET}"
		client_secret {env.SMAPI_TEST_SECRET}
		client_auth post
		header X-Key {env.SMAPI_TEST_SECRET}
		scope openid offline_access
		param resource one
		param resource two
		param audience {env.SMAPI_TEST_SECRET}
	}
	reverse_proxy 127.0.0.1:1`, endpoint.URL))
	caddytest.CheckAnswer(t, s.Upgrade(t), "upgraded.xml")
	asked := endpoint.Asked()[0]
	form, err := url.ParseQuery(asked.Text)
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"grant_type": {"password"}, "username": {"testuser"}, "password": {"12345"},
		"client_id": {"the id from the environment"}, "client_secret": {"from the environment"},
		"scope": {"openid offline_access"}, "resource": {"one", "two"}, "audience": {"from the environment"},
	}
	if form.Encode() != want.Encode() {
		t.Errorf("the form is %v", form)
	}
	if key := asked.Header.Get("X-Key"); key != "from the environment" {
		t.Errorf("the header is %q", key)
	}
}
