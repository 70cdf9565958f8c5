//go:build unix

package caddymodule_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// documentedSite is the Caddyfile of a document that has this text.
func documentedSite(t *testing.T, document, text string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", document))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(string(content), -1) {
		if strings.Contains(block[1], text) {
			return block[1]
		}
	}
	t.Fatalf("%s has no Caddyfile with %q", document, text)
	return ""
}

// asked runs a command of Caddy, as the documents print it.
func asked(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
	content, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(content), cmd.ProcessState.ExitCode()
}

// The example's admin endpoint and the handbook's scrape site, as printed but for their places.
func TestTheAdminEndpointIsASocketOfCaddysOwnAndTheDocumentedSiteShowsTwoPagesOfIt(t *testing.T) {
	dir, err := os.MkdirTemp("", "smapi") // whose name has to be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "admin.sock")
	public, scrape := loopback.FreeAddress(), loopback.FreeAddress()
	caddytest.Write(t, filepath.Join(dir, "secret"), "secret")
	for name, value := range map[string]string{
		"SMAPI_ADMIN_SOCKET": socket, "SMAPI_SITE": "http://" + public, "SMAPI_LEGACY": strings.TrimPrefix(caddytest.OldService(t).URL, "http://"),
		"SMAPI_TOKEN_ENDPOINT": caddytest.Serve(t, caddytest.IssuesTokens).URL + "/token", "SMAPI_CLIENT_SECRET_FILE": filepath.Join(dir, "secret"),
	} {
		t.Setenv(name, value)
	}
	example, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "Caddyfile")
	global := "{\n\tpersist_config off\n\tlog {\n\t\toutput discard\n\t}\n\tstorage file_system " + dir + "\n"
	text := strings.Replace(string(example), "{\n", global, 1) + strings.Replace(documentedSite(t, "docs/handbook.md", "metrics /metrics"), ":9180", scrape, 1)
	caddytest.Write(t, config, text)
	caddytest.Load(t, text)
	t.Cleanup(func() { _ = caddy.Stop() })

	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	byCurl := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, DisableKeepAlives: true}}
	if got, err := byCurl.Get("http://localhost/smapi_upgrade/status"); err != nil || got.StatusCode != http.StatusOK {
		t.Errorf("the status by curl: %v, %v", got, err)
	}
	for _, command := range [][]string{
		{"smapi-upgrade", "status", "--config", config, "--adapter", "caddyfile"},
		{"smapi-upgrade", "ready", "--config", config, "--adapter", "caddyfile"},
		{"reload", "--config", config, "--adapter", "caddyfile"},
	} {
		if out, code := asked(t, command...); code != 0 {
			t.Errorf("%v ends with %d: %s", command, code, out)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections() // which the reload has ended
	scraped := func(path string) caddytest.Answer { return (&caddytest.Site{URL: "http://" + scrape}).Get(t, path) }
	if got := scraped("/metrics"); got.Status != http.StatusOK || !strings.Contains(got.Body, "caddy_smapi_upgrade_requests_total") {
		t.Errorf("/metrics: %d", got.Status)
	}
	if got := scraped("/smapi_upgrade/ready"); got.Status != http.StatusOK {
		t.Errorf("/smapi_upgrade/ready: %+v", got)
	}
	for _, path := range []string{"/", "/config/", "/smapi_upgrade/status", "/load", "/smapi_upgrade/ready/../../config/"} {
		if got := scraped(path); got.Status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
	if got := (&caddytest.Site{URL: "http://" + public}).Get(t, "/metrics"); strings.Contains(got.Body, "caddy_smapi_upgrade") {
		t.Error("the public site has the metrics")
	}

	caddytest.Load(t, fmt.Sprintf("{\n\tadmin unix/%s|0600\n\tpersist_config off\n}\nhttp://%s {\n\tbind 127.0.0.1\n\trespond ok\n}\n", socket, public))
	if out, code := asked(t, "smapi-upgrade", "ready", "--config", config, "--adapter", "caddyfile"); code != 1 || !strings.Contains(out, "no configuration with smapi_upgrade is running") {
		t.Errorf("without a handler it is ready: %d %s", code, out)
	}
}
