package caddymodule_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// withoutOtherModules is a documented Caddyfile that loads without the modules of others that it needs: a rate_limit
// becomes its matcher.
func withoutOtherModules(block string) string {
	limit := regexp.MustCompile(`(?s)\trate_limit \{\n\t\tzone \w+ \{\n\t\t\tmatch \{\n(.*?)\n\t\t\t\}\n.*?\n\t\}\n`)
	return limit.ReplaceAllStringFunc(block, func(text string) string {
		matchers := strings.ReplaceAll(limit.FindStringSubmatch(text)[1], "\n\t\t\t\t", "\n\t\t")
		return "\t@strangers {\n\t\t" + strings.TrimSpace(matchers) + "\n\t}\n\trespond @strangers 429\n"
	})
}

// testsOfTheRepository are the names of all tests.
func testsOfTheRepository(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		for _, name := range test.FindAllSubmatch(content, -1) {
			names[string(name[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestEveryLineOfThePageAboutStrangersNamesItsTests(t *testing.T) {
	exists := testsOfTheRepository(t)
	page, err := os.ReadFile("../docs/strangers.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| a stranger |") {
			continue
		}
		lines++
		named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("no test in: %s", line)
		}
		for _, name := range named {
			if !exists[name[1]] {
				t.Errorf("there is no %s", name[1])
			}
		}
	}
	if lines < 10 {
		t.Errorf("%d lines", lines)
	}
}

// Who begins at the README finds every document.
func TestEveryDocumentIsLinked(t *testing.T) {
	texts := documented(t)
	files, err := filepath.Glob("docs/*")
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{"README.md": true, "Caddyfile.example": true}
	for next := []string{"README.md"}; len(next) > 0; next = next[1:] {
		for _, link := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllSubmatch(texts[next[0]], -1) {
			target := filepath.Join(filepath.Dir(next[0]), string(link[1]))
			if !linked[target] {
				linked[target] = true
				next = append(next, target)
			}
		}
	}
	for _, file := range append(files, slices.Collect(maps.Keys(texts))...) {
		if !linked[filepath.Clean(file)] {
			t.Errorf("nothing leads to %s", file)
		}
	}
}

// A command line is seen by other users and kept by the shell, and /metrics is for nobody on the public site.
func TestTheDocumentsShowNoPasswordOnACommandLineAndNoMetricsInPublic(t *testing.T) {
	secret := regexp.MustCompile(`(?i)(password|secret)=[^\s"$/]|--?(password|secret)\b|\s-u \S+:|s/\w+/PASSWORD/|-d \S*password`)
	for file, text := range documented(t) {
		for _, block := range regexp.MustCompile("(?s)```sh[^\n]*\n(.*?)```").FindAllSubmatch(text, -1) {
			if found := secret.Find(block[1]); found != nil {
				t.Errorf("%s: %q in\n%s", file, found, block[1])
			}
		}
		for _, block := range regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllSubmatch(text, -1) {
			site := string(block[1])
			if regexp.MustCompile(`(?m)^\s*metrics\b`).MatchString(site) && !strings.Contains(site, "bind 127.0.0.1") {
				t.Errorf("%s: metrics in public:\n%s", file, site)
			}
		}
	}
}

// A tag can be moved to another image.
func TestTheREADMESaysWhatItIsOnTwoScreens(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const screen = 50 // lines
	before, _, found := strings.Cut(string(readme), "\n## Read on\n")
	lines := strings.Split(before, "\n")
	if !found || len(lines) > 2*screen {
		t.Errorf("%d lines before the links to the documents", len(lines))
	}
	for i, line := range lines {
		if n := utf8.RuneCountInString(line); n > 140 && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "![") {
			t.Errorf("line %d has %d characters", i+1, n)
		}
	}
	for _, part := range []string{"go run ./cmd/sandbox", "./xcaddy.sh", "](docs/page.png)", "\n```caddyfile\n", "\n## Who answers what\n"} {
		if !strings.Contains(before, part) {
			t.Errorf("%s is not among them", part)
		}
	}
}

func TestImagesAreNamedByTheirDigest(t *testing.T) {
	containerfile, err := os.ReadFile("../docs/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	images := regexp.MustCompile(`(?m)^(?:ARG GOLANG=|FROM +)(\S+)`).FindAllStringSubmatch(string(containerfile), -1)
	pinned := regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
	if len(images) < 3 {
		t.Fatalf("found %q", images)
	}
	for _, image := range images {
		if name := image[1]; name != "scratch" && name != "${GOLANG}" && !pinned.MatchString(name) {
			t.Errorf("%s has no digest", name)
		}
	}
}

// Figures are printed by cmd/bench, and are in one document: two would differ one day.
func TestFiguresAreThoseThatTheBenchmarkPrints(t *testing.T) {
	files, err := filepath.Glob("../cmd/bench/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no benchmark", err)
	}
	prints := ""
	for _, file := range files {
		prints += contentOf(t, file)
	}
	page := contentOf(t, "../docs/performance.md")
	kinds := strings.NewReplacer("HTTP/1.1", "%s", "HTTP/2", "%s", "TLS 1.2", "%s")
	number := regexp.MustCompile(`\d+`)
	rows := map[string]bool{}
	for line := range strings.Lines(page) {
		cells := strings.Split(line, " | ")
		row := strings.TrimPrefix(cells[0], "| ")
		if len(cells) < 2 || strings.HasPrefix(row, "accounts at once") || row == "request" {
			continue
		}
		rows[row] = true
		if !strings.Contains(prints, `"`+row+`"`) && !strings.Contains(prints, "| "+row+" |") &&
			!strings.Contains(prints, "| "+number.ReplaceAllString(kinds.Replace(row), "%d")+" |") {
			t.Errorf("the benchmark prints no row %q", row)
		}
	}
	printed := regexp.MustCompile(`(?:both\(|name: )"(.*?)"`).FindAllStringSubmatch(prints, -1)
	for _, wave := range regexp.MustCompile(`Accounts: (\d+), .*?Protocol: crowd\.(\w+)`).FindAllStringSubmatch(prints, -1) {
		over := map[string]string{"HTTP1": "HTTP/1.1", "HTTP2": "HTTP/2", "TLS12": "TLS 1.2"}[wave[2]]
		printed = append(printed, []string{"", wave[1] + " over " + over})
	}
	for _, row := range printed {
		if !rows[row[1]] {
			t.Errorf("docs/performance.md has no row %q", row[1])
		}
	}
	if len(printed) < 15 {
		t.Errorf("found %d rows", len(printed))
	}
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, "../README.md", "../CONTRIBUTING.md") {
		if filepath.Base(document) == "performance.md" {
			continue
		}
		for line := range strings.Lines(contentOf(t, document)) {
			if regexp.MustCompile(`\d µs|\*\*\d\.\d\d\*\*|\d MiB \|$`).MatchString(strings.TrimSpace(line)) {
				t.Errorf("%s has a figure that belongs into performance.md: %s", document, line)
			}
		}
	}
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
