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
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
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

	// MaxInFlight is how many exchanges are under way at once; the others wait in order of arrival, at most
	// 1000 for each of these.
	MaxInFlight int

	// Replay is for how long the same call gets the same tokens, RememberRejected for how long it gets the
	// same rejection. 0 is not at all.
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

	// Subject is whom the tokens are for beside that. The same call is one with the same subject.
	Subject string
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

	// Replayed tells that the token endpoint was not asked for this call, but for the same one before it.
	Replayed bool

	object object
}

// Field returns the text of a field of an Issued answer, blank where it is missing or no text. It is a
// secret.
func (r *Result) Field(name string) string { return r.object.text(name) }

// Endpoint exchanges at one token endpoint as one client. It is safe for concurrent use.
type Endpoint struct {
	url       string
	request   *http.Request // what all requests have in common
	form      string        // what every form ends with
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
	header := http.Header{
		"Accept":       {"application/json"},
		"Content-Type": {"application/x-www-form-urlencoded"},
		"User-Agent":   {"caddy-smapi-upgrade"},
	}
	e := &Endpoint{
		url:       c.URL.String(),
		request:   &http.Request{Method: http.MethodPost, URL: c.URL, Host: c.URL.Host, Header: header},
		places:    c.MaxInFlight,
		replay:    c.Replay,
		rejected:  c.RememberRejected,
		state:     c.State,
		transport: c.Transport,
		context:   c.Context,
	}
	var form strings.Builder
	switch c.ClientAuth {
	case Basic:
		header.Set("Authorization", basic(url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret)))
	case BasicRaw:
		header.Set("Authorization", basic(c.ClientID, c.ClientSecret))
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

// Exchange exchanges g, all in all before the deadline. The same call at the same time is one exchange, and
// for a while after it has the same answer. A caller whose ctx ends stops waiting; what is on its way is
// finished, because the login it costs may already have happened.
func (e *Endpoint) Exchange(ctx context.Context, deadline time.Time, g Grant) Result {
	form := e.formOf(g)
	call := digestOf(g.Subject, e.url, form)
	for {
		known, f, lead := e.state.board(call, deadline)
		switch {
		case known != nil:
			known.Waited, known.Took, known.Replayed = 0, 0, true
			return *known
		case lead:
			return e.lead(ctx, deadline, call, f, g, form)
		}
		r, landed := e.follow(ctx, deadline, call, f)
		if !landed || r.Class != Overloaded || time.Now().After(deadline) {
			return r
		}
		// Who led had less time left. Lead the next.
	}
}

// lead flies, and lands even if the transport panics, since others follow.
func (e *Endpoint) lead(ctx context.Context, deadline time.Time, call digest, f *flight, g Grant, form string) (r Result) {
	r = r.is(Unavailable, "the exchange broke off", "")
	defer func() { e.state.land(call, f, r, e.replay, e.rejected) }()
	r = e.fly(ctx, deadline, call, f, g, form)
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
func (e *Endpoint) fly(ctx context.Context, deadline time.Time, call digest, f *flight, g Grant, form string) (r Result) {
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
		deadline, ok := e.state.send(f)
		if !ok {
			return Result{}.is(Overloaded, causeGone, "")
		}
		return e.post(deadline, g.Type, form)
	})
	r.Waited, r.Took = sent.Sub(arrived), time.Since(sent)
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

// post sends the form once. Where nothing was sent, as when no connection could be made, it tries once more.
func (e *Endpoint) post(deadline time.Time, grantType, form string) Result {
	ctx, cancel := context.WithDeadline(e.context, deadline)
	defer cancel()
	quietenLog()

	body := &formBody{Reader: strings.NewReader(form)}
	answer, err := e.transport.RoundTrip(e.requestWith(ctx, body, form))
	if err != nil && !body.read.Load() && pause(ctx) {
		answer, err = e.transport.RoundTrip(e.requestWith(ctx, body, form))
	}
	if err != nil {
		return broken(0, err)
	}
	defer answer.Body.Close()
	e.http1.Store(answer.ProtoMajor == 1)
	if answer.StatusCode == http.StatusSwitchingProtocols { // its body is the connection, without a deadline
		return Result{Status: answer.StatusCode}.is(Unavailable, "an answer that switches protocols", "")
	}
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return broken(answer.StatusCode, err)
	}
	if len(content) > maxAnswer {
		return Result{Status: answer.StatusCode}.is(Unavailable, "an answer over 64 KiB", "")
	}
	o, readable := readJSON(content)
	result := classify(grantType, answer.StatusCode, o, readable)
	if result.Class == Unavailable {
		e.state.gate.holdBack(holdUntil(answer, time.Now()))
	}
	return result
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

func (e *Endpoint) formOf(g Grant) string {
	var form strings.Builder
	form.Grow(256)
	form.WriteString("grant_type=")
	form.WriteString(url.QueryEscape(g.Type))
	writeParams(&form, g.Params)
	form.WriteString(e.form)
	return form.String()
}

func (e *Endpoint) requestWith(ctx context.Context, body *formBody, form string) *http.Request {
	r := e.request.WithContext(ctx)
	r.ContentLength = int64(len(form))
	r.Body = body
	// For the transport's own second try, over HTTP/1 when a connection had died idle and no byte went out.
	// HTTP/2 also tries again what a server has received and disclaims.
	r.GetBody = func() (io.ReadCloser, error) {
		if body.read.Load() && !e.http1.Load() {
			return nil, errSent
		}
		return io.NopCloser(strings.NewReader(form)), nil
	}
	return r
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
