// Package token exchanges credentials for tokens at an OAuth 2.0 token endpoint (RFC 6749 section 3.2) and
// says what a failure means.
//
// One attempt is one POST: no redirect is followed, nothing that was sent is sent again, client
// authentication is not probed. A wrong password costs its account one failed login.
//
// It knows neither Caddy nor SOAP.
package token

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// Param is one parameter of the form.
type Param struct{ Name, Value string }

// Config says where and as whom an Endpoint exchanges.
type Config struct {
	// URL is the token endpoint. Without it the metadata of Issuer tells, for which ParseIssuer holds, when it is
	// first needed and again after an hour. Insecure then allows an http endpoint beyond loopback.
	URL      *url.URL
	Issuer   string
	Insecure bool

	// DeviceURL is the device authorization endpoint, which only Authorize needs. Without it the metadata of Issuer tells.
	DeviceURL *url.URL

	// Metadata is what is known of Issuer. Endpoints may share it that have the same Issuer and Insecure, and a client
	// that is TLS in all of them or in none. A new Endpoint uses what it knows, and looks for it again. Nil is one of
	// its own.
	Metadata *Metadata

	Client Client

	// Fields are the names of the fields that are kept of an answer. The others are dropped as soon as it is read.
	Fields []string

	// FormCharset is said of the form, which is UTF-8 in any case. Blank is not said.
	FormCharset string

	// Transport sends the requests, each with the values of Context. Both are required.
	Transport http.RoundTripper
	Context   context.Context
}

// Grant is what is exchanged: a grant type and its parameters.
type Grant struct {
	Type   string
	Params []Param

	// Header goes out with the request, in the place of the endpoint's own. Nil is none.
	Header http.Header

	// OnError says what an answer means by its OAuth error or, where that has no fixed meaning, by its HTTP
	// status in digits, other than this package knows. Nil changes nothing.
	OnError map[string]Class
}

// Size is about how many bytes the grant holds.
func (g *Grant) Size() (n int) {
	for _, p := range g.Params {
		n += len(p.Name) + len(p.Value)
	}
	return n
}

// Endpoint exchanges at one token endpoint as one client. It is safe for concurrent use.
type Endpoint struct {
	known          endpoints
	device         *url.URL
	discovery      *discovery // in the place of known
	client         Client
	fields         []string
	formType       string                               // its Content-Type
	authentication atomic.Pointer[clientAuthentication] // the last one
	transport      http.RoundTripper
	context        context.Context
	http1          atomic.Bool // what the last answer came over
}

// New returns an Endpoint. It does no network I/O.
func New(c Config) *Endpoint {
	e := &Endpoint{
		known: endpoints{token: c.URL}, device: c.DeviceURL, client: c.Client, fields: c.Fields, formType: "application/x-www-form-urlencoded",
		transport: c.Transport, context: c.Context,
	}
	if c.FormCharset != "" {
		e.formType += "; charset=" + c.FormCharset
	}
	if c.URL == nil {
		m := c.Metadata
		if m == nil {
			m = new(Metadata)
		}
		m.expire()
		e.discovery = &discovery{Metadata: m, issuer: c.Issuer, insecure: c.Insecure, mtls: c.Client.Auth == TLS, get: e.get}
	}
	return e
}

// Exchange posts the form of g once, before the deadline. Where nothing was sent, as when no connection could be made,
// it tries once more.
//
// commit is called when the token endpoint is known, right before the form is sent. It returns the deadline from then
// on, or false to send nothing, upon which Exchange returns false.
func (e *Endpoint) Exchange(deadline time.Time, g *Grant, commit func() (time.Time, bool)) (a Answer, sent bool) {
	where, failed := e.locate(deadline)
	if failed != nil {
		return *failed, true
	}
	deadline, sent = commit()
	if !sent {
		return a, false
	}
	begun := time.Now()
	a, _ = e.post(deadline, where.token, where.token, formOf(g), g.Header)
	a.Took = time.Since(begun)
	return a, true
}

// Judge says what an answer means for the account that g is about.
func (e *Endpoint) Judge(g *Grant, a *Answer) Verdict {
	v := judge(g, e.client.Auth, a)
	if v.Error != "" && !meaningful(v.Error) && e.client.Auth.NeedsSecret() && quotes(v.Error, e.client.Secret()) {
		v.Error = "other"
	}
	return v
}

// locate returns the endpoints, or why they are not known.
func (e *Endpoint) locate(deadline time.Time) (*endpoints, *Answer) {
	if e.discovery == nil {
		return &e.known, nil
	}
	ctx, cancel := context.WithDeadline(e.context, deadline)
	defer cancel()
	return e.discovery.locate(ctx)
}

// post sends a form and reads the answer, of which content is all, nil where there is no whole one. The audience is that of an
// assertion.
func (e *Endpoint) post(deadline time.Time, where, audience *url.URL, form string, extra http.Header) (a Answer, content []byte) {
	ctx, cancel := context.WithDeadline(e.context, deadline)
	defer cancel()
	request, err := e.request(ctx, where, audience, form, extra)
	if err != nil {
		return broken(0, Misconfigured, "the client's assertion cannot be signed", "check client_key"), nil
	}
	response, err := e.transport.RoundTrip(request.Request)
	if err != nil && !request.begun.Load() && pause(ctx) {
		response, err = e.transport.RoundTrip(request.Request)
	}
	if err != nil {
		return unanswered(0, err), nil
	}
	e.http1.Store(response.ProtoMajor == 1)
	content, failed := read(response)
	if failed != nil {
		return *failed, nil
	}
	return newAnswer(response, content, e.fields), content
}

