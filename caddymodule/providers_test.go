package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// provider is a section of docs/providers.md that has a configuration.
type provider struct {
	name, text string
	directive  string // smapi_upgrade and its options
	claims     []claim
}

// claim is a row of its table: an answer of the server, and what becomes of it.
type claim struct {
	happened, call string
	status         int
	header         http.Header
	body           string
	outcome, cause string
	known          string
}

const claimColumns = "| what happened | call | status | headers | body | outcome | cause | known |"

var (
	sectionTitle    = regexp.MustCompile(`(?m)^## .*$`)
	directiveInSite = regexp.MustCompile(`(?m)^\tsmapi_upgrade (?:.*\n)+?\t}$`)
	askedAt         = regexp.MustCompile(`(smapi_upgrade|issuer) https://\S+`)
	onErrorLine     = regexp.MustCompile(`(?m)^\t*on_error .*\n`)
	sized           = regexp.MustCompile(`\((\d+)\)`)
)

// providers reads the page. Every Caddyfile of it has a table, and every table a Caddyfile.
func providers(t *testing.T) (all []provider) {
	t.Helper()
	page, err := os.ReadFile("../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	starts := append(sectionTitle.FindAllIndex(page, -1), []int{len(page), 0})
	for i, start := range starts[:len(starts)-1] {
		p := provider{name: string(page[start[0]+3 : start[1]]), text: string(page[start[1]:starts[i+1][0]])}
		blocks, tables := strings.Count(p.text, "```caddyfile"), strings.Count(p.text, claimColumns)
		if blocks == 0 && tables == 0 {
			continue
		}
		p.directive = directiveInSite.FindString(p.text)
		if blocks != 1 || tables != 1 || p.directive == "" {
			t.Fatalf("%s has %d Caddyfiles and %d tables of answers, want one each", p.name, blocks, tables)
		}
		_, rows, _ := strings.Cut(p.text, claimColumns+"\n")
		for line := range strings.Lines(rows) {
			if !strings.HasPrefix(line, "|") {
				break
			}
			if !strings.HasPrefix(line, "|---") {
				p.claims = append(p.claims, readClaim(t, strings.TrimSpace(line)))
			}
		}
		if len(p.claims) == 0 {
			t.Fatalf("%s claims nothing", p.name)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("%d providers", len(all))
	}
	return all
}

func readClaim(t *testing.T, line string) claim {
	t.Helper()
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	if len(cells) != 8 {
		t.Fatalf("%d cells in %s", len(cells), line)
	}
	code := func(i int) string { return strings.Trim(cells[i], "`") }
	c := claim{
		happened: cells[0], call: cells[1], header: http.Header{}, outcome: code(5), cause: cells[6], known: cells[7],
		body: sized.ReplaceAllStringFunc(code(4), func(size string) string {
			n, _ := strconv.Atoi(strings.Trim(size, "()"))
			return strings.Repeat("x", n)
		}),
	}
	var err error
	if c.status, err = strconv.Atoi(cells[2]); err != nil {
		t.Fatalf("the status of %s: %v", line, err)
	}
	if name, value, ok := strings.Cut(code(3), ": "); ok {
		c.header.Set(name, value)
	} else if cells[3] != "" {
		t.Fatalf("the header of %s", line)
	}
	if !slices.Contains([]string{"rule", "ran", "source", "doc", "report", "unsure"}, c.known) {
		t.Fatalf("how is it known? %s", line)
	}
	return c
}

// answer says what the server says, and is its own issuer.
func (c *claim) answer(w http.ResponseWriter, r *http.Request) {
	if issuer, _, ok := strings.Cut(r.URL.Path, "/.well-known/"); ok {
		url := "http://" + r.Host + issuer
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q,"device_authorization_endpoint":%q}`, url, url+"/token", url+"/device")
		return
	}
	if c.call == "poll" && strings.HasSuffix(r.URL.Path, "/device") {
		caddytest.Says(http.StatusOK, deviceCode)(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	for name := range c.header {
		w.Header().Set(name, c.header.Get(name))
	}
	w.WriteHeader(c.status)
	_, _ = io.WriteString(w, c.body)
}

func (c *claim) request(t *testing.T) (method, file string) {
	t.Helper()
	switch c.call {
	case "link":
		return "getAppLink", "sign-in-get-app-link.xml"
	case "login":
		return "getDeviceAuthToken", "upgrade.xml"
	case "token":
		return "getDeviceAuthToken", "login-token.xml"
	case "refresh":
		return "refreshAuthToken", "refresh-auth-token.xml"
	}
	t.Fatalf("%s: what is the call %q?", c.happened, c.call)
	return "", ""
}

// What docs/providers.md says of an answer is what becomes of it, with the configuration that it gives. Each answer has a
// token endpoint of its own, so that none is remembered for another.
func TestWhatThePageOfProvidersSaysOfAnswersIsSo(t *testing.T) {
	t.Setenv("SMAPI_CLIENT_SECRET", "secret")
	var (
		asked      []claim
		names      []string
		directives strings.Builder
	)
	// ask adds an answer to the site, with its provider's configuration.
	ask := func(name, directive string, c claim) {
		path := "/" + strconv.Itoa(len(asked))
		asked, names = append(asked, c), append(names, name+": "+c.happened)
		fmt.Fprintf(&directives, "handle %s/* {\n%s\n}\n", path, askedAt.ReplaceAllString(directive, "$1 {$$ENDPOINT}"+path))
	}
	// A line that decides nothing is one that the page cannot give a reason for: without it an answer means something else.
	decides := map[int]string{}
	for _, p := range providers(t) {
		for _, c := range p.claims {
			ask(p.name, p.directive, c)
		}
		for _, line := range onErrorLine.FindAllString(p.directive, -1) {
			without := strings.Replace(p.directive, line, "", 1)
			name := strings.Fields(line)[1]
			for _, c := range p.claims {
				if c.says(name) {
					decides[len(asked)] = p.name + ": " + strings.TrimSpace(line)
					ask(p.name, without, c)
				}
			}
		}
	}
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(strings.Split(r.URL.Path, "/")[1])
		if err != nil {
			t.Error(err)
			return
		}
		asked[n].answer(w, r)
	})
	s := caddytest.Run(t, strings.ReplaceAll(directives.String(), "{$ENDPOINT}", endpoint.URL))

	deciding := map[string]bool{}
	answered := 0
	for n, c := range asked {
		site := &caddytest.Site{URL: s.URL + "/" + strconv.Itoa(n)}
		if c.call == "poll" {
			l := site.Link(t)
			endpoint.Asked()
			site.Poll(t, l)
			answered++
		} else {
			method, request := c.request(t)
			site.Ask(t, method, caddytest.File(t, "requests", request))
		}
		answered++
		lines := answeredLines(s.Log(t))
		if len(lines) != answered {
			t.Fatalf("%s: %d lines in the log, want %d", names[n], len(lines), answered)
		}
		var got struct{ Outcome, Cause string }
		if err := json.Unmarshal([]byte(lines[answered-1]), &got); err != nil {
			t.Fatal(err)
		}
		posts := 0
		for _, r := range endpoint.Asked() {
			if r.Method == http.MethodPost {
				posts++
			}
		}
		if posts != 1 {
			t.Errorf("%s: the token endpoint was asked %d times", names[n], posts)
		}
		if line, without := decides[n]; without {
			deciding[line] = deciding[line] || got.Outcome != c.outcome
		} else if got.Outcome != c.outcome || got.Cause != c.cause {
			t.Errorf("%s: %s, %q; the page says %s, %q", names[n], got.Outcome, got.Cause, c.outcome, c.cause)
		}
	}
	for line, does := range deciding {
		if !does {
			t.Errorf("%s changes nothing", line)
		}
	}
	t.Logf("%d answers", len(asked)-len(decides))
}

// says tells whether an on_error by this name can be about the answer.
func (c *claim) says(name string) bool {
	body := c.error()
	return name == strconv.Itoa(c.status) || name == body.Error || name == body.Error+"/"+body.Suberror
}

func (c *claim) error() (body struct{ Error, Suberror string }) {
	_ = json.Unmarshal([]byte(c.body), &body) // which may be none
	return body
}

// What the text around a table says of errors, statuses and lengths is in a row, where it is tried.
func TestThePageOfProvidersClaimsNothingWithoutARow(t *testing.T) {
	options, err := os.ReadFile(filepath.Join("..", "docs", "options.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, grammar, _ := strings.Cut(string(options), "# Options")
	grammar, _, _ = strings.Cut(grammar, "| option |")
	ours := regexp.MustCompile(`[a-z_]+`).FindAllString(grammar, -1)
	all := providers(t)
	errors := map[string]bool{}
	for _, p := range all {
		for _, c := range p.claims {
			errors[c.error().Error] = true
		}
	}
	about := regexp.MustCompile("`([a-z0-9_]+)`|\\b([345]\\d\\d)\\b|\\b(\\d+) characters")
	for _, p := range all {
		before, rest, _ := strings.Cut(p.text, "```caddyfile")
		_, rest, _ = strings.Cut(rest, "```")
		prose := before
		for line := range strings.Lines(rest) {
			if !strings.HasPrefix(line, "|") || strings.Count(line, "|") != 9 {
				prose += line
			}
		}
		var rows strings.Builder
		for _, c := range p.claims {
			fmt.Fprintln(&rows, c.status, c.header, c.body, c.happened)
		}
		for _, found := range about.FindAllStringSubmatch(prose, -1) {
			switch word, status, length := found[1], found[2], found[3]; {
			case word != "" && (!errors[word] && !strings.Contains(word, "_") || slices.Contains(ours, word)):
			case word != "" && !strings.Contains(rows.String(), word) && !strings.Contains(p.directive, word):
				t.Errorf("%s: no row has %s", p.name, word)
			case status != "" && !strings.Contains(rows.String(), status):
				t.Errorf("%s: no row has the status %s", p.name, status)
			case length != "" && length != "2048" && !strings.Contains(rows.String(), strconv.Quote(strings.Repeat("x", atoi(t, length)))):
				t.Errorf("%s: no row has a token of %s characters", p.name, length)
			}
		}
		for _, line := range onErrorLine.FindAllString(p.directive, -1) {
			if name := strings.Fields(line)[1]; !slices.ContainsFunc(p.claims, func(c claim) bool { return c.says(name) }) {
				t.Errorf("%s: no row has what %s is about", p.name, strings.TrimSpace(line))
			}
		}
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
