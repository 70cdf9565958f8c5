//go:build nobadger && browser

// Package page has the page of the admin endpoint looked at in a browser.
package page

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/history"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
)

const asCaddy = "SMAPI_TEST_AS_CADDY"

var pictures = flag.String("pictures", "", "a `folder` for pictures of the page in each state")

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	os.Exit(m.Run())
}

// look is what a browser has seen, by width and colors.
type look struct {
	Width       int
	ColorScheme string
	Errors      []string
	Requests    []string
	State       string
	Title       string
	Lost        string
	Findings    []string
	Links       []string
	Text        string
	Images      int
	Wider       bool
	Keyboard    string
	Recent      string
	Axe         struct {
		Violations []string
		Passes     int
	}
}

// browse looks at an address at the widths of a desk and of a phone, light and dark.
func browse(t *testing.T, address, state string) []look {
	t.Helper()
	folder := *pictures
	if folder != "" {
		folder, _ = filepath.Abs(folder)
	}
	cmd := exec.Command("node", "page.mjs", address, state, folder)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	var looks []look
	if err != nil || json.Unmarshal(out, &looks) != nil || len(looks) != 4 {
		t.Fatalf("%v: %s (its packages are installed by: npm ci --prefix integration/page)\n%s", err, out, &said)
	}
	for _, l := range looks {
		name := fmt.Sprintf("%d, %s", l.Width, l.ColorScheme)
		if len(l.Errors) != 0 || l.Images != 0 {
			t.Errorf("%s: %d images or scripts, and errors: %v", name, l.Images, l.Errors)
		}
		if len(l.Axe.Violations) != 0 || l.Axe.Passes < 15 {
			t.Errorf("%s: axe, after %d that pass: %s", name, l.Axe.Passes, strings.Join(l.Axe.Violations, "\n"))
		}
		if l.Wider {
			t.Errorf("%s: the page is wider than its window", name)
		}
		if len(l.Links) != len(l.Findings) {
			t.Errorf("%s: %d links for %d findings", name, len(l.Links), len(l.Findings))
		}
		for _, r := range l.Requests {
			if !strings.HasPrefix(r, address[:strings.Index(address[8:], "/")+8]) && !strings.HasPrefix(r, "data:") {
				t.Errorf("%s: it loads %s", name, r)
			}
		}
	}
	return looks
}

// served is the page of these values.
func served(t *testing.T, value func() *dashboard.Value) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !dashboard.Serve(w, r, value) {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + dashboard.Path
}

var now = time.Date(2026, 5, 4, 18, 42, 11, 0, time.UTC)

// idle is a migration that has gone well for a day.
func idle() *dashboard.Endpoint {
	end, client := now.Add(61*24*time.Hour), now.Add(203*24*time.Hour)
	e := &dashboard.Endpoint{
		EndpointStatus: dashboard.EndpointStatus{
			Endpoint: "https://auth.example.com/oauth2/token", ClientID: "sonos-upgrade", Since: now.Add(-37 * 24 * time.Hour), Breaker: "closed", InFlight: 2,
			Exchanges:  &history.Times{Exchanges: 255, Median: .2134, Most: .811, Longest: 2.04},
			SinceStart: map[flow.Outcome]uint64{}, Last5Minutes: map[flow.Outcome]uint64{},
			LoginFuse:   dashboard.FuseStatus{Percent: 50, FuseTries: dashboard.FuseTries{Tried: 212, Rejected: 9, OAuthError: "invalid_grant"}},
			RefreshFuse: dashboard.FuseStatus{Percent: 50, FuseTries: dashboard.FuseTries{Tried: 64}},
			Secrets: []secret.Status{
				{Field: "client_secret", ReadSecondsAgo: 3 * 3600}, {Field: "transport", ReadSecondsAgo: 5 * 86400, Expires: &client},
			},
		},
		Day: history.Series{StepSeconds: 600, Counts: map[flow.Outcome][]uint32{}}, Faults: []history.Fault{},
		Accounts:              history.Estimate{Upgraded: 18_204, SignedIn: 731, Refused: 402},
		ServerCertificateEnds: &end,
	}
	e.Day.Begins = now.Truncate(10 * time.Minute).Add(-143 * 10 * time.Minute)
	for i := range 144 {
		at := e.Day.Begins.Add(time.Duration(i) * 10 * time.Minute)
		hour := float64(at.Hour()) + float64(at.Minute())/60
		from := func(peak float64) float64 { return math.Mod(hour-peak+36, 24) - 12 }
		busy := math.Exp(-math.Pow(from(19), 2)/18) + .6*math.Exp(-math.Pow(from(8), 2)/6) + .07
		ripple := 1 + .12*math.Sin(float64(i*i%97)) + .05*math.Cos(float64(i*7%31))
		put(e, i, flow.Upgraded, 190*busy*ripple)
		put(e, i, flow.Refreshed, 120*busy*ripple+float64(i)/3)
		put(e, i, flow.Expired, 70*busy*ripple)
		put(e, i, flow.LinkPending, 22*busy)
		put(e, i, flow.Linked, 6*busy)
		put(e, i, flow.Reauthorized, 4*busy)
		put(e, i, flow.Rejected, 9*busy*ripple)
		put(e, i, flow.Unavailable, max(0, 2*busy-1))
		put(e, i, flow.Forwarded, 41_000*busy)
	}
	for i := range 30 {
		step := map[flow.Outcome]uint64{flow.Upgraded: uint64(3 + i*i%5), flow.Refreshed: uint64(2 + i*3%4), flow.Expired: uint64(1 + i%3)}
		e.History = append(e.History, step)
		for o, n := range step {
			e.Last5Minutes[o] += n
		}
	}
	e.Faults = append(e.Faults,
		history.Fault{At: now.Add(-4 * time.Minute), Reference: "K7QMX2LD", Method: "getDeviceAuthToken", Outcome: flow.Rejected},
		history.Fault{At: now.Add(-51 * time.Minute), Reference: "R3FJ6TWA", Method: "getDeviceAuthToken", Outcome: flow.Unavailable, Cause: "the token endpoint answered with status 503"},
		history.Fault{At: now.Add(-2 * time.Hour), Reference: "ZB5N4VQE", Method: "refreshAuthToken", Outcome: flow.Rejected},
	)
	return e
}

