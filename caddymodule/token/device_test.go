package token

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const codes = `{"device_code":"d-1","user_code":"ABCD-EFGH","verification_uri":"https://auth.example.com/device",` +
	`"verification_uri_complete":"https://auth.example.com/device?user_code=ABCD-EFGH","expires_in":600,"interval":5}`

func authorize(e *Endpoint) (Authorization, Verdict) {
	d, _, v := e.Authorize(soon(), &Grant{Type: DeviceCode, Params: []Param{{"scope", "offline_access a b"}}})
	return d, v
}

func TestTheDeviceAuthorizationRequestIsOnePostByTheClient(t *testing.T) {
	for auth, want := range map[ClientAuth]struct{ basic, secret, form string }{
		Basic: {basic: "the+id", secret: "s%26cret%25"},
		Post:  {form: "the id", secret: "s&cret%"},
		None:  {form: "the id"},
	} {
		u, posts := server(t, func(w http.ResponseWriter, r *http.Request) {
			id, secret, _ := r.BasicAuth()
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			if auth != Basic {
				secret = r.PostForm.Get("client_secret")
			}
			if id != want.basic || secret != want.secret || r.PostForm.Get("client_id") != want.form {
				t.Errorf("%s: the client is %q, %q and %v", auth, id, secret, r.PostForm)
			}
			if r.PostForm.Get("scope") != "offline_access a b" || r.PostForm.Has("grant_type") || r.PostForm.Has("") {
				t.Errorf("%s: the form is %v", auth, r.PostForm)
			}
			_, _ = io.WriteString(w, codes)
		})
		d, v := authorize(endpoint(u, func(c *Config) { c.DeviceURL, c.Client.Auth = u, auth }))
		want := Authorization{"d-1", "ABCD-EFGH", "https://auth.example.com/device", "https://auth.example.com/device?user_code=ABCD-EFGH", 10 * time.Minute, 5 * time.Second}
		if v.Class != Issued || d != want || posts.Load() != 1 {
			t.Errorf("%s: %+v, %+v by %d POSTs", auth, d, v, posts.Load())
		}
	}
}

// Servers leave the interval out, or say it in milliseconds.
func TestTimesOfADeviceCodeAreBounded(t *testing.T) {
	for given, want := range map[string]struct{ life, interval time.Duration }{
		``:                                    {7 * time.Minute, 5 * time.Second},
		`,"expires_in":300,"interval":5`:      {5 * time.Minute, 5 * time.Second},
		`,"expires_in":"900","interval":"3"`:  {15 * time.Minute, 3 * time.Second},
		`,"expires_in":300.5,"interval":5000`: {300*time.Second + 500*time.Millisecond, time.Minute},
		`,"expires_in":1e300,"interval":0.1`:  {30 * time.Minute, time.Second},
		`,"expires_in":-1,"interval":0`:       {7 * time.Minute, 5 * time.Second},
		`,"expires_in":null,"interval":[]`:    {7 * time.Minute, 5 * time.Second},
		`,"expires_in":"soon","interval":{}`:  {7 * time.Minute, 5 * time.Second},
	} {
		e := at(stub(func(url.Values) (int, http.Header, string) {
			return 200, nil, `{"device_code":"d","user_code":"u","verification_uri":"https://a.example"` + given + `}`
		}), func(c *Config) { c.DeviceURL = c.URL })
		if d, v := authorize(e); v.Class != Issued || d.Life != want.life || d.Interval != want.interval {
			t.Errorf("%s: %v, %v, %+v", given, d.Life, d.Interval, v)
		}
	}
}

