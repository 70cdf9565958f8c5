// Package tokentest stands in for token endpoints in tests.
package tokentest

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Stub is a transport without a network, for tests that step the clock. It answers a form.
type Stub func(form url.Values) (status int, header http.Header, body string)

// RoundTrip answers a request, unless its context has ended meanwhile.
func (s Stub) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, err
	}
	status, header, body := s(form)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), ProtoMajor: 1}, nil
}
