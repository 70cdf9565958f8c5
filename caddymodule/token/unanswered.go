package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

// CauseTimeout is the cause of a verdict where there was no answer in time.
const CauseTimeout = "no answer in time"

const (
	causeProxy = "the proxy wants a user name and a password, or others"
	fixProxy   = "check the user name and the password in the URL of the proxy in transport"
)

var errProxyAuth = errors.New("the proxy wants to be authenticated to")

// OnProxyConnect is for the OnProxyConnectResponse of an http.Transport, so that an Endpoint can tell a proxy that wants a
// password from one that fails.
func OnProxyConnect(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusProxyAuthRequired {
		return errProxyAuth
	}
	return nil
}

// unanswered is the Answer where there is no whole one. The texts of transport errors can quote what the server sent, so
// the cause is told in words of our own.
func unanswered(status int, err error) Answer {
	if errors.Is(err, errProxyAuth) {
		return broken(status, Misconfigured, causeProxy, fixProxy)
	}
	cause, fix := describe(err)
	return broken(status, Unavailable, cause, fix)
}

func describe(err error) (cause, fix string) {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		alert   tls.AlertError
		record  tls.RecordHeaderError
		errno   syscall.Errno
		unknown x509.UnknownAuthorityError
		timeout interface{ Timeout() bool }
	)
	// Caddy's transport hides what kind of error a failed dial is, and crypto/tls what kind an alert is, but for their
	// texts. Of those nothing is quoted.
	text, ofProxy := strings.CutPrefix(err.Error(), "proxyconnect tcp: ")
	server, its := "the token endpoint", "token_endpoint or issuer"
	if ofProxy {
		server, its = "the proxy", "the URL of the proxy in transport"
	}
	switch {
	case errors.As(err, &dns), strings.HasPrefix(text, "dial tcp: lookup "):
		return "the host name of " + server + " cannot be resolved", "check the host name in " + its + ", and the DNS of this machine"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return CauseTimeout, ""
	case errors.As(err, &unknown):
		return "the certificate of " + server + " is by an authority that is not trusted",
			"trust it by tls_trust_pool in transport, or have the server send its whole chain of certificates"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate of " + server + " has expired, or is not valid yet", "renew it at the server, and check the clock of this machine"
	case errors.As(err, &name):
		return "the certificate of " + server + " is for another host name", "use a name that the certificate has in " + its
	case errors.As(err, &cert):
		return "the certificate of " + server + " is not valid for it", "replace it at the server"
	case strings.HasSuffix(text, "tls: protocol version not supported"), strings.HasPrefix(text, "tls: server selected unsupported protocol version "):
		return "the TLS version of " + server + " is too old", "have the server offer TLS 1.2 or 1.3"
	case errors.As(err, &alert), errors.As(err, &record), strings.Contains(text, "remote error: tls: "), strings.HasPrefix(text, "tls: "):
		return "no TLS with " + server, "check that it speaks TLS at this port, and whether it wants a client certificate"
	case errors.As(err, &errno):
		return "the connection failed: " + errno.Error(), ""
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection ended before the answer did", ""
	}
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNRESET} {
		if strings.HasSuffix(text, errno.Error()) {
			return "the connection failed: " + errno.Error(), ""
		}
	}
	return "the connection failed", ""
}
