package caddymodule_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// arguments are the fields that are no option of a Caddyfile but an argument of one.
var arguments = map[string]string{
	"Options.token_endpoint":       "smapi_upgrade <token_endpoint>",
	"Options.private_key_fallback": "private_key <field> <fallback>",
	"Exchange.credentials":         "exchange <credentials>",
	"Exchange.grant_type":          "exchange <credentials> <grant_type>",
	"Vault.key_file":               "vault <key_file>",
	"OldService.credentials":       "old_service <credentials>",
}

// more is where the documents say more of an option than its comment.
var more = map[string]string{
	"Options.client_secret":       "[how a secret is replaced](handbook.md#secrets)",
	"Options.transport":           "[its options](https://caddyserver.com/docs/caddyfile/directives/reverse_proxy#the-http-transport)",
	"Options.fuse":                "[why](how-it-works.md#a-rejection-has-to-be-earned)",
	"Options.exchange":            "[below](#exchange)",
	"Options.expire_session_ids":  "[when](migration.md#5-all-homes)",
	"Options.refresh_auth_tokens": "[when](migration.md#6-keep-tokens-fresh)",
	"Options.vault":               "[below](#vault), and [how it works](handbook.md#vault)",
	"Options.sign_in":             "[below](#signing-in)",
	"Options.old_service":         "[below](#the-old-service-stays-as-it-is)",
}

// inJSON says what a field of a Go type is in JSON.
var inJSON = map[string]string{
	"string": "text", "token.ClientAuth": "text", "smapi.Kind": "text", "OnRejected": "text", "Mode": "text",
	"value.Retention": "text", "*value.FailedLogins": "text", "value.Fuse": "text", "*Percent": "text",
	"caddy.Duration": "duration", "int": "number", "bool": "`true`", "*bool": "`true` or `false`",
	"[]string": "list of texts", "map[string][]string": "object of lists", "OnError": "object of texts",
	"json.RawMessage": "object", "[]Exchange": "list of objects", "*Vault": "object", "*SignIn": "object", "*OldService": "object",
}

// parsed are the files of a folder, with their comments, by their paths.
func parsed(t *testing.T, folder string) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no Go files in", folder, err)
	}
	files := make(map[string]*ast.File, len(paths))
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = file
	}
	return files
}

// optionsOf is the table of a struct's options: what their comments say.
func optionsOf(t *testing.T, files map[string]*ast.File, name string) string {
	t.Helper()
	var table strings.Builder
	table.WriteString("| Caddyfile | JSON | meaning | default |\n|---|---|---|---|\n")
	byDefault := regexp.MustCompile(`^(.*?) ?(?:Default: ([^;]*?)|(Required))\.$`)
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != name {
				return true
			}
			for _, field := range spec.Type.(*ast.StructType).Fields.List {
				kind := types.ExprString(field.Type)
				tag, _ := strconv.Unquote(field.Tag.Value)
				option, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
				says := strings.Join(strings.Fields(field.Doc.Text()), " ")
				if len(field.Names) != 1 || says == "" || inJSON[kind] == "" {
					t.Fatalf("%s.%s: %s %q", name, option, kind, says)
				}
				unset := ""
				if kind == "bool" {
					unset = "off"
				}
				if found := byDefault.FindStringSubmatch(says); found != nil {
					says, unset = found[1], found[2]+strings.ToLower(found[3])
				}
				if link := more[name+"."+option]; link != "" {
					says += " See " + link + "."
				}
				written := option
				if argument := arguments[name+"."+option]; argument != "" {
					written = argument
				}
				fmt.Fprintf(&table, "| `%s` | `%s`: %s | %s | %s |\n", written, option, inJSON[kind], strings.ReplaceAll(says, "|", `\|`), unset)
			}
			return false
		})
	}
	return table.String()
}

