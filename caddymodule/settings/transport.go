package settings

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

var (
	// ErrTransportKind is a transport that cannot reach a token endpoint.
	ErrTransportKind = errors.New("only the http transport can reach a token endpoint")

	errProxy         = errors.New("cannot be set up with its proxy")
	errProxyProtocol = errors.New("proxy_protocol has no client to speak of here")
	errTransportTLS  = errors.New("is set up for TLS, but token_endpoint is http")
)

// maxAnswerHeader is how many bytes the header of an answer may have, as its body. Go's default is 10 MiB.
const maxAnswerHeader = 64 << 10

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

func (o *Options) givenTransport() (given givenTransport) {
	_ = json.Unmarshal(o.TransportRaw, &given) // loading the module reports what is wrong with it
	return given
}

func (t *givenTransport) hasClientCertificate() bool {
	return t.TLS.CertificateFile != "" || t.TLS.CertificateAutomate != ""
}

// loadTransport provisions the transport of the configuration, with the defaults that logins need. Its client certificate
// follows its files.
func (o *Options) loadTransport(ctx caddy.Context, s *Settings, files *Files) (*reverseproxy.HTTPTransport, error) {
	given := o.givenTransport()
	if o.TransportRaw == nil {
		o.TransportRaw = json.RawMessage(`{"protocol":"http"}`)
	}
	module, err := ctx.LoadModule(o, "TransportRaw")
	if err != nil && (given.Proxy != nil || given.ProxyURL != "") {
		return nil, errProxy // err may quote its URL, which may have a password
	}
	if err != nil {
		return nil, err
	}
	transport, ok := module.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil, ErrTransportKind
	}
	if transport.ProxyProtocol != "" {
		return nil, errProxyProtocol
	}
	if transport.TLS != nil && s.Plain() {
		return nil, errTransportTLS
	}
	if given.KeepAlive.IdleTimeout == nil {
		transport.Transport.IdleConnTimeout = 4 * time.Second
	}
	transport.Transport.OnProxyConnectResponse = token.OnProxyConnect
	if transport.MaxResponseHeaderSize == 0 {
		transport.Transport.MaxResponseHeaderBytes = maxAnswerHeader
	}
	transport.Transport.MaxIdleConnsPerHost = max(transport.Transport.MaxIdleConnsPerHost, s.MaxInFlight)
	if given.TLS.CertificateFile == "" {
		return transport, nil
	}
	certificate, err := secret.Pair(files.config("transport"), given.TLS.CertificateFile, given.TLS.CertificateKeyFile)
	if err != nil {
		return nil, err
	}
	files.all = append(files.all, certificate)
	config := transport.Transport.TLSClientConfig
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return certificate.Get(), nil
	}
	return transport, nil
}
