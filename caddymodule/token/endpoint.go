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
	"net/url"
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

	Client Client

	// MaxInFlight is how many exchanges are under way at once; the others wait in order of arrival, at most
	// 1000 for each of these.
	MaxInFlight int

	// Replay is for how long the same call gets the same tokens, RememberRejected for how long it gets the
	// same rejection. 0 is not at all. For a Refresh the former is always 60 s.
	Replay, RememberRejected time.Duration

	// State is what is known of the token endpoint. Endpoints of the same URL and client share it.
	State *State

	// Transport sends the requests, each with the values of Context.
	Transport http.RoundTripper
	Context   context.Context
}

// Grant is what is exchanged: a grant type and its parameters.
type Grant struct {
	Type   string
	Params []Param

	// Header goes out with the request, in the place of the endpoint's own.
	Header http.Header

	// Identity is what makes it the same call as another, which then share one exchange and its result.
	Identity []string

	// Account tells the account from others, whoever asks for it.
	Account string

	// OnError says what an answer means by its OAuth error or, where that has no fixed meaning, by its HTTP
	// status in digits, other than this package knows.
	OnError map[string]Class
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

	// Waited is the time for a place at the token endpoint, Took the time from there to the answer, 0 where it was not
	// asked.
	Waited, Took time.Duration

	// Replayed tells that the token endpoint was not asked for this call, but for the same one before it.
	Replayed bool

	said   said
	object object
}

// Field returns the text of a field of an Issued answer, blank where it is missing or no text. It is a
// secret.
func (r *Result) Field(name string) string { return r.object.text(name) }

// Endpoint exchanges at one token endpoint as one client. It is safe for concurrent use.
type Endpoint struct {
	name      string // by which it is told from others
	url       *url.URL
	discovery *discovery // in the place of url
	client    Client
	proof     atomic.Pointer[proof] // the last one
	places    int
	replay    time.Duration
	rejected  time.Duration
	state     *State
	transport http.RoundTripper
	context   context.Context
	http1     atomic.Bool // what the last answer came over
}

// New returns an Endpoint. It does no network I/O.
func New(c Config) *Endpoint {
	e := &Endpoint{
		url:       c.URL,
		client:    c.Client,
		places:    c.MaxInFlight,
		replay:    c.Replay,
		rejected:  c.RememberRejected,
		state:     c.State,
		transport: c.Transport,
		context:   c.Context,
	}
	if c.URL != nil {
		e.name = c.URL.String()
	} else {
		e.name = c.Issuer
		e.discovery = &discovery{issuer: c.Issuer, insecure: c.Insecure, get: e.get}
	}
	return e
}

// refreshReplay is for how long the same refresh token gets the same pair again.
const refreshReplay = 60 * time.Second

// Exchange exchanges g, all in all before the deadline. The same call at the same time is one exchange, and
// for a while after it has the same answer. A caller whose ctx ends stops waiting; what is on its way is
// finished, because the login it costs may already have happened.
func (e *Endpoint) Exchange(ctx context.Context, deadline time.Time, g Grant) Result {
	call := digestOf(e.name, g.Type, g.Identity...)
	for {
		known, f, lead := e.state.board(call, deadline, e.replay > 0 || g.Type == Refresh, e.rejected > 0)
		switch {
		case known != nil:
			r := known.judged(g, e.client.Auth)
			r.Waited, r.Took, r.Replayed = 0, 0, true
			return r
		case lead:
			return e.lead(ctx, deadline, call, f, g)
		}
		r, landed := e.follow(ctx, deadline, call, f)
		if !landed || r.Class != Overloaded || time.Now().After(deadline) {
			return r.judged(g, e.client.Auth)
		}
		// Who led had less time left. Lead the next.
	}
}

// lead flies, and lands even if the transport panics, since others follow.
func (e *Endpoint) lead(ctx context.Context, deadline time.Time, call digest, f *flight, g Grant) (r Result) {
	r = r.is(Unavailable, "the exchange broke off", "")
	replay := e.replay
	if g.Type == Refresh {
		replay = refreshReplay
	}
	defer func() { e.state.land(call, f, r, replay, e.rejected) }()
	r = e.fly(ctx, deadline, call, f, g)
	return r
}

// follow waits for the result of a flight that another caller leads.
func (e *Endpoint) follow(ctx context.Context, deadline time.Time, call digest, f *flight) (r Result, landed bool) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-f.done:
		r = f.result
		r.Replayed = true
		return r, true
	case <-ctx.Done():
		e.state.leave(call, f)
		return r.is(Overloaded, causeGone, ""), false
	case <-timer.C:
		if e.state.leave(call, f) {
			return r.is(Unavailable, causeTimeout, ""), false
		}
		return r.is(Overloaded, causeLate, ""), false
	}
}

