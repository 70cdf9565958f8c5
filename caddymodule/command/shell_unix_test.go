//go:build unix

package command

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

var tools = flag.Bool("tools", false, "fail where a tool that a document uses is missing, as CI does")

// block is one of a document.
type block struct {
	where, language, marking, text string
}

// blocks are those of all documents in a language, or in any.
func blocks(t *testing.T, language string) (all []block) {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```").FindAllSubmatchIndex(text, -1) {
			is, marking, _ := strings.Cut(string(text[at[2]:at[3]]), " ")
			if language != "any" && is != language {
				continue
			}
			line := strings.Count(string(text[:at[0]]), "\n") + 1
			all = append(all, block{fmt.Sprintf("%s:%d", filepath.Base(path), line), is, marking, string(text[at[4]:at[5]])})
		}
	}
	return all
}

// has reports whether a tool is there, and fails the test if it is not where all have to be.
func has(t *testing.T, tool string) bool {
	t.Helper()
	_, err := exec.LookPath(tool)
	if err != nil && *tools {
		t.Fatal(err)
	}
	return err == nil
}

// What a machine has that no test may touch, or does not have: in the place of these commands.
var standIns = map[string]string{
	// It runs until Ctrl-C what would, asks of the documents' site nothing but whether it is valid, since it would get
	// certificates, and tells check that the account may be tried.
	"caddy": `
case " $* " in
*" --watch "* | *" --open "*)
	out=$(mktemp -p "$ROOT")
	"$CADDY" "$@" >"$out" &
	until [ -s "$out" ]; do kill -0 $! || exit; sleep .05; done
	kill $!; wait $!; status=$?; cat "$out"; exit $status ;;
