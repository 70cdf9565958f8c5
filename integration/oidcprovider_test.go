//go:build nobadger

package integration

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
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
		p.process = startOIDCProvider(t, address, life, codeLife)
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

func startOIDCProvider(t testing.TB, issuer string, life, codeLife time.Duration) (address string) {
	t.Helper()
	cmd := exec.Command("node", "server.mjs", issuer, fmt.Sprint(life.Seconds()), fmt.Sprint(codeLife.Seconds()), clientID, clientSecret)
	cmd.Dir = "oidcprovider"
	var said strings.Builder
	cmd.Stderr = &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (its packages are installed by: npm ci --prefix integration/oidcprovider)", err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		if t.Failed() {
			fmt.Fprintln(os.Stderr, said.String())
		}
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal("it did not start (its packages are installed by: npm ci --prefix integration/oidcprovider)")
	}
	return "http://127.0.0.1:" + strings.TrimSpace(port)
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
