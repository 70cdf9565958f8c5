package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// What moves the cursor, rings, sets a title, or turns letters round: C0, DEL, C1 in UTF-8 and as a byte, bidirectional
// and other format characters, line separators.
var controls = []string{
	"\x1b[2J", "\r", "\a", "\b", "\x00", "\t", "\x7f", "\u009b31m", "\u0085", "\x9b31m",
	"\u202e", "\u2066", "\u2069", "\u200f", "\u061c", "\u200b", "\u2028", "\ufeff", "\U000e0041",
}

func TestNoControlCharacterOfAServerIsPrinted(t *testing.T) {
	for _, control := range controls {
		text := "before" + control + "after"
		for name, print := range map[string]func(*page.Page){
			"text":    func(p *page.Page) { fmt.Fprintln(p, text) },
			"wrapped": func(p *page.Page) { p.Wrapped("  ", text+" ", text+" "+text) },
			"colored": func(p *page.Page) { p.Colored(page.Red, text) },
			"report": func(p *page.Page) {
				page.Report(p, &diagnose.Report{State: diagnose.Fix, Handlers: []*diagnose.Checked{{
					HandlerFacts: diagnose.HandlerFacts{Endpoint: text, ClientID: text, At: text, Matches: []string{text}},
					Checks:       []diagnose.Finding{{Check: "TLS", State: diagnose.Fix, Says: text, Fix: text}},
				}}})
			},
			"summary": func(p *page.Page) {
				page.Summary(p, &player.Summary{Calls: 1, References: []string{text}, Outcomes: map[player.Outcome]*player.Count{
					player.AnotherFault: {Calls: 1, Reasons: map[string]int{text: 1}},
				}})
			},
		} {
			var out strings.Builder
			print(&page.Page{Out: &out, Width: 80})
			got := strings.ReplaceAll(out.String(), string(page.Red), "")
			if strings.Contains(got, control) || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\u009b\r\a") || !strings.Contains(got, "before") || !strings.Contains(got, "after") {
				t.Errorf("%s with %q: %q", name, control, got)
			}
		}
		var out bytes.Buffer
		if err := (&page.Page{Out: &out}).Show(map[string]string{"reason": text}, true, nil); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); control != "\t" && strings.Contains(got, control) {
			t.Errorf("JSON with %q: %q", control, got)
		}
		var read map[string]string
		if err := json.Unmarshal(out.Bytes(), &read); err != nil || read["reason"] != strings.ToValidUTF8(text, "\ufffd") {
			t.Errorf("JSON with %q says %q, %v", control, read["reason"], err)
		}
	}
}

func TestNoControlCharacterOfTheAdminAPIIsPrinted(t *testing.T) {
	const evil = "\x1b]0;title\a\u202e"
	quoted, _ := json.Marshal(evil)
	status := fmt.Sprintf(`{"endpoints":[{"endpoint":%s,"client_id":%[1]s,"breaker":"closed","login_fuse":{"blown":true,"tried":20,"rejected":19,"oauth_error":%[1]s},"secrets":[{"field":%[1]s}]}]}`, quoted)
	for _, test := range []struct {
		status int
		body   string
		args   []string
		code   int
	}{
		{200, status, nil, 0},
		{200, strings.ReplaceAll(status, `\u202e`, "\u202e"), []string{"--json"}, 0},
		{200, evil, nil, 3},
		{500, `{"error":` + string(quoted) + `}`, nil, 3},
		{500, evil, nil, 3},
	} {
		got := here(t, nil, append([]string{"status", "--address", admin(t, test.status, test.body)}, test.args...)...)
		if got.code != test.code || strings.ContainsAny(got.stdout+got.stderr, "\x1b\a\u202e") {
			t.Errorf("%d %s: %+v", test.status, test.body, got)
		}
	}
}

func TestTextIsWrappedWhereItHasBlanksAndHangsBelowItsBeginning(t *testing.T) {
	for width, want := range map[int]string{
		80: "  ! one two three four\n",
		16: "  ! one two\n    three four\n",
		8:  "  ! one\n    two\n    three\n    four\n",
		1:  "  ! one\n    two\n    three\n    four\n",
	} {
		var out strings.Builder
		(&page.Page{Out: &out, Width: width}).Wrapped("  ", "! ", " one  two\nthree four")
		if out.String() != want {
			t.Errorf("in %d columns: %q", width, out.String())
		}
	}
}

