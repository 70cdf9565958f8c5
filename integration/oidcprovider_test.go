//go:build nobadger

package integration

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"
)

// oidcProvider is npm's oidc-provider, a process of its own behind a server that counts.
type oidcProvider struct {
	*server
	process string // its own address
}

// runOIDCProvider runs one whose access tokens and device codes have these lives, in whole seconds.
func runOIDCProvider(t testing.TB, life, codeLife time.Duration) *oidcProvider {
	t.Helper()
	p := new(oidcProvider)
	p.server = serve(t, "/token", func(address string) http.Handler {
		p.process = startNode(t, nil, "oidcprovider.mjs", address, fmt.Sprint(life.Seconds()), fmt.Sprint(codeLife.Seconds()), clientID, clientSecret)
		to, err := url.Parse(p.process)
		if err != nil {
			t.Fatal(err)
		}
		return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		}}
	})
	p.server.works = func(t testing.TB, accessToken string) bool {
		return p.own(t, "/works?token="+url.QueryEscape(accessToken)) == http.StatusNoContent
	}
	return p
}

// own asks for what the process has for tests.
func (p *oidcProvider) own(t testing.TB, path string) (status int) {
	t.Helper()
	response, err := http.Get(p.process + path)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// listener types a code in, and allows or denies.
func (p *oidcProvider) listener(t testing.TB, userCode string, allows bool) {
	t.Helper()
	if status := p.own(t, fmt.Sprintf("/listener?user_code=%s&allows=%v", url.QueryEscape(userCode), allows)); status != http.StatusNoContent {
		t.Fatalf("the server does not know the code %q: %d", userCode, status)
	}
}
