package smapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

const requests = "../../testdata/requests"

var upgrades = []Method{GetDeviceAuthToken}

func isNoCall(err error) bool {
	_, ok := err.(NoCall)
	return ok
}

func requestFile(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(requests, name))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func post(body []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#getDeviceAuthToken"`)
	return r
}

func TestEverySpellingOfAnUpgradeCallIsRead(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(requests, "upgrade*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			call, _, err := Read(post(requestFile(t, filepath.Base(file))), upgrades)
			if call == nil {
				t.Fatalf("not read: %v", err)
			}
			got := call.Credentials
			if got.Kind != Login || got.Username != "testuser" || got.Password != "12345" {
				t.Errorf("credentials are %+v", got)
			}
			if !strings.HasPrefix(call.HouseholdID, "Sonos_abc123") {
				t.Errorf("householdId is %q", call.HouseholdID)
			}
			if call.Arrived.IsZero() {
				t.Error("no time of arrival")
			}
		})
	}
}

func TestEveryKindOfCredentialsIsTold(t *testing.T) {
	device := Credentials{DeviceID: "00-0E-58-5B-06-D6:8", DeviceProvider: "Sonos"}
	for file, fill := range map[string]func(*Credentials){
		"login-token.xml":                  func(c *Credentials) { c.Kind, c.Token, c.Key = LoginToken, "old-token", "old-key" },
		"login-token-in-authorization.xml": func(c *Credentials) { c.Kind = LoginToken },
		"login-token-needs-reauth.xml":     func(c *Credentials) { c.Kind, c.Token, c.Key = LoginToken, NeedsReauth, "old-key" },
		"session-id.xml":                   func(c *Credentials) { c.Kind, c.SessionID = SessionID, "old-session" },
		"anonymous.xml":                    func(c *Credentials) { c.Kind = Anonymous },
	} {
		want := device
		fill(&want)
		call, _, err := Read(post(requestFile(t, file)), upgrades)
		if call == nil {
			t.Errorf("%s: not read: %v", file, err)
		} else if call.Credentials != want {
			t.Errorf("%s: credentials are %+v, want %+v", file, call.Credentials, want)
		}
	}
}

func TestWhatIsNotPositivelyAnUpgradeIsForwardedAsItCame(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(requests, "forward-*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	// Positively something else. The others resemble an upgrade call, and it is said why they are none.
	clear := []string{
		"forward-get-metadata.xml", "forward-nested-call.xml", "forward-other-namespace.xml", "forward-no-namespace.xml",
		"forward-poll.xml", "forward-poll-with-login.xml", "forward-unqualified-link-code.xml", "forward-utf-16.xml",
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			body := requestFile(t, name)
			r := post(body)
			call, _, err := Read(r, upgrades)
			if call != nil {
				t.Fatalf("read as %+v", call)
			}
			if isClear := strings.Contains(strings.Join(clear, " "), name); isClear != isNoCall(err) {
				t.Errorf("the error is %v", err)
			}
			if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("forwarded with %v as %q", err, got)
			}
		})
	}
}

func TestCredentialsAreReadExactly(t *testing.T) {
	for sent, want := range map[string]string{
		`&lt;&amp;&gt;&quot;&apos;`:         `<&>"'`,
		`<![CDATA[<&>]]>`:                   `<&>`,
		`a<![CDATA[ b ]]>c`:                 `a b c`,
		`  leading and trailing  `:          `  leading and trailing  `,
		` `:                                 ` `,
		"\ttab\nnewline ":                   "\ttab\nnewline ",
		"carriage\r\nreturn":                "carriage\nreturn", // by XML's own rule
		`carriage&#13;return`:               "carriage\rreturn",
		`&#x41;&#66;`:                       `AB`,
		`pÄss wörd 音楽 🎵`:                    `pÄss wörd 音楽 🎵`,
		`one<!-- cut -->two`:                `onetwo`,
		`{env.HOME} {$HOME} {http.request}`: `{env.HOME} {$HOME} {http.request}`,
		`a=b&amp;c=d%20+e`:                  `a=b&c=d%20+e`,
		`needs_reauth`:                      `needs_reauth`,
	} {
		body := bytes.Replace(requestFile(t, "upgrade.xml"), []byte("12345"), []byte(sent), 1)
		call, _, err := Read(post(body), upgrades)
		if call == nil {
			t.Errorf("%q: not read: %v", sent, err)
		} else if call.Credentials.Password != want {
			t.Errorf("%q: read as %q, want %q", sent, call.Credentials.Password, want)
		}
	}
}

