package token

import (
	"net/http"
	"strings"
	"testing"
)

const password = "password"

func judged(g *Grant, auth ClientAuth, status int, body string) Verdict {
	a := newAnswer(&http.Response{StatusCode: status}, []byte(body), nil)
	return judge(g, auth, &a)
}

// The answers of real servers, and what they mean for the account.
func TestAnswersAreClassedByErrorFirstAndStatusSecond(t *testing.T) {
	for _, test := range []struct {
		server string
		grant  string
		status int
		body   string
		class  Class
		error  string
	}{
		{"Keycloak up to 26.5, wrong password", password, 401, `{"error":"invalid_grant"}`, Rejected, "invalid_grant"},
		{"Keycloak from 26.6, wrong password", password, 400, `{"error":"invalid_grant"}`, Rejected, "invalid_grant"},
		{"Keycloak, wrong client", password, 401, `{"error":"unauthorized_client"}`, Misconfigured, "unauthorized_client"},
		{"Auth0, wrong password", password, 403, `{"error":"invalid_grant"}`, Rejected, "invalid_grant"},
		{"Auth0, MFA", password, 403, `{"error":"mfa_required"}`, Rejected, "mfa_required"},
		{"Auth0, too many", password, 429, `{"error":"too_many_requests"}`, Unavailable, "too_many_requests"},
		{"Auth0, too many attempts", password, 403, `{"error":"too_many_attempts"}`, Unavailable, "too_many_attempts"},
		{"Okta, too many", password, 429, `{"errorCode":"E0000047"}`, Unavailable, ""},
		{"Entra, MFA", password, 400, `{"error":"interaction_required"}`, Rejected, "interaction_required"},
		{"Dex, wrong password", password, 401, `{"error":"access_denied"}`, Misconfigured, "access_denied"},
		{"Dex, wrong client", password, 401, `{"error":"invalid_client"}`, Misconfigured, "invalid_client"},
		{"Dex, dead refresh token", Refresh, 400, `{"error":"invalid_request"}`, Rejected, "invalid_request"},
		{"fosite, locked account", password, 500, `{"error":"server_error"}`, Unavailable, "server_error"},
		{"Glewlwyd, wrong password", password, 403, ``, Misconfigured, ""},
		{"Glewlwyd, wrong client", password, 400, ``, Misconfigured, ""},
		{"go-oauth2, wrong password", password, 401, `{"error":"invalid_grant"}`, Rejected, "invalid_grant"},
		{"WSO2, the description holds the user", password, 400, `{"error":"invalid_grant","error_description":"ella"}`, Rejected, "invalid_grant"},

		{"consent", password, 400, `{"error":"consent_required"}`, Rejected, "consent_required"},
		{"login", password, 401, `{"error":"login_required"}`, Rejected, "login_required"},
		{"patience", password, 400, `{"error":"slow_down"}`, Unavailable, "slow_down"},
		{"patience with 503", password, 503, `{"error":"temporarily_unavailable"}`, Unavailable, "temporarily_unavailable"},
		{"429 before all else", password, 429, `{"error":"invalid_grant"}`, Unavailable, "invalid_grant"},
		{"invalid_grant at any status", password, 500, `{"error":"invalid_grant"}`, Rejected, "invalid_grant"},
		{"access_denied at any status", password, 503, `{"error":"access_denied"}`, Misconfigured, "access_denied"},
		{"Keycloak, HTTPS required", Refresh, 403, `{"error":"invalid_request"}`, Misconfigured, "invalid_request"},
		{"a form", password, 200, `access_token=a&token_type=bearer`, Misconfigured, ""},
		{"access_denied elsewhere", password, 404, `{"error":"access_denied"}`, Misconfigured, "access_denied"},
		{"a token exchange's old token", TokenExchange, 400, `{"error":"invalid_token"}`, Rejected, "invalid_token"},
		{"a token exchange's target", TokenExchange, 400, `{"error":"invalid_target"}`, Rejected, "invalid_target"},
		{"the form", password, 400, `{"error":"invalid_request"}`, Misconfigured, "invalid_request"},
		{"the scope", password, 400, `{"error":"invalid_scope"}`, Misconfigured, "invalid_scope"},
		{"the grant", Refresh, 400, `{"error":"unsupported_grant_type"}`, Misconfigured, "unsupported_grant_type"},
		{"an unknown client at go-oauth2", password, 500, `{"error":"server_error"}`, Unavailable, "server_error"},
		{"an error of the server's own", password, 400, `{"error":"ella is locked"}`, Misconfigured, "other"},
		{"an error of the server's own, at an outage", password, 502, `{"error":"oops"}`, Unavailable, "oops"},
		{"an error that is no text", password, 400, `{"error":{"code":7}}`, Misconfigured, ""},

		{"a failing server", password, 500, `oops`, Unavailable, ""},
		{"a proxy without its server", password, 502, `<html>`, Unavailable, ""},
		{"a slow client, by a proxy", password, 408, ``, Unavailable, ""},
		{"a moved endpoint", password, 307, ``, Misconfigured, ""},
		{"a proxy that wants a password", password, 407, `<html>`, Misconfigured, ""},
		{"a login page", password, 302, `<html>`, Misconfigured, ""},
		{"no endpoint", password, 404, `<html>`, Misconfigured, ""},
		{"a firewall", password, 403, `<html>`, Misconfigured, ""},
		{"no password", password, 401, ``, Misconfigured, ""},

		{"tokens", password, 200, `{"access_token":"a"}`, Issued, ""},
		{"tokens and a blank error", password, 200, `{"access_token":"a","error":"","x":null}`, Issued, ""},
		{"an error in a success", password, 200, `{"error":"invalid_grant"}`, Rejected, "invalid_grant"},
		{"a denial in a success", password, 200, `{"error":"access_denied"}`, Misconfigured, "access_denied"},
		{"a client's error in a success", password, 200, `{"error":"invalid_client"}`, Misconfigured, "invalid_client"},
		{"an empty success", password, 200, ``, Unavailable, ""},
		{"no content", password, 204, ``, Unavailable, ""},
		{"a captive page", password, 200, `<html>`, Unavailable, ""},
		{"half an answer", password, 200, `{"access_token":"a`, Unavailable, ""},
		{"two answers", password, 200, `{"access_token":"a"}{"access_token":"b"}`, Unavailable, ""},
		{"a description in another encoding", password, 400, "{\"error\":\"invalid_grant\",\"error_description\":\"ung\xfcltig\"}", Rejected, "invalid_grant"},
		{"a byte order mark", password, 400, "\xef\xbb\xbf{\"error\":\"invalid_grant\"}", Rejected, "invalid_grant"},
		{"an outage in a refusal", password, 400, `{"error":"server_error"}`, Unavailable, "server_error"},
		// JSON without the wanted field, which is for the caller to see.
		{"a list", password, 200, `["a"]`, Issued, ""},
		{"null", password, 200, `null`, Issued, ""},
	} {
		r := judged(&Grant{Type: test.grant}, Basic, test.status, test.body)
		if r.Class != test.class || r.Error != test.error {
			t.Errorf("%s: %s, error %q; want %s, error %q", test.server, r.Class, r.Error, test.class, test.error)
		}
		if (r.Fix != "") != (r.Class == Misconfigured) {
			t.Errorf("%s: the fix of %s is %q", test.server, r.Class, r.Fix)
		}
		if (r.Cause != "") != (r.Class != Issued) {
			t.Errorf("%s: the cause of %s is %q", test.server, r.Class, r.Cause)
		}
	}
}

