package token

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

// ClientAuth is how the client authenticates at the token endpoint.
type ClientAuth string

const (
	// Basic is HTTP Basic with id and secret form-encoded first, as RFC 6749 section 2.3.1 has it.
	Basic ClientAuth = "basic"
	// BasicRaw is HTTP Basic with id and secret as they are, which some servers want instead. The two
	// differ only for special characters.
	BasicRaw ClientAuth = "basic_raw"
	// Post is client_id and client_secret in the form.
	Post ClientAuth = "post"
	// PrivateKeyJWT is an assertion signed with the client's key (RFC 7523 section 2.2), and client_id.
	PrivateKeyJWT ClientAuth = "private_key_jwt"
	// TLS is the client certificate of the transport (RFC 8705 section 2), and client_id.
	TLS ClientAuth = "tls"
	// None is client_id alone in the form: a public client.
	None ClientAuth = "none"
)

// NeedsSecret reports whether the client authenticates with a secret.
func (a ClientAuth) NeedsSecret() bool { return a == Basic || a == BasicRaw || a == Post }

// Client is who asks for tokens.
type Client struct {
	ID   string
	Auth ClientAuth

	// Secret and Key return what the client authenticates with. They are called at every exchange, since it may
	// change. Secret is required for Basic, BasicRaw and Post, Key for PrivateKeyJWT; otherwise they may be nil.
	Secret func() string
	Key    func() *Key

	// Audience is whom the assertions of PrivateKeyJWT are for. Blank is the token endpoint.
	Audience string
}

// clientAuthentication is what authenticates the client in a request: its header, and what its form ends with.
type clientAuthentication struct {
	secret string
	header http.Header
	ending string
}

// authenticate returns it for the token endpoint. One by a secret is good until the secret changes.
func (c *Client) authenticate(endpoint *url.URL, contentType string, last *clientAuthentication) (*clientAuthentication, error) {
	secret := ""
	if c.Auth.NeedsSecret() {
		secret = c.Secret()
	}
	if last != nil && last.secret == secret && c.Auth != PrivateKeyJWT {
		return last, nil
	}
	p := &clientAuthentication{secret: secret, header: http.Header{
		"Accept":       {"application/json"},
		"Content-Type": {contentType},
		"User-Agent":   {userAgent},
	}}
	switch c.Auth {
	case Basic:
		p.header.Set("Authorization", basic(url.QueryEscape(c.ID), url.QueryEscape(secret)))
		return p, nil
	case BasicRaw:
		p.header.Set("Authorization", basic(c.ID, secret))
		return p, nil
	}
	var form strings.Builder
	writeParam(&form, "client_id", c.ID)
	switch c.Auth {
	case Post:
		writeParam(&form, "client_secret", secret)
	case PrivateKeyJWT:
		audience := c.Audience
		if audience == "" {
			audience = endpoint.String()
		}
		assertion, err := c.Key().assertion(c.ID, audience)
		if err != nil {
			return nil, err
		}
		writeParam(&form, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		writeParam(&form, "client_assertion", assertion)
	}
	p.ending = form.String()
	return p, nil
}

const userAgent = "caddy-smapi-upgrade"

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

func writeParam(form *strings.Builder, name, value string) {
	form.WriteByte('&')
	form.WriteString(url.QueryEscape(name))
	form.WriteByte('=')
	form.WriteString(url.QueryEscape(value))
}
