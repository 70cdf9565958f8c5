package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// logged is what the code says of a line.
type logged struct {
	level string          // blank where it depends
	has   map[string]bool // fields that are named beside the message
	may   map[string]bool // those and all others of its package
}

// fields are the names of those that a part of the code makes.
func fields(in ...ast.Node) map[string]bool {
	found := map[string]bool{}
	for _, part := range in {
		ast.Inspect(part, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 1 {
				if of, ok := call.Fun.(*ast.SelectorExpr); ok && fmt.Sprint(of.X) == "zap" {
					found[text(call.Args[0])] = true
				}
			}
			return true
		})
	}
	return found
}

// text is that of a literal, or blank.
func text(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		unquoted, _ := strconv.Unquote(l.Value)
		return unquoted
	}
	return ""
}

// messages are the sentences that the handler logs: the literal ones that are given to a logger, and those that are kept in a
// variable for one.
func messages(t *testing.T) map[string]logged {
	t.Helper()
	found := map[string]logged{}
	levels := map[string]int{"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "Check": 1} // which argument is the message
	folders, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	nested, err := filepath.Glob("*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range append(append(folders, nested...), ".") {
		if paths, _ := filepath.Glob(filepath.Join(folder, "*.go")); len(paths) == 0 || regexp.MustCompile(`^(command|diagnose|player)\b`).MatchString(folder) {
			continue
		}
		all := map[string]bool{}
		for path, file := range parsed(t, folder) {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			maps.Copy(all, fields(file))
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					selector, ok := n.Fun.(*ast.SelectorExpr)
					if !ok {
						return true
					}
					if at, ok := levels[selector.Sel.Name]; ok && len(n.Args) > at && text(n.Args[at]) != "" {
						line := logged{strings.ToLower(selector.Sel.Name), map[string]bool{}, all}
						if line.level == "check" {
							line.level = ""
						}
						for _, argument := range n.Args {
							maps.Copy(line.has, fields(argument))
						}
						found[text(n.Args[at])] = line
					}
				case *ast.AssignStmt:
					if name, ok := n.Lhs[0].(*ast.Ident); ok && name.Name == "says" {
						found[text(n.Rhs[0])] = logged{may: all}
					}
				}
				return true
			})
		}
	}
	return found
}

// Who looks for a line finds what it means.
func TestEveryLogLineIsDocumented(t *testing.T) {
	content, err := os.ReadFile("../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	documented, all := map[string]bool{}, messages(t)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^|]+)` \\| ").FindAllSubmatch(content, -1) {
		documented[string(row[1])] = true
	}
	for message := range all {
		if !documented[message] {
			t.Errorf("docs/log.md lacks %q", message)
		}
	}
	for message := range documented {
		if _, ok := all[message]; !ok {
			t.Errorf("nothing logs %q", message)
		}
	}
	if len(all) < 25 {
		t.Errorf("found %d", len(all))
	}
}

func TestEveryLogLineHasASampleWithTheFieldsThatItIsGiven(t *testing.T) {
	content, err := os.ReadFile("../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	missing := messages(t)
	of := maps.Clone(missing)
	for _, sample := range regexp.MustCompile(`(?m)^\{"level":.*$`).FindAll(content, -1) {
		var line map[string]any
		if err := json.Unmarshal(sample, &line); err != nil {
			t.Fatalf("%v: %s", err, sample)
		}
		message, _ := line["msg"].(string)
		says, ok := of[message]
		if !ok || line["logger"] != "http.handlers.smapi_upgrade" || says.level != "" && says.level != line["level"] {
			t.Errorf("nothing logs %s", sample)
		}
		for field := range says.has {
			if line[field] == nil {
				t.Errorf("%s is not in %s", field, sample)
			}
		}
		for field := range line {
			everywhere := []string{"level", "ts", "logger", "msg", "method", "outcome", "credentials", "household", "account"}
			if !slices.Contains(everywhere, field) && !says.may[field] {
				t.Errorf("nothing logs the field %s of %s", field, sample)
			}
		}
		delete(missing, message)
	}
	for message := range missing {
		t.Errorf("docs/log.md has no sample of %q", message)
	}
}

// A sample has the message and the fields of a real line, in their order.
func TestTheSamplesOfLogLinesAreAsRealOnes(t *testing.T) {
	content, err := os.ReadFile("../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]string{} // by outcome
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)\n```").FindAllSubmatch(content, -1) {
		samples[lineOf(t, string(block[1])).Outcome] = string(block[1])
	}
	wrong := caddytest.File(t, "requests", "upgrade.xml")
	wrong = []byte(strings.Replace(string(wrong), "12345", "wrong", 1))
	for outcome, do := range map[string]func() *caddytest.Site{
		"upgraded": func() *caddytest.Site {
			s := caddytest.Run(t, caddytest.Directive(caddytest.OAuthServer(t, map[string]string{"testuser": "12345"}), caddytest.OldService(t)))
			s.Upgrade(t)
			return s
		},
		"rejected": func() *caddytest.Site {
			s := caddytest.Run(t, caddytest.Directive(caddytest.OAuthServer(t, map[string]string{"testuser": "12345"}), caddytest.OldService(t)))
			s.Post(t, wrong)
			return s
		},
		"observed": func() *caddytest.Site {
			s := caddytest.Run(t, caddytest.Directive(caddytest.OAuthServer(t, nil), caddytest.OldService(t), "mode observe"))
			s.Upgrade(t)
			return s
		},
		"misconfigured": func() *caddytest.Site {
			s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.Says(401, `{"error":"invalid_client"}`)), caddytest.OldService(t)))
			s.Upgrade(t)
			return s
		},
	} {
		t.Run(outcome, func(t *testing.T) {
			real := ""
			for line := range strings.Lines(do().Log(t)) {
				if strings.Contains(line, `"outcome":"`+outcome+`"`) && !strings.Contains(line, "smapi_outcome") {
					real = strings.TrimSpace(line)
				}
			}
			if real == "" {
				t.Fatal("no such line")
			}
			differ := regexp.MustCompile(`"(ts|household|account|reference|waited|duration)":("\w+"|[0-9.e-]+)`)
			same := func(line string) string { return differ.ReplaceAllString(line, `"$1":…`) }
			if got, want := same(real), same(samples[outcome]); got != want {
				t.Errorf("the real one is\n%s\nthe sample is\n%s", real, samples[outcome])
			}
		})
	}
	if names := slices.Sorted(maps.Keys(samples)); len(names) != 4 {
		t.Errorf("the samples are of %q", names)
	}
}

func lineOf(t *testing.T, text string) (line struct{ Outcome string }) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		t.Fatal(err, text)
	}
	return line
}