func TestAKeyThatIsNotKnownIsNoDeadToken(t *testing.T) {
	const body = `{"error":"invalid_request"}`
	for auth, want := range map[ClientAuth]Class{Basic: Rejected, PrivateKeyJWT: Misconfigured} {
		if r := judged(&Grant{Type: Refresh}, auth, 400, body); r.Class != want {
			t.Errorf("%s: %s", auth, r.Class)
		}
	}
	if r := judged(&Grant{Type: TokenExchange}, PrivateKeyJWT, 400, body); r.Class != Rejected {
		t.Errorf("a token exchange: %s", r.Class)
	}
}

func TestOnErrorIsByErrorFirstAndByStatusWhereThatSaysNothing(t *testing.T) {
	for _, test := range []struct {
		onError map[string]Class
		status  int
		body    string
		class   Class
	}{
		{map[string]Class{"403": Rejected}, 403, ``, Rejected},
		{map[string]Class{"403": Rejected}, 403, `<html>`, Misconfigured},
		{map[string]Class{"403": Rejected}, 403, `{"message":"Forbidden"}`, Rejected},
		{map[string]Class{"invalid_grant/consent_required": Misconfigured}, 400, `{"error":"invalid_grant","suberror":"consent_required"}`, Misconfigured},
		{map[string]Class{"invalid_grant/consent_required": Misconfigured}, 400, `{"error":"invalid_grant"}`, Rejected},
		{map[string]Class{"403": Rejected}, 403, `{"error":"invalid_client"}`, Misconfigured},
		{map[string]Class{"403": Rejected}, 403, `{"error":"temporarily_unavailable"}`, Unavailable},
		{map[string]Class{"403": Rejected}, 403, `{"error":"something_else"}`, Rejected},
		{map[string]Class{"500": Rejected}, 500, `{"error":"server_error"}`, Rejected},
		{map[string]Class{"429": Rejected}, 429, ``, Rejected},
		{map[string]Class{"503": Misconfigured}, 503, ``, Misconfigured},
		{map[string]Class{"server_error": Rejected, "500": Unavailable}, 500, `{"error":"server_error"}`, Rejected},
		{map[string]Class{"invalid_grant": Unavailable}, 200, `{"error":"invalid_grant"}`, Unavailable},
		{map[string]Class{"invalid_client": Rejected}, 401, `{"error":"invalid_client"}`, Rejected},
		{map[string]Class{"400": Rejected}, 401, ``, Misconfigured},
	} {
		if r := judged(&Grant{OnError: test.onError}, Basic, test.status, test.body); r.Class != test.class {
			t.Errorf("%v, %d %s: %s, want %s", test.onError, test.status, test.body, r.Class, test.class)
		}
	}
}

