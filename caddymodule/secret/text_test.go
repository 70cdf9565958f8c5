package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// environment knows what Caddy's replacer does.
var environment = caddy.NewReplacer().GetString

func TestATextHasItsPlaceholdersReplaced(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("SMAPI_TEST_A", "\uFEFFa\r\n")
	write(t, "b", "b{env.SMAPI_TEST_A}\n\n")
	brace := filepath.Join("folder with blanks", "c")
	if err := os.Mkdir(filepath.Dir(brace), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, brace, "c\r\n")
	for text, want := range map[string]string{
		``:                          "",
		`constant`:                  "constant",
		" \ttaken as it is\n":       " \ttaken as it is\n",
		`{env.SMAPI_TEST_A}`:        "a",
		`x{env.SMAPI_TEST_A}y`:      "xay",
		`{file.b}`:                  "b{env.SMAPI_TEST_A}",
		`{file../b}{file.b}`:        "b{env.SMAPI_TEST_A}b{env.SMAPI_TEST_A}",
		`{file.b}{file.b}`:          "b{env.SMAPI_TEST_A}b{env.SMAPI_TEST_A}",
		`x{file.` + brace + `}y`:    "xcy",
		`\{file.b\}`:                "{file.b}",
		`{`:                         "{",
		`a{file.b`:                  "a{file.b",
		`}{file.` + brace + `}\}\{`: "}c}{",
	} {
		v, err := Text(Config{}, text, environment)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		v.Close()
		if got := v.Get(); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
}

func TestATextWithoutAFileIsConstant(t *testing.T) {
	t.Setenv("SMAPI_TEST_A", "a")
	for _, text := range []string{"", "x", "{env.SMAPI_TEST_A}", `\{file.x\}`, "{file.x"} {
		v, err := Text(Config{Field: "header X"}, text, environment)
		if err != nil {
			t.Fatal(err)
		}
		if !v.Constant() {
			t.Errorf("%s is not", text)
		}
		v.Close()
	}
}

func TestAPlaceholderWithoutAValueIsAnErrorThatDoesNotQuote(t *testing.T) {
	t.Setenv("SMAPI_TEST_EMPTY", "")
	t.Setenv("SMAPI_TEST_TAB", "marker\tmarker")
	for text, want := range map[string]string{
		"x{env.SMAPI_TEST_EMPTY}marker": "the environment variable SMAPI_TEST_EMPTY is not set, or empty",
		"{env.SMAPI_TEST_TAB}":          "the environment variable SMAPI_TEST_TAB has a tab",
		"{marker}":                      "has a placeholder that is not known",
		"a{marker}b":                    "has a placeholder that is not known",
		"{}":                            "has a placeholder that is not known",
	} {
		if _, err := Text(Config{}, text, environment); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "marker") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzATextIsReadAsCaddyReadsIt(f *testing.F) {
	f.Setenv("A", "a")
	for _, text := range []string{"", "x", "{env.A}", `\{env.A\}`, `\\{env.A}`, `{env.A\}`, `{env.A\}}`, `{\}`, "{{env.A}}", "}{", "{env.A", "{}", `{env.A}\`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "time.") || strings.Contains(text, "file.") || strings.Count(text, "{") > 100 {
			return // which are different at any time, or on purpose
		}
		want, wantErr := caddy.NewReplacer().ReplaceOrErr(text, true, true)
		v, err := Text(Config{}, text, environment)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("%v, Caddy says %v", err, wantErr)
		}
		if err == nil && v.Get() != want {
			t.Errorf("%q, Caddy says %q", v.Get(), want)
		}
	})
}