*" run ") exec "$CADDY" validate ;;
*" check "*) exec "$CADDY" "$@" --yes ;;
esac
exec "$CADDY" "$@"`,
	"useradd":    `[ "$*" = "--system caddy" ]`,
	"runuser":    `[ "$1 $2 $3" = "-u caddy --" ] && shift 3; exec "$@"`,
	"ssh":        `[ "$1" = -L ] && shift 3; exec "$@"`,
	"sudo":       `exec "$@"`,
	"systemctl":  `echo "$@" >>"$ROOT/systemctl"`,
	"chown":      `[ -e "$2" ]`,
	"journalctl": `cat "$ROOT/journal"`,
	"vi":         `cat >/dev/null; printf the-secret >"$1"`,
	"xdg-open":   `:`,
}

// TestTheCommandsInTheDocumentsWork pastes every block of commands into a shell as it is printed, in the folder that it is printed
// for: but for the folders of the system, which are below another one, addresses, and how many accounts are played. The marking
// of a block that is not run says why.
func TestTheCommandsInTheDocumentsWork(t *testing.T) {
	if !has(t, "bash") {
		return
	}
	root, err := os.MkdirTemp("", "docs") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	clone := filepath.Join(root, "clone")
	for _, folder := range []string{"bin", "clone", "etc/caddy", "etc/systemd/system", "run/smapi-upgrade", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range standIns {
		if err := os.WriteFile(filepath.Join(root, "bin", name), []byte("#!/bin/bash\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := filepath.Glob("../../*")
	if err != nil {
		t.Fatal(err)
	}
	link := func(from, to string) {
		from, _ = filepath.Abs(from)
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, entry := range entries {
		if name := filepath.Base(entry); name != "caddy" && name != "Caddyfile" {
			link(entry, filepath.Join(clone, name))
		}
	}
	link(filepath.Join(root, "bin", "caddy"), filepath.Join(clone, "caddy"))

	// The site that is there already.
	accounts := map[string]string{"testuser": "12345"}
	for i := range 20 {
		accounts[fmt.Sprint("user", i+1)] = fmt.Sprint("password", i+1)
	}
	oauth := caddytest.OAuthServer(t, accounts)
	site, socket := loopback.FreeAddress(), filepath.Join(root, "run/smapi-upgrade/admin.sock")
	running := fmt.Sprintf("{\nadmin unix/%s|0600\npersist_config off\nstorage file_system %s\nlog {\noutput discard\n}\n}\nhttp://%s {\nbind 127.0.0.1\n%s\n}\n",
		socket, t.TempDir(), site, caddytest.Directive(oauth, caddytest.Serve(t, loggedIn), "refresh_auth_tokens", "vault "+caddytest.VaultFile(t), "old_service login"))
	caddytest.Load(t, running)
	t.Cleanup(func() { _ = caddy.Stop() })

	example := string(must(os.ReadFile("../../Caddyfile.example"))(t))
	caddytest.Write(t, filepath.Join(root, "etc/caddy/Caddyfile"), example)
	caddytest.Write(t, filepath.Join(root, "etc/caddy/client_secret"), "the-secret")
	caddytest.Write(t, filepath.Join(root, "etc/caddy/smapi-upgrade.env"), "SMAPI_CLIENT_AUTH=basic\n")
	caddytest.Write(t, filepath.Join(root, "journal"), journal(t))
	for _, file := range []string{"account.tsv", "accounts.tsv"} {
		caddytest.Write(t, filepath.Join(clone, file), "testuser\t12345\nuser1\tpassword1\n")
	}
	_, port, _ := net.SplitHostPort(loopback.FreeAddress())
	here := strings.NewReplacer("/etc/", root+"/etc/", "/usr/local/", root+"/usr/local/", "/run/smapi", root+"/run/smapi",
		"/run/credentials/smapi-upgrade.service", root+"/etc/caddy", "/var/lib/", root+"/var/lib/",
		"localhost:8088", site, "9180", port, "--accounts 1000 --rate 50", "--accounts 20 --rate 1000",
		"https://auth.example.com/oauth2/token", oauth.URL+"/token", "=sonos-upgrade", "=the-id")

	ran, all := 0, true // that a tool is there for
	for _, b := range blocks(t, "sh") {
		t.Run(b.where, func(t *testing.T) {
			if out, err := exec.Command("bash", "-n", "-c", b.text).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if comment := regexp.MustCompile(`(?m)(^| )#.*`).FindString(b.text); comment != "" {
				t.Errorf("zsh takes a comment that is typed for arguments: %s", comment)
			}
			if folder := regexp.MustCompile(`(?m)^cd .*`).FindString(b.text); folder != "" {
				t.Errorf("what is typed next is typed elsewhere: %s", folder)
			}
			runs := true
			for _, tool := range []string{"jq", "curl", "openssl", "promtool"} {
				runs = runs && (!regexp.MustCompile(`\b`+tool+` `).MatchString(b.text) || b.marking != "" || has(t, tool))
			}
			if b.marking != "" {
				if !regexp.MustCompile(`^not run by a test: \w{2,}.*`).MatchString(b.marking) {
					t.Errorf("the marking is %q", b.marking)
				}
			}
			if !runs || b.marking != "" {
				all = all && runs
				namesWhatThereIs(t, b.text)
				return
			}
			caddyfile, types := running, ""
			if strings.HasPrefix(b.where, "README") {
				caddyfile = blocks(t, "caddyfile")[0].text
			}
			switch {
			case strings.Contains(b.text, " check "):
				types = "testuser\t12345\n"
			case strings.HasPrefix(b.text, "read "):
				types = "the-secret\n"
			}
			if strings.Contains(b.text, "vault status") {
				withVault := strings.NewReplacer("#	refresh_auth_tokens", "refresh_auth_tokens", "#	vault {", "vault {", "/etc/caddy", root+"/etc/caddy").Replace(example)
				caddytest.Write(t, filepath.Join(root, "etc/caddy/Caddyfile"), withVault)
			}
			caddytest.Write(t, filepath.Join(clone, "Caddyfile"), caddyfile)
			pasted := here.Replace(b.text)
			cmd := exec.Command("bash", "-euo", "pipefail", "-v", "-s") // -v has it print each line that it reads
			cmd.Dir = clone
			cmd.Stdin = strings.NewReader(pasted + types)
			cmd.Env = []string{
				"PATH=" + filepath.Join(root, "bin") + ":" + os.Getenv("PATH"), "HOME=" + root, "ROOT=" + root, "CADDY=" + self, caddytest.AsCaddy + "=1",
				"SMAPI_ADMIN_SOCKET=" + socket, "SMAPI_TOKEN_ENDPOINT=" + oauth.URL + "/token", "SMAPI_CLIENT_ID=the-id", "SMAPI_CLIENT_SECRET=the-secret",
				"SMAPI_CLIENT_SECRET_FILE=" + filepath.Join(root, "etc/caddy/client_secret"),
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v:\n%s\n%s", err, b.text, out)
			}
			said := string(out)
			for line := range strings.Lines(pasted) {
				if !strings.Contains(said, line) {
					t.Errorf("a command before it takes for its own input what is pasted as a command: %s", line)
				}
				said = strings.Replace(said, line, "", 1)
			}
			if regexp.MustCompile(`\b(jq|curl|status|check|simulate)\b`).MatchString(b.text) && said == "" {
				t.Errorf("nothing is printed by\n%s", b.text)
			}
			ran++
		})
	}
	if !all { // what a later block makes may be of one that did not run
		return
	}
	if ran < 12 {
		t.Errorf("ran %d blocks", ran)
	}
	for _, file := range []string{"usr/local/bin/caddy", "etc/caddy/smapi-upgrade.env", "etc/systemd/system/smapi-upgrade.service", "etc/systemd/system/smapi-upgrade.service.d/vault.conf", "etc/caddy/vault.json", "clone/sonos-upgrade.pub.pem"} {
		if info, err := os.Stat(filepath.Join(root, file)); err != nil || info.Size() == 0 {
			t.Errorf("after all of it there is no %s: %v", file, err)
		}
	}
}