// on_error by status is for a server that says nothing more, and never for a page of what stands in front of it.
func TestOnErrorByStatusIsForABodyThatIsEmptyOrAnObject(t *testing.T) {
	g := &Grant{OnError: map[string]Class{"403": Rejected}}
	for body, want := range map[string]Class{
		"": Rejected, " \r\n": Rejected, "{}": Rejected, `{"message":"Forbidden"}`: Rejected, `{"error":"locked"}`: Rejected, `{"error":null}`: Rejected,
		"null": Misconfigured, "[]": Misconfigured, `"forbidden"`: Misconfigured, "403": Misconfigured, "{": Misconfigured,
		"Forbidden": Misconfigured, "<html>": Misconfigured, "error=locked": Misconfigured, "{}<html>": Misconfigured,
	} {
		if r := judged(g, Basic, 403, body); r.Class != want || r.ByOnError != (want == Rejected) {
			t.Errorf("%q: %+v, want %s", body, r, want)
		}
		a := newAnswer(&http.Response{StatusCode: 403, Header: http.Header{"Retry-After": {"60"}}}, []byte(body), nil)
		if r := judge(g, Basic, &a); r.Class != Misconfigured {
			t.Errorf("%q with Retry-After: %+v", body, r)
		}
	}
}

// A wrong password is a failed login at the server, whatever the operator has it mean.
func TestARefusalIsOneWhateverOnErrorMakesOfIt(t *testing.T) {
	g := &Grant{Type: password, OnError: map[string]Class{"invalid_grant": Unavailable, "account_locked": Unavailable, "bad_login": Rejected}}
	for code, refused := range map[string]bool{"invalid_grant": true, "bad_login": true, "mfa_required": true, "account_locked": false, "invalid_client": false} {
		if v := judged(g, Basic, 400, `{"error":"`+code+`"}`); v.Refused != refused {
			t.Errorf("%s: %+v", code, v)
		}
	}
}

func TestASuberrorGoesBeforeItsError(t *testing.T) {
	const body = `{"error":"invalid_grant","suberror":"consent_required"}`
	for _, test := range []struct {
		onError map[string]Class
		body    string
		want    Class
	}{
		{nil, body, Rejected},
		{map[string]Class{"invalid_grant/consent_required": Unavailable, "invalid_grant": Rejected}, body, Unavailable},
		{map[string]Class{"invalid_grant": Misconfigured}, body, Misconfigured},
		{map[string]Class{"invalid_grant/bad_token": Misconfigured}, body, Rejected},
		{map[string]Class{"invalid_grant/consent_required": Misconfigured}, `{"error":"invalid_grant","suberror":7}`, Rejected},
		{map[string]Class{"invalid_grant/consent_required": Misconfigured}, `{"suberror":"consent_required"}`, Misconfigured}, // for want of an error
		{map[string]Class{"invalid_grant/consent_required": Rejected}, `{"error":"invalid_client","suberror":"consent_required"}`, Misconfigured},
	} {
		if r := judged(&Grant{OnError: test.onError}, Basic, 400, test.body); r.Class != test.want || r.Error == "consent_required" {
			t.Errorf("%v, %s: %+v, want %s", test.onError, test.body, r, test.want)
		}
	}
}

func TestAnErrorIsShownIfItIsAName(t *testing.T) {
	forty := strings.Repeat("a", 40)
	for code, want := range map[string]string{
		"a": "a", "account_locked": "account_locked", "e0000047": "e0000047", "a.b_c-1": "a.b_c-1", forty: forty, forty + "a": "other",
		"Account_locked": "other", "account locked": "other", "urn:x": "other", "söhne": "other", "a\\nb": "other", " ": "other", "": "",
	} {
		if v := judged(&Grant{}, Basic, 400, `{"error":"`+code+`"}`); v.Error != want {
			t.Errorf("%q is shown as %q", code, v.Error)
		}
	}
}

func TestAnErrorThatHoldsWhatWasSentIsNotShown(t *testing.T) {
	g := &Grant{Params: []Param{{"username", "Ella"}, {"password", "nuages"}}}
	for code, want := range map[string]string{
		"account_locked": "account_locked", "ella": "other", "unknown_user_ella": "other", "nuages": "other",
		"Account locked": "other", "a-name-that-is-longer-than-forty-characters": "other", "invalid_grant": "invalid_grant",
	} {
		if v := judged(g, Basic, 400, `{"error":"`+code+`"}`); v.Error != want {
			t.Errorf("%s is shown as %s", code, v.Error)
		}
	}
}
