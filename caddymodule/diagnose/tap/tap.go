// Package tap watches what goes to an authorization server.
package tap

import (
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// Tap counts what is sent to the authorization server and keeps what its last answer to a POST came with.
type Tap struct {
	Next http.RoundTripper

	// Where the last POST went. Answer, of which the body is left out, is what came back, and Sent and Got are when; it is
	// nil where nothing came. They are to be read when nothing is under way.
	Where     *url.URL
	Answer    *http.Response
	Sent, Got time.Time

	mu      sync.Mutex
	posts   int
	connect error
}

// RoundTrip has Next make the request.
func (t *Tap) RoundTrip(r *http.Request) (*http.Response, error) {
	post := r.Method == http.MethodPost
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		// The transport may send a request again by itself, which only it tells.
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if post && info.Err == nil {
				t.note(func() { t.posts++ })
			}
		},
		// The error of Caddy's transport does not tell what is behind it.
		ConnectDone: func(_, _ string, err error) { t.note(func() { t.connect = err }) },
	})
	sent := time.Now()
	answer, err := t.Next.RoundTrip(r.WithContext(ctx))
	t.note(func() {
		if post {
			t.Where = r.URL
		}
		if post && err == nil {
			t.Sent, t.Got, t.Answer = sent, time.Now(), &http.Response{Header: answer.Header, TLS: answer.TLS}
		}
	})
	return answer, err
}

func (t *Tap) note(what func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	what()
}

// Cause is why there is no connection, blank if that is not known.
func (t *Tap) Cause() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errno syscall.Errno
	if errors.As(t.connect, &errno) {
		return "no connection: " + errno.Error()
	}
	return ""
}

// Count returns how many POSTs went out since it was last asked.
func (t *Tap) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.posts = 0 }()
	return t.posts
}