// fly takes a flight through the gate to the token endpoint. A leader who leaves the queue keeps its place
// for those who follow.
func (e *Endpoint) fly(ctx context.Context, deadline time.Time, call digest, f *flight, g Grant) (r Result) {
	if e.state.breaker.open() {
		return r.is(Unavailable, causeOpen, "")
	}
	arrived := time.Now()
	admitted, w := e.state.gate.enter(deadline, e.places)
	if admitted == queued {
		admitted = e.queue(ctx, deadline, call, f, w)
	}
	r.Waited = time.Since(arrived)
	switch admitted {
	case late:
		return r.is(Overloaded, causeLate, "")
	case held:
		return r.is(Unavailable, "the token endpoint has asked for patience", "")
	case failing:
		return r.is(Unavailable, causeOpen, "")
	}
	sent := time.Now()
	defer func() { e.state.gate.leave(time.Since(sent)) }()
	r = e.state.breaker.pass(g, func() Result {
		where, failed := e.locate(deadline)
		if where == nil {
			return failed
		}
		deadline, ok := e.state.send(f)
		if !ok {
			return Result{}.is(Overloaded, causeGone, "")
		}
		posted := time.Now()
		r := e.post(deadline, where, g)
		r.Took = time.Since(posted)
		return r
	})
	r.Waited = sent.Sub(arrived)
	return r
}

func (e *Endpoint) queue(ctx context.Context, deadline time.Time, call digest, f *flight, w *waiting) admission {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { e.state.leave(call, f) })
	defer stop()
	return e.state.gate.wait(w, f.abandoned)
}

const (
	causeGone    = "the player has gone while it waited"
	causeLate    = "no place at the token endpoint in time"
	causeTimeout = "no answer in time"
	causeOpen    = "not asked, because the token endpoint has been failing"
)

// locate returns the token endpoint, or why it is not known.
func (e *Endpoint) locate(deadline time.Time) (*url.URL, Result) {
	if e.discovery == nil {
		return e.url, Result{}
	}
	ctx, cancel := context.WithDeadline(e.context, deadline)
	defer cancel()
	quietenLog()
	return e.discovery.locate(ctx)
}

// post sends the form once. Where nothing was sent, as when no connection could be made, it tries once more.
func (e *Endpoint) post(deadline time.Time, where *url.URL, g Grant) Result {
	ctx, cancel := context.WithDeadline(e.context, deadline)
	defer cancel()
	quietenLog()

	request, err := e.request(ctx, where, g)
	if err != nil {
		return Result{}.is(Misconfigured, "the client's assertion cannot be signed", "check client_key")
	}
	answer, err := e.transport.RoundTrip(request.Request)
	if err != nil && !request.body.read.Load() && pause(ctx) {
		answer, err = e.transport.RoundTrip(request.Request)
	}
	if err != nil {
		return broken(0, err)
	}
	e.http1.Store(answer.ProtoMajor == 1)
	content, failed := read(answer)
	if failed.Class != "" {
		return failed
	}
	o, readable := readJSON(content)
	result := classify(g, e.client.Auth, answer.StatusCode, o, readable)
	if result.Class == Unavailable {
		e.state.gate.holdBack(holdUntil(answer, time.Now()))
	}
	return result
}

// read reads an answer, whole or not at all.
func read(answer *http.Response) (content []byte, failed Result) {
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusSwitchingProtocols { // its body is the connection, without a deadline
		return nil, Result{Status: answer.StatusCode}.is(Unavailable, "an answer that switches protocols", "")
	}
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return nil, broken(answer.StatusCode, err)
	}
	if len(content) > maxAnswer {
		return nil, Result{Status: answer.StatusCode}.is(Unavailable, "an answer over 64 KiB", "")
	}
	return content, Result{}
}

// get asks for metadata. No redirect is followed.
func (e *Endpoint) get(ctx context.Context, from *url.URL) (content []byte, failed Result) {
	request := (&http.Request{
		Method: http.MethodGet,
		URL:    from,
		Host:   from.Host,
		Header: http.Header{"Accept": {"application/json"}, "User-Agent": {userAgent}},
	}).WithContext(ctx)
	answer, err := e.transport.RoundTrip(request)
	if err != nil {
		return nil, broken(0, err)
	}
	content, failed = read(answer)
	failed.Status = answer.StatusCode
	e.state.gate.holdBack(holdUntil(answer, time.Now()))
	return content, failed
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

func formOf(g Grant) string {
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

// tokenRequest is a request with the body that it began with.
type tokenRequest struct {
	*http.Request
	body *formBody
}

func (e *Endpoint) request(ctx context.Context, where *url.URL, g Grant) (tokenRequest, error) {
	proof, err := e.client.prove(where, e.proof.Load())
	if err != nil {
		return tokenRequest{}, err
	}
	e.proof.Store(proof)
	header := proof.header
	if g.Header != nil {
		header = maps.Clone(header)
		maps.Copy(header, g.Header)
	}
	form := formOf(g) + proof.ending
	body := &formBody{Reader: strings.NewReader(form)}
	r := tokenPost.WithContext(ctx)
	r.URL, r.Host, r.Header = where, where.Host, header
	r.Body, r.ContentLength = body, int64(len(form))
	// For the transport's own second try, over HTTP/1 when a connection had died idle and no byte went out.
	// HTTP/2 also tries again what a server has received and disclaims.
	r.GetBody = func() (io.ReadCloser, error) {
		if body.read.Load() && !e.http1.Load() {
			return nil, errSent
		}
		return io.NopCloser(strings.NewReader(form)), nil
	}
	return tokenRequest{r, body}, nil
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