func put(e *dashboard.Endpoint, i int, o flow.Outcome, n float64) {
	if e.Day.Counts[o] == nil {
		e.Day.Counts[o] = make([]uint32, 144)
	}
	e.Day.Counts[o][i] = uint32(n)
	e.SinceStart[o] += uint64(n)
}

func of(e *dashboard.Endpoint) *dashboard.Value {
	records := int64(18_611)
	e.Vaults = []string{"/etc/smapi/keys"}
	return dashboard.New(now, []dashboard.Endpoint{*e}, []dashboard.VaultStatus{
		{KeyFile: "/etc/smapi/keys", Records: &records, Came: &dashboard.VaultCame{Upgraded: 17_790, SignedIn: 712, TakenIn: 109}},
		{KeyFile: "/etc/smapi/another", Records: &records, Came: &dashboard.VaultCame{Upgraded: 99_999}},
	})
}

// estimated has no vault.
func estimated() *dashboard.Value {
	e := idle()
	e.AnybodyIsUpgraded = true
	return dashboard.New(now, []dashboard.Endpoint{*e}, nil)
}

func TestEveryStateIsToldAtADeskAndOnAPhone(t *testing.T) {
	storm, breaker, fuse := idle(), idle(), idle()
	storm.InFlight, storm.Waiting, storm.OldestWaitingSeconds = 16, 2841, 11.4
	for i := 138; i < 144; i++ {
		put(storm, i, flow.Upgraded, 2400)
		put(storm, i, flow.Overloaded, float64(i-137)*160)
	}
	storm.Last5Minutes[flow.Overloaded] = 412

	breaker.Breaker, breaker.HoldSeconds, breaker.InFlight = "open", 42.5, 0
	for i := 140; i < 144; i++ {
		put(breaker, i, flow.Upgraded, 0)
		put(breaker, i, flow.Unavailable, 280)
	}
	breaker.Faults = append([]history.Fault{{At: now.Add(-2 * time.Second), Reference: "5WQZ7XJ2", Method: "getDeviceAuthToken", Outcome: flow.Unavailable,
		Cause: "not asked, because the token endpoint has been failing"}}, breaker.Faults...)

	fuse.LoginFuse = dashboard.FuseStatus{Blown: true, Percent: 50, FuseTries: dashboard.FuseTries{Tried: 12, Rejected: 12, OAuthError: "invalid_grant"},
		Blew: &dashboard.FuseTries{Tried: 412, Rejected: 260, OAuthError: "invalid_grant"}}
	fuse.Accounts.Doubted = 290
	for i := 141; i < 144; i++ {
		put(fuse, i, flow.Upgraded, 4)
		put(fuse, i, flow.Doubted, 230)
	}
	soon := now.Add(5 * 24 * time.Hour)
	fuse.Secrets[0].Stale, fuse.Secrets[1].Expires = true, &soon

	for state, test := range map[string]struct {
		value    *dashboard.Value
		says     string
		findings []string
		text     []string
	}{
		"idle":      {of(idle()), "All is well", nil, []string{"\n17,790\n", "accounts upgraded", "about 18,204 and 731 now", "109 more that were upgraded before", "median 210 ms, 95 % within 810 ms, longest 2 s", "\nforwarded\t", "nobody waits", "closed", "K7QMX2LD", "ends in 61 days"}},
		"estimated": {estimated(), "All is well", nil, []string{"18,204", "within about 2 percent", "anybody can make up homes"}},
		"storm": {of(storm), "2 things need a look", []string{"2,841 calls wait", "412 calls of the last 5 minutes had no place"},
			[]string{"2,841 waiting", "the oldest for 11 s"}},
		"breaker": {of(breaker), "2 things need a look", []string{"is left alone", "asked to wait, for 43 s"}, []string{"open", "for 43 s more", "5WQZ7XJ2"}},
		"fuse": {of(fuse), "3 things need a look", []string{"260 of 412 accounts", "The file of client_secret", "client certificate ends on 9 May 2026"},
			[]string{"blown for upgrades", "since then 12 of 12 accounts refused"}},
		"none": {dashboard.New(now, []dashboard.Endpoint{}, nil), "One thing needs a look", []string{"has no smapi_upgrade"}, nil},
	} {
		t.Run(state, func(t *testing.T) {
			for _, l := range browse(t, served(t, func() *dashboard.Value { return test.value }), state) {
				if l.State != test.says || len(l.Findings) != len(test.findings) {
					t.Errorf("%d: it says %q and %q", l.Width, l.State, l.Findings)
				}
				for _, text := range test.findings {
					if !slices.ContainsFunc(l.Findings, func(f string) bool { return strings.Contains(f, text) }) {
						t.Errorf("%d: no finding has %q: %q", l.Width, text, l.Findings)
					}
				}
				for _, text := range test.text {
					if !strings.Contains(l.Text, text) {
						t.Errorf("%d: %q is missing in\n%s", l.Width, text, l.Text)
					}
				}
				if state != "none" && (!strings.HasPrefix(l.Keyboard, "19:00: ") || !strings.Contains(l.Keyboard, "served") || !strings.Contains(l.Recent, "each 10 seconds")) {
					t.Errorf("%d: by the keyboard it says %q, and %q", l.Width, l.Keyboard, l.Recent)
				}
			}
		})
	}
}

