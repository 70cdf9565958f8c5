package token

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Class is what an exchange came to, for the account.
type Class string

const (
	// Issued: the answer has tokens.
	Issued Class = "issued"
	// Rejected: the server refuses these credentials for good, or the listener has to act.
	Rejected Class = "rejected"
	// Unavailable: no definitive answer. It says nothing about the credentials.
	Unavailable Class = "unavailable"
	// Misconfigured: the server refuses the client, not the credentials. The operator has to act.
	Misconfigured Class = "misconfigured"
	// Pending: the listener has not signed in yet. The endpoint is well, and is to be asked again.
	Pending Class = "pending"
)

// TokenExchange is the grant type of RFC 8693, Refresh that of RFC 6749 section 6.
const (
	TokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	Refresh       = "refresh_token"
)

// What the OAuth errors mean, whatever the HTTP status: RFC 6749 section 5.2, OpenID Connect Core section
// 3.1.2.6, RFC 8628 section 3.5, RFC 8693 section 2.2.2, and what servers use beside them.
var (
	errorsPassing = []string{"temporarily_unavailable", "slow_down", "too_many_requests", "too_many_attempts"}

	errorsListener = []string{"mfa_required", "interaction_required", "consent_required", "login_required"}

	// errorsSubject are about the old token where one is exchanged or refreshed, and about the client else.
	errorsSubject = []string{"invalid_request", "invalid_target", "invalid_token"}

	errorsClient = map[string]string{
		"access_denied":          "see why the server denies this client; if it says so of a wrong password, as Dex does, on_error access_denied rejected",
		"invalid_client":         "check client_id and its secret, key or certificate, and whether the server wants another client_auth",
		"unauthorized_client":    "allow this client the grant type at the authorization server",
		"unsupported_grant_type": "enable the grant type at the authorization server, or exchange by another one",
		"invalid_scope":          "check scope against what this client may ask for",
		"invalid_request":        "check param and scope against what the authorization server demands",
	}
)

// Verdict is what an answer means for the account. It is free of secrets.
type Verdict struct {
	Class Class

	// Error is the OAuth error of the answer where it is a name of at most 40 lower-case letters, digits, dots, dashes and
	// underscores, "other" where it is not, blank where there is none.
	Error string

	// Cause says in a few words what happened, and Fix what the operator can do about it. Both are fixed texts, blank
	// where there is nothing to say.
	Cause, Fix string

	// ByOnError is true where OnError has decided, OfStatus where it can by the HTTP status.
	ByOnError, OfStatus bool

	// Refused is true where the credentials were refused, whatever OnError makes of that.
	Refused bool
}

// judge reads an answer by its error first and by its status second, because servers agree more on the former.
func judge(g *Grant, auth ClientAuth, a *Answer) Verdict {
	if a.Failure != nil {
		return Verdict{Class: a.Failure.Class, Cause: a.Failure.Cause, Fix: a.Failure.Fix}
	}
	v := Verdict{Error: g.known(a)}
	status, code := a.Status, a.Error
	subject := g.Type == Refresh || g.Type == TokenExchange
	// fosite says invalid_request of an assertion whose key it does not know, and invalid_grant of a dead token.
	if code == "invalid_request" && g.Type == Refresh && auth == PrivateKeyJWT {
		subject = false
	}
	success := status >= 200 && status <= 299

	if g.Type == DeviceCode { // before OnError: servers say that they wait by statuses that mean a refusal elsewhere
		if class, cause := deviceClass(code); class != "" {
			return v.is(class, cause, "")
		}
	}
	for _, name := range [...]string{code + "/" + a.Suberror, code} {
		if class := g.OnError[name]; class != "" && code != "" {
			v.Refused = name == "invalid_grant"
			return v.byOnError(class)
		}
	}
	// An error with a meaning is more than its status: a refused client must not be taken for a listener
	// because both are a 401. And a firewall's page is nothing that the server says.
	v.OfStatus = !success && !a.RetryAfter && (a.Empty || a.Object) && (!meaningful(code) || code == "server_error")
	if class := g.OnError[strconv.Itoa(status)]; class != "" && v.OfStatus {
		return v.byOnError(class)
	}

	switch {
	case status == http.StatusTooManyRequests || slices.Contains(errorsPassing, code):
		return v.is(Unavailable, "the token endpoint is rate-limiting", "")
	case slices.Contains(errorsListener, code):
		return v.is(Rejected, "the listener has to act", "")
	case code == "invalid_grant":
		return v.is(Rejected, "the credentials were refused", "")
	case subject && slices.Contains(errorsSubject, code) && (code != "invalid_request" || status == http.StatusBadRequest):
		return v.is(Rejected, "the old token was refused", "")
	case errorsClient[code] != "":
		return v.is(Misconfigured, "the client was refused", errorsClient[code])
	case code == "" && status == http.StatusProxyAuthRequired:
		return v.is(Misconfigured, causeProxy, fixProxy)
	case status >= 500, code == "server_error", status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return v.is(Unavailable, "the token endpoint fails", "")
	case status >= 300 && status <= 399:
		return v.is(Misconfigured, "a redirect, which is never followed with a password in hand",
			"give the address that answers itself as token_endpoint")
	case status == http.StatusNotFound:
		return v.is(Misconfigured, "no token endpoint at this address", "check the path of token_endpoint")
	case code != "":
		return v.is(Misconfigured, "an error with no fixed meaning",
			"look the error up in the documentation of the authorization server")
	case !success:
		return v.is(Misconfigured, "a refusal without an OAuth error",
			"check token_endpoint and what stands in front of it, and whether the server wants another client_auth")
	case a.Form:
		return v.is(Misconfigured, "an answer that is form-encoded and not JSON", "have the authorization server answer in JSON (RFC 6749 section 5.1)")
	case !a.Readable:
		return v.is(Unavailable, "an answer that is no JSON, as from a proxy in between", "")
	}
	return v.is(Issued, "", "")
}

func (v Verdict) is(class Class, cause, fix string) Verdict {
	v.Class, v.Cause, v.Fix = class, cause, fix
	v.Refused = v.Refused || class == Rejected
	return v
}

func (v Verdict) byOnError(class Class) Verdict {
	v.ByOnError = true
	return v.is(class, "as on_error says", "")
}

// meaningful reports whether an error has a fixed meaning.
func meaningful(code string) bool {
	return code == "invalid_grant" || code == "server_error" || errorsClient[code] != "" ||
		slices.Contains(errorsPassing, code) || slices.Contains(errorsListener, code) || slices.Contains(errorsSubject, code)
}

var errorName = regexp.MustCompile(`^[a-z0-9_.-]{1,40}$`)

// known returns the error if it is a name, and nothing of what was sent or issued: a server may put anything into it.
func (g *Grant) known(a *Answer) string {
	code := a.Error
	if code == "" || meaningful(code) {
		return code
	}
	if !errorName.MatchString(code) {
		return "other"
	}
	for _, p := range g.Params {
		if quotes(code, p.Value) {
			return "other"
		}
	}
	for _, values := range g.Header {
		if slices.ContainsFunc(values, func(value string) bool { return quotes(code, value) }) {
			return "other"
		}
	}
	for _, f := range a.Fields {
		if quotes(code, f.Text) {
			return "other"
		}
	}
	return code
}

// quotes reports whether an error has a secret in it.
func quotes(code, secret string) bool {
	return len(secret) > 2 && strings.Contains(code, strings.ToLower(secret))
}
