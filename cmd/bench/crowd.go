package main

import (
	"context"
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
	http1 = "HTTP/1.1"
	http2 = "HTTP/2"
	tls12 = "TLS 1.2" // with an RSA certificate and a fresh connection for each call, as players of the first generation do
)

// crowd are players who call a Caddy at an address.
type crowd struct {
	scheme, address string
	transport       *http.Transport
	connections     []*http.ClientConn // of HTTP/2, nil for the others
}

// streams is how many players share a connection of HTTP/2, as behind a load balancer. It is what Caddy allows.
const streams = 250

func newCrowd(n int, protocol, address string, ca *x509.CertPool) (*crowd, error) {
	p := &crowd{scheme: "http", address: address, transport: &http.Transport{MaxIdleConnsPerHost: n, DisableCompression: true}}
	switch protocol {
	case tls12:
		p.scheme, p.transport.DisableKeepAlives = "https", true
		p.transport.TLSClientConfig = &tls.Config{RootCAs: ca, MaxVersion: tls.VersionTLS12}
	case http2:
		p.transport.Protocols = new(http.Protocols)
		p.transport.Protocols.SetUnencryptedHTTP2(true)
		for range (n + streams - 1) / streams {
			c, err := p.transport.NewClientConn(context.Background(), "http", address)
			if err != nil {
				p.close()
				return nil, err
			}
			p.connections = append(p.connections, c)
		}
	}
	return p, nil
}

// ask sends a call of the player of that number, and returns the answer.
func (p *crowd) ask(number int, action, call string) (answer string, err error) {
	r, err := http.NewRequest(http.MethodPost, p.scheme+"://"+p.address+"/smapi", strings.NewReader(call))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+action+`"`)
	by := http.RoundTripper(p.transport)
	if p.connections != nil {
		by = p.connections[number/streams]
	}
	response, err := by.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

func (p *crowd) close() {
	for _, c := range p.connections {
		_ = c.Close()
	}
	p.transport.CloseIdleConnections()
}

// rsaCertificate writes a certificate for 127.0.0.1 and its RSA key of 2048 bits into a folder.
func rsaCertificate(dir string) (certFile, keyFile string, ca *x509.CertPool, err error) {
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