// read reads an answer, whole or not at all.
func read(response *http.Response) ([]byte, *Answer) {
	defer response.Body.Close()
	status := response.StatusCode
	if status == http.StatusSwitchingProtocols { // its body is the connection, without a deadline
		a := broken(status, Unavailable, "an answer that switches protocols", "")
		return nil, &a
	}
	content, err := readAll(io.LimitReader(response.Body, maxAnswer+1), response.ContentLength)
	if err != nil {
		a := unanswered(status, err)
		return nil, &a
	}
	if len(content) > maxAnswer {
		a := broken(status, Unavailable, "an answer over 64 KiB", "")
		return nil, &a
	}
	return content, nil
}

// readAll is io.ReadAll for what is said to be so long, -1 for unknown: then it takes no more room than it needs.
func readAll(from io.Reader, length int64) (content []byte, err error) {
	if length < 0 {
		length = 511
	}
	content = make([]byte, 0, min(length, maxAnswer)+1) // one more, so that the end is seen
	for {
		n, err := from.Read(content[len(content):cap(content)])
		switch content = content[:len(content)+n]; {
		case err == io.EOF:
			return content, nil
		case err != nil:
			return content, err
		case len(content) == cap(content):
			content = slices.Grow(content, len(content))
		}
	}
}

// get asks for metadata. No redirect is followed.
func (e *Endpoint) get(ctx context.Context, from *url.URL) (a Answer, metadata map[string]string) {
	request := (&http.Request{
		Method: http.MethodGet,
		URL:    from,
		Host:   from.Host,
		Header: http.Header{"Accept": {"application/json"}, "User-Agent": {userAgent}},
	}).WithContext(ctx)
	response, err := e.transport.RoundTrip(request)
	if err != nil {
		return unanswered(0, err), nil
	}
	content, failed := read(response)
	if failed != nil {
		return *failed, nil
	}
	a = newAnswer(response, content, metadataFields)
	if a.Fields == nil {
		return a, nil
	}
	metadata = make(map[string]string, len(a.Fields))
	for _, f := range a.Fields {
		metadata[f.Name] = f.Text
	}
	addAliases(metadata, content)
	return a, metadata
}

// pause waits a little before a second try, not all callers for the same time.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(20*time.Millisecond + rand.N(80*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func formOf(g *Grant) string {
	var form strings.Builder
	form.Grow(256)
	form.WriteString("grant_type=")
	form.WriteString(url.QueryEscape(g.Type))
	for _, p := range g.Params {
		writeParam(&form, p.Name, p.Value)
	}
	return form.String()
}

var tokenPost = &http.Request{Method: http.MethodPost}

// tokenRequest is a request of which is known whether it has begun to be sent.
type tokenRequest struct {
	*http.Request
	begun *atomic.Bool
}

func (e *Endpoint) request(ctx context.Context, where, audience *url.URL, form string, extra http.Header) (tokenRequest, error) {
	client, err := e.client.authenticate(audience, e.formType, e.authentication.Load())
	if err != nil {
		return tokenRequest{}, err
	}
	e.authentication.Store(client)
	header := client.header
	if extra != nil {
		header = maps.Clone(header)
		maps.Copy(header, extra)
	}
	form += client.ending
	ctx, body, begun := e.body(ctx, form)
	r := tokenPost.WithContext(ctx)
	r.URL, r.Host, r.Header = where, where.Host, header
	r.Body, r.ContentLength = body, int64(len(form))
	// For the transport's own second try, over HTTP/1 when a connection had died idle and no byte went out.
	// HTTP/2 also tries again what a server has received and disclaims.
	r.GetBody = func() (io.ReadCloser, error) {
		if begun.Load() && !e.http1.Load() {
			return nil, errSent
		}
		return io.NopCloser(strings.NewReader(form)), nil
	}
	return tokenRequest{r, begun}, nil
}

// body is a form as the body of a request with that context, and whether it has begun to be sent.
func (e *Endpoint) body(ctx context.Context, form string) (context.Context, io.ReadCloser, *atomic.Bool) {
	if !e.http1.Load() {
		body := new(formBody)
		body.Reset(form)
		return ctx, body, &body.read
	}
	// Over HTTP/1, net/http sends a body that it knows to be in memory in one packet with the header. It tells, as others might not,
	// when it has written that.
	sending := new(struct {
		httptrace.ClientTrace
		begun atomic.Bool
	})
	sending.WroteHeaders = func() { sending.begun.Store(true) }
	ctx = httptrace.WithClientTrace(ctx, &sending.ClientTrace)
	return ctx, io.NopCloser(strings.NewReader(form)), &sending.begun
}

var errSent = errors.New("the request was sent before")

// formBody is a body that knows whether it has been read from.
type formBody struct {
	strings.Reader
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