func TestWhatIsNoDeviceAuthorizationIsToldApart(t *testing.T) {
	for name, test := range map[string]struct {
		status      int
		body        string
		class       Class
		cause, says string
	}{
		"no user_code":         {200, `{"device_code":"d","verification_uri":"https://a.example"}`, Misconfigured, "the answer lacks", "check device_endpoint"},
		"no device_code":       {200, `{"user_code":"u","verification_uri":"https://a.example"}`, Misconfigured, "the answer lacks", ""},
		"no address":           {200, `{"device_code":"d","user_code":"u"}`, Misconfigured, "the answer lacks", ""},
		"an address of no use": {200, `{"device_code":"d","user_code":"u","verification_uri":"javascript:alert(1)"}`, Misconfigured, "the answer lacks", ""},
		"an address to open":   {200, `{"device_code":"d","user_code":"u","verification_uri":"file:///etc/passwd"}`, Misconfigured, "the answer lacks", ""},
		"a path":               {200, `{"device_code":"d","user_code":"u","verification_uri":"/device"}`, Misconfigured, "the answer lacks", ""},
		"a user":               {200, `{"device_code":"d","user_code":"u","verification_uri":"https://auth.example.com@a.example"}`, Misconfigured, "the answer lacks", ""},
		"a page":               {200, `<html>`, Unavailable, "an answer that is no JSON", ""},
		"not there":            {404, `<html>`, Misconfigured, "no device authorization endpoint at this address", "check the path of device_endpoint"},
		"the client":           {401, `{"error":"invalid_client"}`, Misconfigured, "the client was refused", "check client_id"},
		"the grant":            {400, `{"error":"unauthorized_client"}`, Misconfigured, "the client was refused", "allow this client"},
		"a refusal":            {400, `{"error":"invalid_grant"}`, Misconfigured, "", "allow this client the device grant"},
		"too many":             {429, ``, Unavailable, "the device authorization endpoint is rate-limiting", ""},
		"an outage":            {503, ``, Unavailable, "the device authorization endpoint fails", ""},
	} {
		e := at(stub(func(url.Values) (int, http.Header, string) { return test.status, nil, test.body }), func(c *Config) { c.DeviceURL = c.URL })
		d, v := authorize(e)
		if v.Class != test.class || !strings.HasPrefix(v.Cause, test.cause) || !strings.HasPrefix(v.Fix, test.says) || d != (Authorization{}) && v.Class == Issued {
			t.Errorf("%s: %+v", name, v)
		}
	}
	endless, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"device_code":"`+strings.Repeat("x", maxAnswer))
	})
	if _, v := authorize(endpoint(endless, func(c *Config) { c.DeviceURL = endless })); v.Class != Unavailable || v.Cause != "an answer over 64 KiB" {
		t.Errorf("endless: %+v", v)
	}
}