// grammar is the directive as the comment of what reads it has it.
func grammar(t *testing.T) string {
	t.Helper()
	for _, file := range parsed(t, "settings/directive") {
		for _, declared := range file.Decls {
			if f, ok := declared.(*ast.FuncDecl); ok && f.Name.Name == "Unmarshal" {
				_, text, _ := strings.Cut(f.Doc.Text(), "\n\n")
				text, _, _ = strings.Cut(text, "\n\t}\n")
				return regexp.MustCompile(`(?m)^\t`).ReplaceAllString(text, "") + "\n}\n"
			}
		}
	}
	t.Fatal("no grammar")
	return ""
}

// One source: what docs/options.md says of an option is the comment of its field.
func TestThePageOfOptionsIsWhatTheirCommentsSay(t *testing.T) {
	const path = "../docs/options.md"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page, files := string(content), parsed(t, "settings")
	parts := map[string]string{"grammar": "```\n" + grammar(t) + "```\n"}
	for _, name := range []string{"Options", "Exchange", "Vault", "SignIn", "OldService"} {
		parts[name] = optionsOf(t, files, name)
	}
	for name, want := range parts {
		from, to := "<!-- "+name+" -->\n", "<!-- end -->\n"
		before, rest, ok := strings.Cut(page, from)
		got, after, also := strings.Cut(rest, to)
		if !ok || !also {
			t.Fatalf("no %s", from)
		}
		if *update {
			page = before + from + want + to + after
		} else if got != want {
			t.Errorf("%s differs (go test ./caddymodule -run Options -update):\n%s", name, want)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The grammar has every field, and the parser every word of the grammar.
func TestTheGrammarHasEveryOption(t *testing.T) {
	words, block := map[string]bool{}, "Options"
	blocks := map[string]string{"exchange": "Exchange", "vault": "Vault", "sign_in": "SignIn", "old_service": "OldService"}
	opening := map[string]string{
		"Options": "%s", "Exchange": "exchange login {\n%s\n}", "Vault": "vault keys {\n%s\n}", "SignIn": "sign_in {\n%s\n}",
		"OldService": "old_service login {\n%s\n}",
	}
	for line := range strings.Lines(grammar(t)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "smapi_upgrade" {
			continue
		}
		if fields[0] == "}" {
			block = "Options"
			continue
		}
		words[block+"."+fields[0]] = true
		_, err := caddytest.Adapt("localhost {\nsmapi_upgrade https://auth.example.com/token {\n" + fmt.Sprintf(opening[block], fields[0]) + "\n}\n}\n")
		if err != nil && strings.Contains(err.Error(), "unrecognized") {
			t.Errorf("%s: %v", fields[0], err)
		}
		if opened := blocks[fields[0]]; opened != "" {
			block = opened
		}
	}
	files := parsed(t, "settings")
	for _, name := range []string{"Options", "Exchange", "Vault", "SignIn", "OldService"} {
		for _, row := range regexp.MustCompile("(?m)^\\| `[^`]+` \\| `(\\w+)`").FindAllStringSubmatch(optionsOf(t, files, name), -1) {
			field := name + "." + row[1]
			if !words[field] && arguments[field] == "" {
				t.Errorf("the grammar lacks %s", field)
			}
		}
	}
}

// What the example takes from the environment is in a table, with the same default.
func TestThePageOfOptionsHasTheVariablesOfTheExample(t *testing.T) {
	texts := documented(t)
	page, taken := string(texts["docs/options.md"]), regexp.MustCompile(`\{\$(SMAPI_\w+):([^}]+)\}`)
	variables := map[string]bool{}
	for _, found := range taken.FindAllStringSubmatch(string(texts["Caddyfile.example"]), -1) {
		variables[found[1]] = true
		if !regexp.MustCompile(`(?m)^\| .` + found[1] + `. \| .* \| .` + regexp.QuoteMeta(found[2]) + "`").MatchString(page) {
			t.Errorf("no row for %s", found[0])
		}
	}
	if rows := strings.Count(page, "\n| `SMAPI_"); rows != len(variables) {
		t.Errorf("%d rows for %d variables", rows, len(variables))
	}
}
