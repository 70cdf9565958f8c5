package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
	// Overloaded: not sent, there was no place in time.
	Overloaded Class = "overloaded"
	// Misconfigured: the server refuses the client, not the credentials. The operator has to act.
	Misconfigured Class = "misconfigured"
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
		"invalid_client":         "check client_id and its secret, key or certificate, and whether the server wants another client_auth",
		"unauthorized_client":    "allow this client the grant type at the authorization server",
		"unsupported_grant_type": "enable the grant type at the authorization server, or exchange by another one",
		"invalid_scope":          "check scope against what this client may ask for",
		"invalid_request":        "check param and scope against what the authorization server demands",
	}
)

// classify reads an answer: by its error first and by its status second, because servers agree more on the
// former. readable tells whether the answer was JSON at all.
func classify(g Grant, auth ClientAuth, status int, o object, readable bool) Result {
	return Result{Status: status, object: o, said: said{answer: true, error: o.text("error"), readable: readable}}.judged(g, auth)
}

// said is what an answer was classed by.
type said struct {
	answer   bool // there was one
	error    string
	readable bool
}

// judged classes a result for a grant: the grant's own OnError may differ from that of who has asked.
func (r Result) judged(g Grant, auth ClientAuth) Result {
	if !r.said.answer {
		return r
	}
	status, code, readable := r.Status, r.said.error, r.said.readable
	r.Error = known(code)
	subject := g.Type == Refresh || g.Type == TokenExchange
	// fosite says invalid_request of an assertion whose key it does not know, and invalid_grant of a dead token.
	if code == "invalid_request" && g.Type == Refresh && auth == PrivateKeyJWT {
		subject = false
	}
	success := status >= 200 && status <= 299

	if class := g.OnError[code]; class != "" && code != "" {
		r.Error = code
		return r.is(class, causeOnError, "")
	}
	// An error with a meaning is more than its status: a refused client must not be taken for a listener
	// because both are a 401.
	class := g.OnError[strconv.Itoa(status)]
	if class != "" && !success && (r.Error == "" || r.Error == "other" || r.Error == "server_error") {
		return r.is(class, causeOnError, "")
	}

	switch {
	case status == http.StatusTooManyRequests || slices.Contains(errorsPassing, code):
		return r.is(Unavailable, "the token endpoint asks for patience", "")
	case slices.Contains(errorsListener, code):
		return r.is(Rejected, "the listener has to act", "")
	case code == "invalid_grant",
		code == "access_denied" && (success || status == 400 || status == 401 || status == 403):
		return r.is(Rejected, "the credentials were refused", "")
	case subject && slices.Contains(errorsSubject, code):
		return r.is(Rejected, "the old token was refused", "")
	case errorsClient[code] != "":
		return r.is(Misconfigured, "the client was refused", errorsClient[code])
	case status >= 500, code == "server_error", status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return r.is(Unavailable, "the token endpoint fails", "")
	case status >= 300 && status <= 399:
		return r.is(Misconfigured, "a redirect, which is never followed with a password in hand",
			"give the address that answers itself as token_endpoint")
	case status == http.StatusNotFound:
		return r.is(Misconfigured, "no token endpoint at this address", "check the path of token_endpoint")
	case code != "":
		return r.is(Misconfigured, "an error with no fixed meaning",
			"look the error up in the documentation of the authorization server")
	case !success:
		return r.is(Misconfigured, "a refusal without an OAuth error",
			"check token_endpoint and what stands in front of it, and whether the server wants another client_auth")
	case !readable:
		return r.is(Unavailable, "an answer that is no JSON, as from a proxy in between", "")
	}
	return r.is(Issued, "", "")
}

const causeOnError = "as on_error says"

func (r Result) is(class Class, cause, mend string) Result {
	r.Class, r.Cause, r.Mend = class, cause, mend
	return r
}

// known returns the error if it is one of a fixed list: a server may put anything into it.
func known(code string) string {
	switch {
	case code == "",
		code == "invalid_grant", code == "access_denied", errorsClient[code] != "",
		slices.Contains(errorsPassing, code), slices.Contains(errorsListener, code),
		slices.Contains(errorsSubject, code), code == "server_error":
		return code
	}
	return "other"
}

// broken is the result of an exchange without a whole answer. The texts of transport errors can quote what
// the server sent, so the cause is told in words of our own.
func broken(status int, err error) Result {
	return Result{Status: status}.is(Unavailable, describe(err), "")
}

func describe(err error) string {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		alert   tls.AlertError
		record  tls.RecordHeaderError
		errno   syscall.Errno
		unknown x509.UnknownAuthorityError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return causeTimeout
	case errors.As(err, &dns):
		return causeNoHost
	case errors.As(err, &unknown):
		return "the certificate of the token endpoint is by an authority that is not trusted"
	case errors.As(err, &cert):
		return "the certificate of the token endpoint is not valid for it"
	case errors.As(err, &alert), errors.As(err, &record):
		return "no TLS with the token endpoint"
	case errors.As(err, &errno):
		return "the connection failed: " + errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection ended before the answer did"
	}
	// Caddy's transport hides what kind of error a failed dial is, but for its text. Of that nothing is quoted.
	text := err.Error()
	if strings.HasSuffix(text, "no such host") {
		return causeNoHost
	}
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNRESET} {
		if strings.HasSuffix(text, errno.Error()) {
			return "the connection failed: " + errno.Error()
		}
	}
	return "the connection failed"
}

const causeNoHost = "the host name of the token endpoint cannot be resolved"