func TestHeadersRuleAnUpgradeOutBeforeTheBodyIsRead(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"GET":                  func(r *http.Request) { r.Method = http.MethodGet },
		"another action":       func(r *http.Request) { r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#getMetadata"`) },
		"action, no fragment":  func(r *http.Request) { r.Header.Set("SOAPAction", `"getMetadata"`) },
		"two actions":          func(r *http.Request) { r.Header.Add("SOAPAction", `"#getDeviceAuthToken"`) },
		"JSON":                 func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"SOAP 1.2":             func(r *http.Request) { r.Header.Set("Content-Type", "application/soap+xml") },
		"multipart":            func(r *http.Request) { r.Header.Set("Content-Type", "multipart/related; type=text/xml") },
		"another charset":      func(r *http.Request) { r.Header.Set("Content-Type", "text/xml; charset=utf-16") },
		"a later charset":      func(r *http.Request) { r.Header.Set("Content-Type", `text/xml; x=y; Charset = "latin1"`) },
		"two types":            func(r *http.Request) { r.Header.Add("Content-Type", "text/xml") },
		"gzip":                 func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") },
		"a type without end":   func(r *http.Request) { r.Header.Set("Content-Type", "text/xml"+strings.Repeat(";", 1<<10)) },
		"trailers":             func(r *http.Request) { r.Trailer = http.Header{"X-Sum": nil} },
		"longer than any call": func(r *http.Request) { r.ContentLength = MaxBody + 1 },
		"empty":                func(r *http.Request) { r.ContentLength = 0 },
	} {
		r := post(requestFile(t, "upgrade.xml"))
		body := io.NopCloser(iotest.ErrReader(errors.New("the body was read")))
		r.Body = body
		change(r)
		if call, _, err := Read(r, upgrades); call != nil || !isNoCall(err) {
			t.Errorf("%s: %v, %v", name, call, err)
		}
		if r.Body != body {
			t.Errorf("%s: the body was touched", name)
		}
	}
}

