// Package token exchanges credentials for tokens at an OAuth 2.0 token endpoint (RFC 6749 section 3.2) and
// says what a failure means.
//
// One attempt is one POST: no redirect is followed, nothing that was sent is sent again, client
// authentication is not probed. A wrong password costs its account one failed login.
//
// It knows neither Caddy nor SOAP.
package token

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// ClientAuth is how the client proves itself to the token endpoint.
type ClientAuth string

const (
	// Basic is HTTP Basic with id and secret form-encoded first, as RFC 6749 section 2.3.1 has it.
	Basic ClientAuth = "basic"
	// BasicRaw is HTTP Basic with id and secret as they are, which some servers want instead. The two
	// differ only for special characters.
	BasicRaw ClientAuth = "basic_raw"
	// Post is client_id and client_secret in the form.
	Post ClientAuth = "post"
	// None is client_id alone in the form: a public client.
	None ClientAuth = "none"
)

// NeedsSecret tells whether the client proves itself with a secret.
func (a ClientAuth) NeedsSecret() bool { return a != None }

// Param is one parameter of the form.
type Param struct{ Name, Value string }

// Config says where and as whom an Endpoint exchanges.
type Config struct {
	URL *url.URL

	ClientID, ClientSecret string
	ClientAuth             ClientAuth

	// Params go with every exchange.
	Params []Param

	// MaxInFlight is how many exchanges are under way at once; the others wait.
	MaxInFlight int

	// Transport sends the requests, each with the values of Context.
	Transport http.RoundTripper
	Context   context.Context
}

// Grant is what is exchanged: a grant type and its parameters.
type Grant struct {
	Type   string
	Params []Param
}

// Result is what came of an exchange. Everything exported is free of secrets.
type Result struct {
	Class Class

	// Status is the HTTP status of the answer, 0 where there was none.
	Status int

	// Error is the OAuth error of the answer where it is one that this package knows, "other" where it is
	// another one, blank where there was none.
	Error string

	// Cause says in a few words what happened, and Mend what the operator can do about it. Both are fixed
	// texts, blank where there is nothing to say.
	Cause, Mend string

	// Waited is the time for a place at the token endpoint, Took the time from there to the answer.
	Waited, Took time.Duration

	fields map[string]json.RawMessage
}

// Field returns the text of a field of an Issued answer, blank where it is missing or no text. It is a
// secret.
func (r *Result) Field(name string) string {
	var text string
	_ = json.Unmarshal(r.fields[name], &text) // no text is a blank one
	return text
}

// Endpoint exchanges at one token endpoint as one client. It is safe for concurrent use.
type Endpoint struct {
	url       *url.URL
	header    http.Header // shared by all requests, never written to
	form      string      // what every form ends with
	places    chan struct{}
	transport http.RoundTripper
	context   context.Context
	http1     atomic.Bool // what the last answer came over
}

// New returns an Endpoint. It does no network I/O.
func New(c Config) *Endpoint {
	e := &Endpoint{
		url: c.URL,
		header: http.Header{
			"Accept":       {"application/json"},
			"Content-Type": {"application/x-www-form-urlencoded"},
			"User-Agent":   {"caddy-smapi-upgrade"},
		},
		places:    make(chan struct{}, c.MaxInFlight),
		transport: c.Transport,
		context:   c.Context,
	}
	var form strings.Builder
	switch c.ClientAuth {
	case Basic:
		e.header.Set("Authorization", basic(url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret)))
	case BasicRaw:
		e.header.Set("Authorization", basic(c.ClientID, c.ClientSecret))
	case Post:
		writeParams(&form, []Param{{"client_id", c.ClientID}, {"client_secret", c.ClientSecret}})
	case None:
		writeParams(&form, []Param{{"client_id", c.ClientID}})
	}
	writeParams(&form, c.Params)
	e.form = form.String()
	return e
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

func writeParams(form *strings.Builder, params []Param) {
	for _, p := range params {
		form.WriteByte('&')
		form.WriteString(url.QueryEscape(p.Name))
		form.WriteByte('=')
		form.WriteString(url.QueryEscape(p.Value))
	}
}

// Exchange exchanges g, all in all before the deadline. A caller whose ctx ends leaves the queue; once the
// request is on its way it is finished, because the login it costs may already have happened.
func (e *Endpoint) Exchange(ctx context.Context, deadline time.Time, g Grant) Result {
	arrived := time.Now()
	if !e.enter(ctx, deadline) {
		cause := "no place at the token endpoint in time"
		if ctx.Err() != nil {
			cause = "the player has gone while it waited for a place"
		}
		return Result{Class: Overloaded, Cause: cause, Waited: time.Since(arrived)}
	}
	defer e.leave()

	sent := time.Now()
	result := e.post(deadline, g)
	result.Waited = sent.Sub(arrived)
	result.Took = time.Since(sent)
	return result
}

func (e *Endpoint) enter(ctx context.Context, deadline time.Time) bool {
	select {
	case e.places <- struct{}{}:
		return true
	default:
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case e.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *Endpoint) leave() { <-e.places }

func (e *Endpoint) post(deadline time.Time, g Grant) Result {
	ctx, cancel := context.WithDeadline(e.context, deadline)
	defer cancel()
	quietenLog()

	answer, err := e.transport.RoundTrip(e.request(ctx, g))
	if err != nil {
		return broken(0, err)
	}
	defer answer.Body.Close()
	e.http1.Store(answer.ProtoMajor == 1)
	if answer.StatusCode == http.StatusSwitchingProtocols { // its body is the connection, without a deadline
		return Result{Status: answer.StatusCode}.is(Unavailable, "an answer that switches protocols", "")
	}

	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return broken(answer.StatusCode, err)
	}
	if len(body) > maxAnswer {
		return Result{Class: Unavailable, Status: answer.StatusCode, Cause: "an answer over 64 KiB"}
	}
	fields, readable := readJSON(body)
	return classify(g.Type, answer.StatusCode, fields, readable)
}

func (e *Endpoint) request(ctx context.Context, g Grant) *http.Request {
	var form strings.Builder
	form.WriteString("grant_type=")
	form.WriteString(url.QueryEscape(g.Type))
	writeParams(&form, g.Params)
	form.WriteString(e.form)
	body := form.String()

	first := &formBody{Reader: strings.NewReader(body)}
	r := &http.Request{
		Method:        http.MethodPost,
		URL:           e.url,
		Host:          e.url.Host,
		Header:        e.header,
		ContentLength: int64(len(body)),
		Body:          first,
		// For the transport's own second try, over HTTP/1 when a connection had died idle and no byte went
		// out. HTTP/2 also tries again what a server has received and disclaims.
		GetBody: func() (io.ReadCloser, error) {
			if first.read.Load() && !e.http1.Load() {
				return nil, errSent
			}
			return io.NopCloser(strings.NewReader(body)), nil
		},
	}
	return r.WithContext(ctx)
}

var errSent = errors.New("the request was sent before")

// formBody is a body that knows whether it has been read from.
type formBody struct {
	*strings.Reader
	read atomic.Bool
}

func (b *formBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.Reader.Read(p)
}

// WriteTo hides the Reader's, which would not be noticed.
func (b *formBody) WriteTo(w io.Writer) (int64, error) {
	b.read.Store(true)
	return b.Reader.WriteTo(w)
}

func (b *formBody) Close() error { return nil }

// readJSON reads an object. Other JSON is readable but has no fields.
func readJSON(body []byte) (fields map[string]json.RawMessage, readable bool) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if json.Unmarshal(body, &fields) != nil {
		return nil, json.Valid(body)
	}
	return fields, true
}
