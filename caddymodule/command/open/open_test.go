package open

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"testing"
)

// opened is a Server that runs, the client of the first browser, and the paths that the admin endpoint was asked for.
type opened struct {
	url, token string
	mu         sync.Mutex
	paths      []string
}

func start(t *testing.T) *opened {
	t.Helper()
	o := new(opened)
	s := New("/smapi_upgrade/", func(_ context.Context, path string) (*http.Response, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.paths = append(o.paths, path)
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/html"}, "Access-Control-Allow-Origin": {"*"}}, Body: io.NopCloser(strings.NewReader("the page"))}, nil
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		if stop(); <-done != nil {
			t.Error("it does not end in order")
		}
	})
	o.url, o.token = "http://"+listener.Addr().String(), s.URL(listener)
	return o
}

func browser(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

func do(t *testing.T, c *http.Client, method, url, host string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("other sites may read it")
	}
	return response.StatusCode, string(text)
}

func TestTheAddressIsOfTheFirstBrowserAlone(t *testing.T) {
	o := start(t)
	first, second := browser(t), browser(t)
	if status, _ := do(t, second, "GET", o.url+"/smapi_upgrade/", ""); status != http.StatusForbidden {
		t.Errorf("without the token the status is %d", status)
	}
	for range 2 {
		if status, body := do(t, first, "GET", o.token, ""); status != http.StatusOK || body != "the page" {
			t.Fatalf("%d: %s", status, body)
		}
	}
	if status, _ := do(t, second, "GET", o.token, ""); status != http.StatusForbidden {
		t.Errorf("another browser gets %d", status)
	}
}

// A port may be forwarded, and no other name is this machine's own.
func TestTheAddressIsServedUnderNoOtherName(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:9180": true, "localhost:80": true, "LOCALHOST": true, "127.0.0.1": true,
		"": false, "evil.example.com": false, "127.0.0.1.example.com:80": false, "localhost.example.com": false, "localhost:80:80": false,
	} {
		if loopback(host) != want {
			t.Errorf("%q is served: %v", host, !want)
		}
	}
}

func TestNothingButThePageIsLetThrough(t *testing.T) {
	o := start(t)
	c := browser(t)
	do(t, c, "GET", o.token, "")
	for _, test := range []struct {
		method, path, host string
		status             int
	}{
		{"GET", "/smapi_upgrade/page.js", "", 200}, {"HEAD", "/smapi_upgrade/", "", 200},
		{"GET", "/config/", "", 404}, {"GET", "/", "", 404}, {"GET", "/smapi_upgrade/..%2fconfig/", "", 404}, {"GET", "/smapi_upgrade/%2e%2e/config/", "", 404},
		{"GET", "/smapi_upgrade/..;/config", "", 404}, {"POST", "/load", "", 405}, {"POST", "/smapi_upgrade/", "", 405},
		{"GET", "/smapi_upgrade/", "evil.example.com", 403}, {"GET", "/smapi_upgrade/", "127.0.0.1.evil.example.com:80", 403},
	} {
		if status, _ := do(t, c, test.method, o.url+test.path, test.host); status != test.status {
			t.Errorf("%s %s of %q: %d, want %d", test.method, test.path, test.host, status, test.status)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, path := range o.paths {
		if !strings.HasPrefix(path, "/smapi_upgrade/") || strings.Contains(path, "..") {
			t.Errorf("the admin endpoint was asked for %s", path)
		}
	}
}