// namesWhatThereIs finds the files and packages of commands that are not run.
func namesWhatThereIs(t *testing.T, text string) {
	t.Helper()
	for _, path := range regexp.MustCompile(`(?m)(?:^|\s|=)(\./[\w./-]+|(?:integration|docs|cmd|\.ci)[\w./-]*)`).FindAllStringSubmatch(text, -1) {
		file := strings.TrimSuffix(path[1], "/...")
		if file == "./page" { // of integration
			file = "integration/page"
		}
		if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
			t.Error(err)
		}
	}
}

// journal is what the log may have: a line of each outcome that the documents look for.
func journal(t *testing.T) string {
	t.Helper()
	lines := "Caddy says something that is no JSON\n"
	for _, b := range blocks(t, "json") {
		if strings.HasPrefix(b.where, "log.md") {
			lines += b.text
		}
	}
	return lines + `{"level":"info","ts":1,"msg":"answered a call","method":"getDeviceAuthToken","outcome":"rejected","household":"cc8a7c971c828d2b","account":"a"}` + "\n"
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func TestTheJSONInTheDocumentsIsJSON(t *testing.T) {
	all := blocks(t, "json")
	for _, b := range blocks(t, "jsonl") {
		for line := range strings.Lines(b.text) {
			all = append(all, block{b.where, "json", b.marking, line})
		}
	}
	for _, b := range all {
		if !json.Valid([]byte(b.text)) || b.marking != "" {
			t.Errorf("%s: %s", b.where, b.text)
		}
	}
	if len(all) < 5 {
		t.Errorf("%d blocks", len(all))
	}
}

// Whatever a block is, some test looks at it.
func TestTheBlocksInTheDocumentsAreOfKnownLanguages(t *testing.T) {
	known := map[string]bool{"sh": true, "json": true, "jsonl": true, "caddyfile": true, "yaml": true, "promql": true, "go": true}
	example := string(must(os.ReadFile("../../Caddyfile.example"))(t))
	for _, b := range blocks(t, "any") {
		switch {
		case known[b.language]:
		case b.language == "":
			// The picture in the README, the grammar, which has a test of its own, and a line of the example.
			if !strings.Contains(b.text, "──▶") && !strings.HasPrefix(b.text, "smapi_upgrade [") && !strings.Contains(example, b.text) {
				t.Errorf("%s: what is\n%s", b.where, b.text)
			}
		default:
			t.Errorf("%s: no test looks at %q", b.where, b.language)
		}
	}
	for _, b := range blocks(t, "go") {
		found := false
		files, _ := filepath.Glob("../*_test.go")
		for _, file := range files {
			found = found || strings.Contains(string(must(os.ReadFile(file))(t)), b.text)
		}
		if !found {
			t.Errorf("%s: there is no such test", b.where)
		}
	}
}

// What Prometheus is asked, in blocks, in tables and on the dashboard, and how it is told to scrape.
func TestPrometheusUnderstandsTheDocuments(t *testing.T) {
	check := func(what, kind, text string) {
		t.Helper()
		if !has(t, "promtool") {
			return
		}
		file := caddytest.Write(t, filepath.Join(t.TempDir(), "file.yml"), text)
		if out, err := exec.Command("promtool", "check", kind, file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
	}
	queries := map[string]string{}
	for _, b := range blocks(t, "promql") {
		queries[b.where] = b.text
	}
	handbook := string(must(os.ReadFile("../../docs/handbook.md"))(t))
	for _, cell := range regexp.MustCompile("(?m)^\\| [^|]+ \\| `((?:sum|rate|max|histogram_quantile)[^`]+)` \\|$").FindAllStringSubmatch(handbook, -1) {
		queries[cell[1]] = cell[1]
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(must(os.ReadFile("../../docs/grafana-dashboard.json"))(t), &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$job", "job", "$instance", "instance")
	for _, panel := range dashboard.Panels {
		for i, target := range panel.Targets {
			queries[fmt.Sprint(panel.Title, i)] = variables.Replace(target.Expr)
		}
	}
	if len(queries) < 35 {
		t.Errorf("found %d", len(queries))
	}
	rules := "groups:\n- name: documents\n  rules:\n"
	for i, name := range slices.Sorted(maps.Keys(queries)) {
		quoted, _ := json.Marshal(queries[name])
		rules += fmt.Sprintf("  - record: query:%d\n    expr: %s\n", i, quoted)
	}
	check("the queries", "rules", rules)
	for _, b := range blocks(t, "yaml") {
		check(b.where, "config", b.text)
	}
}