func TestAPageThatHasLostItsCaddySaysSo(t *testing.T) {
	var gone atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if data := strings.HasSuffix(r.URL.Path, "/page.json"); data && gone.Swap(true) { // but once in each look
			panic(http.ErrAbortHandler)
		} else if !data {
			gone.Store(false)
		}
		dashboard.Serve(w, r, func() *dashboard.Value { return of(idle()) })
	}))
	defer server.Close()
	for _, l := range browse(t, server.URL+dashboard.Path, "gone") {
		if l.State != "Caddy is gone" || !strings.Contains(l.Lost, "does not answer") || !strings.HasPrefix(l.Title, "(gone)") || !strings.Contains(l.Text, "18,204") {
			t.Errorf("%d: %q, %q, %q", l.Width, l.State, l.Title, l.Lost)
		}
	}
}

func TestTextOfServersStaysText(t *testing.T) {
	const evil = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`
	e := idle()
	e.Endpoint, e.ClientID = "https://auth.example.com/"+evil, evil
	e.LoginFuse = dashboard.FuseStatus{Blown: true, Blew: &dashboard.FuseTries{Tried: 20, Rejected: 20, OAuthError: evil}}
	e.Faults[0].Cause, e.Faults[0].Fix, e.Faults[0].Method, e.Faults[0].Reference = evil, evil, evil, evil
	e.Secrets[0].Field = evil
	for _, l := range browse(t, served(t, func() *dashboard.Value { return of(e) }), "evil") {
		if !strings.Contains(l.Text, evil) || strings.Contains(l.Title, "taken") {
			t.Errorf("%d: %q\n%s", l.Width, l.Title, l.Text)
		}
	}
}

// A real Caddy, whose admin endpoint is a socket.
func TestStatusOpenShowsThePageOfASocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(fmt.Sprintf("{\nadmin unix/%s|0600\npersist_config off\nauto_https off\nstorage file_system %s\n}\nhttp://127.0.0.1:0 {\nsmapi_upgrade http://127.0.0.1:1/token {\nclient_id the-id\nclient_auth none\n}\nrespond ok\n}\n", socket, dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	caddy := func(args ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), asCaddy+"=1", "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	}
	running := caddy("run", "--config", config)
	var log strings.Builder
	running.Stderr = &log
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- running.Wait() }()
	t.Cleanup(func() {
		_ = running.Process.Signal(os.Interrupt)
		<-ended
	})
	for caddy("smapi-upgrade", "ready", "--config", config).Run() != nil {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Caddy has ended: %v\n%s", err, &log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	open := caddy("smapi-upgrade", "status", "--open", "--config", config)
	out, err := open.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := open.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, address, ok := strings.Cut(line, "The page is at ")
	address, _, _ = strings.Cut(address, " ")
	if !ok || err != nil {
		t.Fatalf("it says %q", line)
	}
	for _, l := range browse(t, address, "open") {
		if l.State != "All is well" || !strings.Contains(l.Text, "http://127.0.0.1:1/token") || !strings.Contains(l.Text, "accounts upgraded") {
			t.Errorf("%d: %q\n%s", l.Width, l.State, l.Text)
		}
	}
	if err := open.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := open.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if _, err := net.Dial("tcp", strings.Split(address, "/")[2]); err == nil {
		t.Error("its listener has outlived it")
	}
}
