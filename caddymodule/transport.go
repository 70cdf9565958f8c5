package caddymodule

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

var (
	errProxy         = errors.New("cannot be set up with its proxy")
	errTransportKind = errors.New("only the http transport can reach a token endpoint")
	errProxyProtocol = errors.New("proxy_protocol has no client to speak of here")
	errTransportTLS  = errors.New("is set up for TLS, but token_endpoint is http")
)

// givenTransport is what of the configuration's transport matters before it is provisioned.
type givenTransport struct {
	KeepAlive struct {
		IdleTimeout *caddy.Duration `json:"idle_timeout"`
	} `json:"keep_alive"`
	Proxy    json.RawMessage `json:"network_proxy"`
	ProxyURL string          `json:"forward_proxy_url"`
	TLS      struct {
		CertificateFile     string `json:"client_certificate_file"`
		CertificateKeyFile  string `json:"client_certificate_key_file"`
		CertificateAutomate string `json:"client_certificate_automate"`
	} `json:"tls"`
}

func (h *Handler) givenTransport() (given givenTransport) {
	_ = json.Unmarshal(h.TransportRaw, &given) // loading the module reports what is wrong with it
	return given
}

func (t *givenTransport) hasClientCertificate() bool {
	return t.TLS.CertificateFile != "" || t.TLS.CertificateAutomate != ""
}

// loadTransport provisions the transport of the configuration, with the defaults that logins need, and returns its
// client certificate if that comes from files.
func (h *Handler) loadTransport(ctx caddy.Context) (*reverseproxy.HTTPTransport, secret, error) {
	given := h.givenTransport()
	if h.TransportRaw == nil {
		h.TransportRaw = json.RawMessage(`{"protocol":"http"}`)
	}
	module, err := ctx.LoadModule(h, "TransportRaw")
	if err != nil && (given.Proxy != nil || given.ProxyURL != "") {
		return nil, nil, errProxy // err may quote its URL, which may have a password
	}
	if err != nil {
		return nil, nil, err
	}
	transport, ok := module.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil, nil, errTransportKind
	}
	if transport.ProxyProtocol != "" {
		return nil, nil, errProxyProtocol
	}
	if transport.TLS != nil && h.settings.plain() {
		return nil, nil, errTransportTLS
	}
	if given.KeepAlive.IdleTimeout == nil {
		transport.Transport.IdleConnTimeout = 4 * time.Second
	}
	transport.Transport.MaxIdleConnsPerHost = max(transport.Transport.MaxIdleConnsPerHost, h.settings.maxInFlight)
	if given.TLS.CertificateFile == "" {
		return transport, nil, nil
	}
	certificate, err := watch("transport", []string{given.TLS.CertificateFile, given.TLS.CertificateKeyFile}, h.logger,
		func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(given.TLS.CertificateFile, given.TLS.CertificateKeyFile)
			return &pair, err
		})
	config := transport.Transport.TLSClientConfig
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return certificate.get(), nil
	}
	return transport, certificate, err
}
