package player

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"syscall"
	"time"
)

// What a player waits for, by Sonos's self-test: so long for a connection, and so long in all.
const (
	ConnectTimeout = 10 * time.Second
	Timeout        = 20 * time.Second
)

// Client sends calls to one URL. It follows no redirect and uses no proxy, since either would hand on the
// credentials, and speaks HTTP/1.1.
type Client struct {
	URL string

	// Timeout is for a call in all.
	Timeout time.Duration

	// Transport is that of NewTransport.
	Transport *http.Transport
}

// NewTransport makes a transport that keeps so many connections. With insecure it accepts any certificate.
func NewTransport(connections int, insecure bool) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: ConnectTimeout}).DialContext,
		TLSHandshakeTimeout: ConnectTimeout,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure},
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     4 * time.Second,
	}
}

// Upgrade sends the upgrade call of an account, and returns what its player makes of the answer.
func (c *Client) Upgrade(ctx context.Context, a Account, turn int) Answer {
	answer, _ := c.upgrade(ctx, a, turn)
	return answer
}

// upgrade is Upgrade, and returns the pair of an account that is upgraded, too.
func (c *Client) upgrade(ctx context.Context, a Account, turn int) (Answer, pair) {
	r, err := request(ctx, c.URL, a, turn)
	if err != nil {
		return Answer{Outcome: NoAnswer, Reason: why(err)}, pair{}
	}
	status, body, err := c.ask(r)
	if err != nil {
		return Answer{Outcome: NoAnswer, Reason: why(err)}, pair{}
	}
	answer := Read(status, body)
	if answer.Outcome != Upgraded {
		return answer, pair{}
	}
	return answer, pairIn(body)
}

// ask makes a call and reads its answer.
func (c *Client) ask(r *http.Request) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), c.Timeout)
	defer cancel()
	response, err := c.Transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	return response.StatusCode, body, err
}

// Lose sends the upgrade call of an account, and closes the connection when the answer begins to arrive, so that
// nobody has read it.
func (c *Client) Lose(ctx context.Context, a Account, turn int) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: cancel})
	if response, err := c.send(ctx, a, turn); err == nil {
		_ = response.Body.Close()
	}
}

func (c *Client) send(ctx context.Context, a Account, turn int) (*http.Response, error) {
	r, err := request(ctx, c.URL, a, turn)
	if err != nil {
		return nil, err
	}
	return c.Transport.RoundTrip(r)
}

// why tells why there was no answer, without anything that an error may quote.
func why(err error) string {
	var (
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		noTLS       tls.RecordHeaderError
		operation   *net.OpError
		network     net.Error
	)
	switch {
	case errors.As(err, &dns):
		return "the name of the host is not known"
	case errors.As(err, &certificate):
		return "a certificate that is not trusted"
	case errors.As(err, &noTLS):
		return "no TLS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &network) && network.Timeout():
		if errors.As(err, &operation) && operation.Op == "dial" {
			return "no connection in time"
		}
		return "timeout"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	}
	return "the connection failed"
}