func TestHeadersAreReadLoosely(t *testing.T) {
	for name, change := range map[string]func(http.Header){
		"no action":              func(h http.Header) { h.Del("SOAPAction") },
		"blank action":           func(h http.Header) { h.Set("SOAPAction", `""`) },
		"blank fragment":         func(h http.Header) { h.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#"`) },
		"unquoted":               func(h http.Header) { h.Set("SOAPAction", `http://www.sonos.com/Services/1.1#getDeviceAuthToken`) },
		"another case":           func(h http.Header) { h.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#GETDEVICEAUTHTOKEN"`) },
		"name alone":             func(h http.Header) { h.Set("SOAPAction", `getDeviceAuthToken`) },
		"no type":                func(h http.Header) { h.Del("Content-Type") },
		"type in capitals":       func(h http.Header) { h.Set("Content-Type", `TEXT/XML;CHARSET="UTF-8"`) },
		"application/xml":        func(h http.Header) { h.Set("Content-Type", "application/xml") },
		"type with an action":    func(h http.Header) { h.Set("Content-Type", `text/xml; action="#x"; charset=utf-8;`) },
		"explicitly not encoded": func(h http.Header) { h.Set("Content-Encoding", "identity") },
	} {
		r := post(requestFile(t, "upgrade.xml"))
		change(r.Header)
		if call, _, err := Read(r, upgrades); call == nil {
			t.Errorf("%s: not read: %v", name, err)
		}
	}
}

// body is a request body that notes what is done with it.
type body struct {
	io.Reader
	closed int
}

func (b *body) Close() error { b.closed++; return nil }

func TestABodyIsReplayedWithWhatEndedIt(t *testing.T) {
	broken := errors.New("the connection broke")
	upgrade := requestFile(t, "upgrade.xml")
	large := bytes.Repeat([]byte("<x>getDeviceAuthToken</x>"), MaxBody/10)
	for name, test := range map[string]struct {
		body   []byte
		end    error
		length int64
	}{
		"cut":                      {upgrade[:100], broken, int64(len(upgrade))},
		"cut, of unknown length":   {upgrade[:100], broken, -1},
		"larger than any call":     {large, io.EOF, -1},
		"larger than any, and cut": {large, broken, -1},
		"no XML":                   {[]byte("no XML at all"), io.EOF, -1},
		"no XML, and cut":          {[]byte("no XML at all"), broken, 1000},
		"blank":                    {[]byte("  \n"), io.EOF, -1},
		"nothing, cut":             {nil, broken, 500},
	} {
		for _, chunked := range []bool{false, true} {
			r := post(nil)
			source := io.MultiReader(bytes.NewReader(test.body), iotest.ErrReader(test.end))
			if chunked {
				source = iotest.OneByteReader(source)
			}
			original := &body{Reader: source}
			r.Body, r.ContentLength = original, test.length
			if call, _, err := Read(r, upgrades); call != nil || !isNoCall(err) {
				t.Errorf("%s: %v, %v", name, call, err)
			}
			if r.ContentLength != test.length {
				t.Errorf("%s: the length is %d now", name, r.ContentLength)
			}
			got, err := io.ReadAll(r.Body)
			if err == nil {
				err = io.EOF
			}
			if !bytes.Equal(got, test.body) || err != test.end {
				t.Errorf("%s: replayed %d bytes of %d, and %v", name, len(got), len(test.body), err)
			}
			if original.closed != 0 {
				t.Errorf("%s: closed before the next handler did", name)
			}
			if r.Body.Close(); original.closed != 1 {
				t.Errorf("%s: closed %d times", name, original.closed)
			}
		}
	}
}

func TestNoMoreIsReadThanNeeded(t *testing.T) {
	for name, test := range map[string]struct {
		start string
		most  int
	}{
		"no XML":    {"PNG", 1<<10 + 1},
		"endless":   {"<x>", MaxBody + 1},
		"all blank": {"   ", MaxBody + 1},
	} {
		read := 0
		r := post(nil)
		r.ContentLength = -1
		r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
			n := copy(p, strings.Repeat(test.start, 1+len(p)/len(test.start)))
			read += n
			return n, nil
		}))
		if call, _, err := Read(r, upgrades); call != nil || !isNoCall(err) {
			t.Errorf("%s: %v, %v", name, call, err)
		}
		if read > test.most {
			t.Errorf("%s: %d bytes were read", name, read)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

var allMethods = []Method{GetDeviceAuthToken, GetSessionID, RefreshAuthToken}

func call(method Method, body []byte) *http.Request {
	r := post(body)
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+string(method)+`"`)
	return r
}

func TestTheOtherCallsAboutAnAccountAreReadOnDemand(t *testing.T) {
	device := Credentials{DeviceID: "00-0E-58-5B-06-D6:8", DeviceProvider: "Sonos"}
	refresh := device
	refresh.Kind, refresh.Token, refresh.Key = LoginToken, "old-token", "old-key"
	elsewhere := refresh
	elsewhere.Token = ""
	for file, want := range map[string]Call{
		"get-session-id-no-header.xml":            {Method: GetSessionID, Credentials: Credentials{Kind: Login}},
		"get-session-id.xml":                      {Method: GetSessionID, Credentials: Credentials{Kind: Login}},
		"refresh-auth-token.xml":                  {Method: RefreshAuthToken, HouseholdID: "Sonos_abc123", Credentials: refresh},
		"refresh-auth-token-in-authorization.xml": {Method: RefreshAuthToken, HouseholdID: "Sonos_abc123", Credentials: elsewhere},
	} {
		body := requestFile(t, file)
		got, _, err := Read(call(want.Method, body), allMethods)
		if got == nil {
			t.Errorf("%s: not read: %v", file, err)
			continue
		}
		if want.Arrived = got.Arrived; *got != want {
			t.Errorf("%s: read as %+v, want %+v", file, *got, want)
		}
		r := call(want.Method, body)
		r.Header.Del("SOAPAction")
		if got, _, err := Read(r, allMethods); got == nil {
			t.Errorf("%s without SOAPAction: not read: %v", file, err)
		}
		if got, _, err := Read(call(want.Method, body), upgrades); got != nil || !isNoCall(err) {
			t.Errorf("%s: read though nobody asked for it: %+v, %v", file, got, err)
		}
	}
}

func TestWhatIsNotPositivelyACallIsForwardedAsItCame(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(requests, "ambiguous-*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no requests", err)
	}
	for _, file := range files {
		body := requestFile(t, filepath.Base(file))
		r := post(body)
		r.Header.Del("SOAPAction")
		if got, _, err := Read(r, allMethods); got != nil || isNoCall(err) {
			t.Errorf("%s: read as %+v, %v", file, got, err)
		}
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: forwarded with %v as %q", file, err, got)
		}
	}
}

