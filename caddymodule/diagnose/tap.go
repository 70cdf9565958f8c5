package diagnose

import (
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// tap counts what is sent to the authorization server and keeps what its last answer to a POST came with.
type tap struct {
	next http.RoundTripper

	mu        sync.Mutex
	posts     int
	sent, got time.Time
	answer    *http.Response // without its body
	where     *url.URL

	connect error
}

func (t *tap) RoundTrip(r *http.Request) (*http.Response, error) {
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
	answer, err := t.next.RoundTrip(r.WithContext(ctx))
	t.note(func() {
		if post {
			t.where = r.URL
		}
		if post && err == nil {
			t.sent, t.got, t.answer = sent, time.Now(), &http.Response{Header: answer.Header, TLS: answer.TLS}
		}
	})
	return answer, err
}

func (t *tap) note(what func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	what()
}

// cause is why there is no connection, blank if that is not known.
func (t *tap) cause() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errno syscall.Errno
	if errors.As(t.connect, &errno) {
		return "no connection: " + errno.Error()
	}
	return ""
}

// count returns how many POSTs went out since it was last asked.
func (t *tap) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.posts = 0 }()
	return t.posts
}