func TestColorsAreForTerminalsAlone(t *testing.T) {
	report := &diagnose.Report{State: diagnose.Problem, Handlers: []*diagnose.Checked{{
		HandlerFacts: diagnose.HandlerFacts{Endpoint: "https://auth.example.com/token", At: "apps/http/servers/srv0"},
		Checks: []diagnose.Finding{
			{Check: "configuration", State: diagnose.Well, Says: "loads"},
			{Check: "secrets", State: diagnose.Fix, Says: "client_secret is in the configuration itself, which the admin API shows", Fix: "use {env.NAME}"},
			{Check: "right credentials", State: diagnose.Problem, Says: "rejected"},
		},
	}}}
	var plain, colored strings.Builder
	page.Report(&page.Page{Out: &plain, Width: 60}, report)
	page.Report(&page.Page{Out: &colored, Width: 60, InColor: true}, report)
	recorded(t, plain.String(), "report-60-columns")
	for _, c := range []struct {
		page.Color
		state diagnose.State
	}{{page.Green, diagnose.Well}, {page.Yellow, diagnose.Fix}, {page.Red, diagnose.Problem}} {
		if marked := string(c.Color) + string(c.state) + "\x1b[0m"; strings.Count(colored.String(), marked) != 1 {
			t.Errorf("no %q in %q", marked, colored.String())
		}
	}
	if got := strings.NewReplacer(string(page.Green), "", string(page.Yellow), "", string(page.Red), "", "\x1b[0m", "").Replace(colored.String()); got != plain.String() {
		t.Errorf("in color it is %q", got)
	}
}

func TestABlownFuseIsRed(t *testing.T) {
	var status dashboard.Status
	if err := json.Unmarshal(caddytest.File(t, "commands", "status.json"), &status); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	page.Status(&page.Page{Out: &out, Width: 80, InColor: true}, &status)
	marked := regexp.MustCompile("(?m)^\x1b\\[31m(.*)\x1b\\[0m$").FindAllStringSubmatch(out.String(), -1)
	if len(marked) == 0 || !strings.HasPrefix(marked[0][1], "  fuse           BLOWN for upgrades") || strings.Count(out.String(), string(page.Red)) != len(marked) {
		t.Errorf("%q", out.String())
	}
}

// summed is a summary with every outcome there is.
func summed() *player.Summary {
	counts := map[player.Outcome]*player.Count{}
	for i, o := range player.Rows() {
		counts[o.Outcome] = &player.Count{Calls: i + 1, Share: float64(i+1) / 1_000_000}
	}
	counts[player.Upgraded] = &player.Count{Calls: 989_000, Share: 0.989}
	counts[player.AnotherFault].Reasons = map[string]int{"a faultcode that Sonos does not document": 1}
	counts[player.NotAccepted].Reasons = map[string]int{"an element that the schema does not have in getDeviceAuthTokenResult": 2}
	counts[player.NotSMAPI].Reasons = map[string]int{}
	for status := 510; status < 520; status++ {
		counts[player.NotSMAPI].Reasons[fmt.Sprint("status ", status)] = status
	}
	return &player.Summary{
		Calls: 1_000_000, Accounts: 1_200_000, Households: 25_000, Seconds: 12345, CallsPerSecond: 81, Outcomes: counts,
		Again: &player.Again{Lost: 10_000, Answered: 9_999, Upgraded: 9_998}, Latency: &player.Latency{P50: 0.0005, P90: 0.012, P99: 1.2, Max: 19},
		References: []string{"ABCDEFGH", "IJKLMNOP", "QRSTUVWX"}, Ended: true, GivenUp: 16,
	}
}

func TestASummarySaysAllThatHappened(t *testing.T) {
	for _, width := range []int{80, 60} {
		var out strings.Builder
		page.Summary(&page.Page{Out: &out, Width: width}, summed())
		recorded(t, out.String(), fmt.Sprintf("summary-%d-columns", width))
	}
}
