package caddytest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest/memory"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// Directive is a handler with more options, in front of an old service.
func Directive(tokenEndpoint, upstream *Server, more ...string) string {
	return fmt.Sprintf(`smapi_upgrade %s/token {
		client_id the-id
		client_secret the-secret
		%s
	}
	reverse_proxy %s`, tokenEndpoint.URL, strings.Join(more, "\n\t\t"), upstream.URL)
}

// Site is a running Caddy with one site.
type Site struct {
	URL     string
	LogFile string
}

// Run runs a Caddy whose one site has these directives, until the test ends. It logs everything.
func Run(t testing.TB, directives string) *Site {
	t.Helper()
	return run(t, memory.New(t), directives)
}

// RunOn is Run with a storage in the files of a folder.
func RunOn(t testing.TB, folder, directives string) *Site {
	t.Helper()
	return run(t, "storage file_system "+folder, directives)
}

func run(t testing.TB, storage, directives string) *Site {
	t.Helper()
	address := loopback.FreeAddress()
	s := &Site{URL: "http://" + address, LogFile: filepath.Join(t.TempDir(), "log")}
	Load(t, fmt.Sprintf(`{
	admin off
	persist_config off
	%s
	log {
		output file %s
		level DEBUG
	}
}
http://%s {
	bind 127.0.0.1
	log
	%s
}`, storage, s.LogFile, address, directives))
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Load has the Caddy of this process run a Caddyfile.
func Load(t testing.TB, caddyfile string) {
	t.Helper()
	config, err := Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
}

// Reload is Load where a Caddy listens at these addresses, and returns when the old configuration does no more. Until then a
// connection can end in its socket, and be reset, as that of every Caddy.
func Reload(t testing.TB, caddyfile string, addresses ...string) {
	t.Helper()
	Load(t, caddyfile)
	for _, address := range addresses {
		Eventually(t, "the old configuration has let its socket go", func() bool {
			return caddy.ListenerUsage("tcp", address) == 1 && listeners(t, address) <= 1
		})
	}
}

// listeners is how many sockets listen at an address of IPv4, since Caddy counts one less a moment before it closes it. Where the
// system does not say as Linux does it is 0.
func listeners(t testing.TB, address string) (n int) {
	t.Helper()
	_, text, _ := net.SplitHostPort(address)
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	table, _ := os.ReadFile("/proc/net/tcp")
	const listens = "0A"
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[3] == listens && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			n++
		}
	}
	return n
}

// Adapt returns the JSON of a Caddyfile.
func Adapt(caddyfile string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// Log returns what the Caddy has logged so far.
func (s *Site) Log(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(s.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Request is a SMAPI call of a player.
func (s *Site) Request(t testing.TB, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL+"/smapi", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#getDeviceAuthToken"`)
	r.Header.Set("Accept-Encoding", "gzip")
	r.Header.Set("User-Agent", "Linux UPnP/1.0 Sonos/83.1-61240 (ZPS9)")
	return r
}

// Do sends a request.
func (s *Site) Do(t testing.TB, r *http.Request) Answer {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Read(response)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Post sends a call.
func (s *Site) Post(t testing.TB, body []byte) Answer {
	t.Helper()
	return s.Do(t, s.Request(t, body))
}

// Upgrade sends Sonos's own sample.
func (s *Site) Upgrade(t testing.TB) Answer {
	t.Helper()
	return s.Post(t, File(t, "requests", "upgrade.xml"))
}

// Call is a SMAPI call of a player, by its method.
func (s *Site) Call(t testing.TB, method, request string) Answer {
	t.Helper()
	r := s.Request(t, File(t, "requests", request))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+method+`"`)
	return s.Do(t, r)
}

// Browse is an everyday call of a home with this pair.
func (s *Site) Browse(t testing.TB, method, authToken, key string) Answer {
	t.Helper()
	return s.Do(t, s.Browsing(t, method, "<loginToken><token>"+authToken+"</token><key>"+key+"</key><householdId>Sonos_abc123_1</householdId></loginToken>", ""))
}

// Browsing is an everyday call with these credentials, and with this Authorization if it is not empty.
func (s *Site) Browsing(t testing.TB, method, account, authorization string) *http.Request {
	r := s.Request(t, fmt.Appendf(nil, Everyday, account, method))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+method+`"`)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

// UpgradeOf is the pair that the upgrade of an account of this kind gets.
func (s *Site) UpgradeOf(t testing.TB, kind string) (authToken, key string) {
	t.Helper()
	got := s.Post(t, File(t, "requests", UpgradeRequests[kind]))
	if authToken, key = TokensOf(got); !strings.HasPrefix(authToken, "smv1.") || !strings.HasPrefix(key, "smv1") {
		t.Fatalf("the upgrade got %+v", got)
	}
	return authToken, key
}

// Get sends a GET.
func (s *Site) Get(t testing.TB, path string) Answer {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true // a reload ends the admin API's connections
	return s.Do(t, r)
}

// WaitForLog waits until the log has a text.
func WaitForLog(t testing.TB, s *Site, text string) {
	t.Helper()
	Eventually(t, "the log has "+text, func() bool { return strings.Contains(s.Log(t), text) })
}

// Ask sends a call of a method.
func (s *Site) Ask(t testing.TB, method string, body []byte) Answer {
	t.Helper()
	r := s.Request(t, body)
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+method+`"`)
	return s.Do(t, r)
}

// Link asks where to sign in.
func (s *Site) Link(t testing.TB) (l DeviceLink) {
	t.Helper()
	got := s.Ask(t, "getAppLink", File(t, "requests", "sign-in-get-app-link.xml"))
	var parsed struct {
		Text string     `xml:"Body>getAppLinkResponse>getAppLinkResult>authorizeAccount>appUrlStringId"`
		Link DeviceLink `xml:"Body>getAppLinkResponse>getAppLinkResult>authorizeAccount>deviceLink"`
	}
	if err := xml.Unmarshal([]byte(got.Body), &parsed); err != nil || got.Status != http.StatusOK || parsed.Text != "SIGN_IN" {
		t.Fatalf("%v, %+v", err, got)
	}
	CheckHeader(t, got)
	return parsed.Link
}

// Poll asks whether the listener has signed in.
func (s *Site) Poll(t testing.TB, l DeviceLink) Answer {
	t.Helper()
	body := strings.Replace(string(File(t, "requests", "sign-in-poll.xml")), ">sealed<", ">"+l.DeviceID+"<", 1)
	return s.Ask(t, "getDeviceAuthToken", []byte(strings.Replace(body, "ABC-123", l.Code, 1)))
}

// Refreshes is the refreshAuthToken of a home that has this key.
func (s *Site) Refreshes(t testing.TB, key string) *http.Request {
	t.Helper()
	r := s.Request(t, []byte(strings.Replace(string(File(t, "requests", "refresh-auth-token.xml")), "old-key", key, 1)))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
	return r
}

// Refresh sends a refreshAuthToken with a pair.
func (s *Site) Refresh(t testing.TB, authToken, privateKey string) Answer {
	t.Helper()
	return s.Do(t, RefreshOf(t, s, authToken, privateKey))
}