func TestTheDeviceEndpointIsInTheIssuersMetadata(t *testing.T) {
	const issuer = "https://auth.example.com"
	for name, test := range map[string]struct {
		metadata string
		auth     ClientAuth
		device   string
		asked    string
		class    Class
	}{
		"there":             {`,"device_authorization_endpoint":"https://auth.example.com/device"`, None, "", "/device", Issued},
		"not there":         {``, None, "", "", Misconfigured},
		"in the clear":      {`,"device_authorization_endpoint":"http://auth.example.com/device"`, None, "", "", Misconfigured},
		"given":             {``, None, "https://other.example.com/given", "/given", Issued},
		"for certificates":  {`,"device_authorization_endpoint":"https://auth.example.com/device","mtls_endpoint_aliases":{"device_authorization_endpoint":"https://mtls.example.com/mtls"}`, TLS, "", "/mtls", Issued},
		"not for everybody": {`,"device_authorization_endpoint":"https://auth.example.com/device","mtls_endpoint_aliases":{"device_authorization_endpoint":"https://mtls.example.com/mtls"}`, None, "", "/device", Issued},
	} {
		asked := ""
		e := endpoint(nil, func(c *Config) {
			c.Issuer, c.Client.Auth = issuer, test.auth
			c.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				body := `{"issuer":"` + issuer + `","token_endpoint":"https://auth.example.com/token"` + test.metadata + `}`
				if r.Method == http.MethodPost {
					asked, body = r.URL.Path, codes
				}
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), ProtoMajor: 1}, nil
			})
			if test.device != "" {
				c.DeviceURL, _ = url.Parse(test.device)
			}
		})
		if _, v := authorize(e); v.Class != test.class || asked != test.asked {
			t.Errorf("%s: asked %q: %+v", name, asked, v)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What is wrong with one address is not wrong with the other.
func TestAnAddressOfNoUseLeavesTheOther(t *testing.T) {
	const good, bad = "https://a.example/device", "https://auth.example.com@a.example"
	for given, want := range map[[2]string][2]string{{good, bad}: {good, ""}, {bad, good}: {"", good}} {
		e := at(stub(func(url.Values) (int, http.Header, string) {
			return 200, nil, fmt.Sprintf(`{"device_code":"d","user_code":"u","verification_uri":%q,"verification_uri_complete":%q}`, given[0], given[1])
		}), func(c *Config) { c.DeviceURL = c.URL })
		if d, v := authorize(e); v.Class != Issued || d.VerificationURI != want[0] || d.VerificationURIComplete != want[1] {
			t.Errorf("%v: %+v, %+v", given, d, v)
		}
	}
}

// The answers of real servers to a poll, and of those that cannot run here by their documentation.
func TestAnswersToADeviceCodeAreClassedByErrorAtAnyStatus(t *testing.T) {
	for _, test := range []struct {
		server string
		status int
		body   string
		class  Class
	}{
		{"RFC 8628, waiting", 400, `{"error":"authorization_pending"}`, Pending},
		{"Dex, waiting", 401, `{"error":"authorization_pending"}`, Pending},
		{"Auth0, waiting", 403, `{"error":"authorization_pending"}`, Pending},
		{"waiting, at any status", 429, `{"error":"authorization_pending"}`, Pending},
		{"waiting, though a proxy makes it an outage", 503, `{"error":"authorization_pending"}`, Pending},
		{"RFC 8628, too early", 400, `{"error":"slow_down"}`, Pending},
		{"Auth0, too early", 429, `{"error":"slow_down"}`, Pending},
		{"refused", 400, `{"error":"access_denied"}`, Rejected},
		{"Auth0, refused", 403, `{"error":"access_denied"}`, Rejected},
		{"Entra, refused", 400, `{"error":"authorization_declined"}`, Rejected},
		{"Entra, not known", 400, `{"error":"bad_verification_code"}`, Rejected},
		{"run out", 400, `{"error":"expired_token"}`, Rejected},
		{"used", 403, `{"error":"invalid_grant"}`, Rejected},
		{"an outage", 503, `{"error":"temporarily_unavailable"}`, Unavailable},
		{"a limit", 429, ``, Unavailable},
		{"a failing server", 500, `{"error":"server_error"}`, Unavailable},
		{"the client", 401, `{"error":"invalid_client"}`, Misconfigured},
		{"the grant", 400, `{"error":"unsupported_grant_type"}`, Misconfigured},
		{"a firewall", 403, `<html>`, Misconfigured},
		{"tokens", 200, `{"access_token":"a"}`, Issued},
	} {
		// What an operator says of statuses is about credentials.
		onError := map[string]Class{"403": Rejected, "400": Rejected, "access_denied": Misconfigured}
		v := judged(&Grant{Type: DeviceCode, OnError: onError}, Basic, test.status, test.body)
		if v.Class != test.class {
			t.Errorf("%s: %+v", test.server, v)
		}
	}
}

func TestAClaimOfAnIDTokenIsReadWithoutItsSignature(t *testing.T) {
	jwt := func(payload string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	}
	for token, want := range map[string]string{
		jwt(`{"sub":"248289761001"}`):           "248289761001",
		jwt(`{"sub":7}`):                        "7",
		jwt(`{"sub":"é \u00fc"}`):               "é ü",
		jwt(`{"sub":1.5}`):                      "",
		jwt(`{"sub":["a"]}`):                    "",
		jwt(`{"sub":""}`):                       "",
		jwt(`{"name":"ella"}`):                  "",
		jwt(`["sub"]`):                          "",
		jwt(`no JSON`):                          "",
		jwt("{\"sub\":\"\xff\"}"):               "",
		"e30.###.c2ln":                          "",
		"opaque":                                "",
		"":                                      "",
		"a.b.c.d.e":                             "",
		fmt.Sprint(jwt(`{"sub":"a"}`), ".more"): "",
	} {
		if got := Claim(token, "sub"); got != want {
			t.Errorf("%s: %q, want %q", token, got, want)
		}
	}
}

// FuzzAuthorization holds that whatever a server answers, what is taken of it is whole and within bounds.
func FuzzAuthorization(f *testing.F) {
	for _, body := range []string{
		codes, `{}`, `[]`, ``, `{"device_code":1}`, `{"device_code":"d","user_code":"u","verification_uri":"https://a","expires_in":1e999,"interval":-0}`,
		`{"device_code":"d","user_code":"u","verification_uri":"https://a","expires_in":"1e9","interval":{"a":1}}`, `{"error":"slow_down"}`,
	} {
		f.Add(200, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := at(stub(func(url.Values) (int, http.Header, string) { return status, nil, string(body) }), func(c *Config) { c.DeviceURL = c.URL })
		d, _, v := e.Authorize(soon(), &Grant{Type: DeviceCode})
		if v.Class != Issued {
			return
		}
		if d.DeviceCode == "" || d.UserCode == "" || d.VerificationURI+d.VerificationURIComplete == "" ||
			d.Life < minInterval || d.Life > maxDeviceLife || d.Interval < minInterval || d.Interval > maxInterval {
			t.Errorf("%q is %+v", body, d)
		}
		Claim(string(body), "sub")
	})
}
