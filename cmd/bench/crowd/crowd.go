// Package crowd is players who call a Caddy, many at once.
package crowd

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// How players reach the Caddy.
const (
	HTTP1 = "HTTP/1.1"
	HTTP2 = "HTTP/2"
	TLS12 = "TLS 1.2" // with an RSA certificate and a fresh connection for each call, as players of the first generation do
)

// Crowd is players who call a Caddy at an address.
type Crowd struct {
	scheme, address string
	transport       *http.Transport
	connections     []*connection // of HTTP/2, nil for the others
}

// streams is how many players share a connection of HTTP/2, as behind a load balancer. It is what Caddy allows.
const streams = 250

// New returns so many players. Ca is who has signed the certificate of TLS12.
func New(n int, protocol, address string, ca *x509.CertPool) (*Crowd, error) {
	c := &Crowd{scheme: "http", address: address, transport: &http.Transport{MaxIdleConnsPerHost: n, DisableCompression: true}}
	switch protocol {
	case TLS12:
		c.scheme, c.transport.DisableKeepAlives = "https", true
		c.transport.TLSClientConfig = &tls.Config{RootCAs: ca, MaxVersion: tls.VersionTLS12}
	case HTTP2:
		for range (n + streams - 1) / streams {
			connection, err := connect(address)
			if err != nil {
				c.Close()
				return nil, err
			}
			c.connections = append(c.connections, connection)
		}
	}
	return c, nil
}

const contentType = "text/xml; charset=utf-8"

// Ask sends a call of the player of that number, and returns the answer.
func (c *Crowd) Ask(number int, action, call string) (answer string, err error) {
	action = `"http://www.sonos.com/Services/1.1#` + action + `"`
	if c.connections != nil {
		return c.connections[number/streams].ask(action, call)
	}
	r, err := http.NewRequest(http.MethodPost, c.scheme+"://"+c.address+"/smapi", strings.NewReader(call))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("SOAPAction", action)
	response, err := c.transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// Close ends all connections.
func (c *Crowd) Close() {
	for _, connection := range c.connections {
		_ = connection.Close()
	}
	c.transport.CloseIdleConnections()
}

// RSACertificate writes a certificate for 127.0.0.1 and its RSA key of 2048 bits into a folder.
func RSACertificate(dir string) (certFile, keyFile string, ca *x509.CertPool, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", "", nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", "", nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", nil, err
	}
	ca = x509.NewCertPool()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		text := pem.EncodeToMemory(block)
		if name == certFile {
			ca.AppendCertsFromPEM(text)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return "", "", nil, err
		}
	}
	return certFile, keyFile, ca, nil
}