func TestASOAPActionThatContradictsTheBodyIsForwarded(t *testing.T) {
	for file, method := range map[string]Method{
		"upgrade.xml":            GetSessionID,
		"login-token.xml":        RefreshAuthToken,
		"get-session-id.xml":     GetDeviceAuthToken,
		"refresh-auth-token.xml": GetSessionID,
	} {
		if got, _, err := Read(call(method, requestFile(t, file)), allMethods); got != nil || err != errAction {
			t.Errorf("%s as %s: %+v, %v", file, method, got, err)
		}
	}
}

func TestATokenMayBeInTheAuthorizationHeader(t *testing.T) {
	for _, test := range []struct {
		file, want string
		values     []string
	}{
		{"login-token-in-authorization.xml", "header-token", []string{"header-token"}},
		{"login-token-in-authorization.xml", "header-token", []string{"Bearer header-token"}},
		{"login-token-in-authorization.xml", "header-token", []string{" bearer  header-token "}},
		{"login-token-in-authorization.xml", "needs_reauth", []string{"needs_reauth"}},
		{"login-token-in-authorization.xml", "", nil},
		{"login-token-in-authorization.xml", "", []string{""}},
		{"login-token-in-authorization.xml", "", []string{"Bearer"}},
		{"login-token-in-authorization.xml", "", []string{"Basic dXNlcjpwYXNz"}},
		{"login-token-in-authorization.xml", "", []string{"Bearer one two"}},
		{"login-token-in-authorization.xml", "", []string{"one", "two"}},
		{"login-token.xml", "old-token", []string{"Bearer header-token"}}, // the call's own comes first
		{"upgrade.xml", "", []string{"Bearer header-token"}},
	} {
		r := post(requestFile(t, test.file))
		if r.Header.Del("Authorization"); test.values != nil {
			r.Header["Authorization"] = test.values
		}
		got, _, err := Read(r, upgrades)
		if got == nil {
			t.Errorf("%s, %q: not read: %v", test.file, test.values, err)
		} else if got.Credentials.Token != test.want {
			t.Errorf("%s, %q: the token is %q, want %q", test.file, test.values, got.Credentials.Token, test.want)
		}
	}
}

func TestCredentialsHaveTheLengthsThatTokensHave(t *testing.T) {
	for _, test := range []struct{ file, value string }{
		{"upgrade.xml", "testuser"},
		{"upgrade.xml", "12345"},
		{"session-id.xml", "old-session"},
		{"login-token.xml", "old-token"},
		{"login-token.xml", "old-key"},
		{"refresh-auth-token.xml", "old-key"},
		{"get-session-id.xml", "testuser"},
		{"get-session-id.xml", "12345"},
	} {
		for length, want := range map[int]error{2048: nil, 2049: errLongCredential} {
			body := bytes.Replace(requestFile(t, test.file), []byte(">"+test.value+"<"), []byte(">"+strings.Repeat("ü", length)+"<"), 1)
			r := post(body)
			r.Header.Del("SOAPAction")
			if call, _, err := Read(r, allMethods); err != want || (call == nil) != (want != nil) {
				t.Errorf("%s, %s of %d characters: %v, %v", test.file, test.value, length, call, err)
			}
		}
	}
	for _, scheme := range []string{"", "Bearer "} {
		for length, want := range map[int]error{2048: nil, 2049: errLongCredential, 1 << 20: errLongCredential} {
			r := post(requestFile(t, "login-token-in-authorization.xml"))
			r.Header.Set("Authorization", scheme+strings.Repeat("x", length))
			if call, _, err := Read(r, upgrades); err != want || (call == nil) != (want != nil) {
				t.Errorf("%sa token of %d characters: %v, %v", scheme, length, call, err)
			}
		}
	}
}

func TestAMethodThatIsNotKnownIsNeverReached(t *testing.T) {
	for _, name := range []Method{"getMetadata", "", "getdeviceauthtoken"} {
		body := bytes.ReplaceAll(requestFile(t, "upgrade.xml"), []byte(GetDeviceAuthToken), []byte(name))
		r := post(body)
		r.Header.Del("SOAPAction")
		if call, _, err := Read(r, append(allMethods, name)); call != nil || err == nil {
			t.Errorf("%q: %+v, %v", name, call, err)
		}
		if got := Pair(name, "", ""); got != nil {
			t.Errorf("%q: answered with %s", name, got)
		}
	}
	if got := Pair(GetSessionID, "", ""); got != nil {
		t.Errorf("getSessionId is answered with %s", got)
	}
}
