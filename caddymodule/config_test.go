package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

var update = flag.Bool("update", false, "write the recorded results of testdata anew")

// recorded compares got with a file.
func recorded(t *testing.T, got []byte, path string) {
	t.Helper()
	got = append(bytes.TrimSpace(got), '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", path, got, want)
	}
}

func caddyfiles(t *testing.T, folder string, test func(t *testing.T, text []byte, base string)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(caddytest.Testdata, folder, "*.caddyfile"))
	if err != nil || len(files) == 0 {
		t.Fatal("no Caddyfiles", err)
	}
	for _, path := range files {
		base := strings.TrimSuffix(path, ".caddyfile")
		t.Run(filepath.Base(base), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			test(t, text, base)
		})
	}
}

func TestACaddyfileSaysWhatItsJSONSays(t *testing.T) {
	caddyfiles(t, "adapt", func(t *testing.T, text []byte, base string) {
		if formatted := caddyfile.Format(text); !bytes.Equal(formatted, text) {
			t.Errorf("caddy fmt would make it\n%s", formatted)
		}
		config, err := caddytest.Adapt(string(text))
		if err != nil {
			t.Fatal(err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, config, "", "\t"); err != nil {
			t.Fatal(err)
		}
		recorded(t, indented.Bytes(), base+".json")
	})
}

func TestAMistakeInACaddyfileIsReportedWithItsLine(t *testing.T) {
	caddyfiles(t, "mistakes", func(t *testing.T, text []byte, base string) {
		_, err := caddytest.Adapt(string(text))
		if err == nil {
			t.Fatal("no error")
		}
		if !regexp.MustCompile(`(at |^)Caddyfile:\d+`).MatchString(err.Error()) {
			t.Errorf("no line in: %v", err)
		}
		if strings.Contains(err.Error(), "marker") {
			t.Errorf("a secret in: %v", err)
		}
		recorded(t, []byte(err.Error()), base+".txt")
	})
}

// provision loads a handler's JSON as Caddy does for caddy validate.
func provision(t *testing.T, handler string) error {
	t.Helper()
	return caddy.Validate(&caddy.Config{
		Admin: &caddy.AdminConfig{Disabled: true},
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{
			WriterRaw: json.RawMessage(`{"output":"discard"}`),
		}}}},
		AppsRaw: caddy.ModuleMap{"http": json.RawMessage(fmt.Sprintf(
			`{"servers":{"srv0":{"listen":["127.0.0.1:0"],"routes":[{"handle":[%s]}]}}}`, handler))},
	})
}

func handlerJSON(more string) string {
	return `{"handler":"smapi_upgrade","token_endpoint":"https://auth.example.com/token","client_id":"sonos","client_secret":"s"` + more + `}`
}

func TestJSONLoads(t *testing.T) {
	t.Setenv("SMAPI_TEST", "value")
	for _, more := range []string{
		``,
		`,"client_auth":"post","scope":["a","b"],"param":{"audience":["x"]},"timeout":"20s","max_in_flight":1`,
		`,"auth_token":"{env.SMAPI_TEST}","private_key":"key","private_key_fallback":"none","on_rejected":"not_linked"`,
		`,"transport":{"protocol":"http","dial_timeout":"1s","tls":{}}`,
	} {
		if err := provision(t, handlerJSON(more)); err != nil {
			t.Errorf("%s: %v", more, err)
		}
	}
}

func TestAMistakeInJSONIsReportedWithItsField(t *testing.T) {
	t.Setenv("SMAPI_TEST_EMPTY", "")
	t.Setenv("SMAPI_TEST_LINES", "marker\nmarker")
	replace := func(old, new string) string { return strings.Replace(handlerJSON(""), old, new, 1) }
	for handler, want := range map[string]string{
		handlerJSON(`,"unknown":1`):                                                                      `unknown field "unknown"`,
		handlerJSON(`,"tiemout":"15s"`):                                                                  `unknown field "tiemout"; did you mean timeout?`,
		handlerJSON(`,"vault":{"key_file":"x","forget":"30d"}`):                                          `vault: unknown field "forget"; did you mean forget_after?`,
		handlerJSON(`,"exchange":[{"credential":"login"}]`):                                              `exchange: unknown field "credential"; did you mean credentials?`,
		handlerJSON(`,"sign_in":{"user":"sub"}`):                                                         `sign_in: unknown field "user"; did you mean user_id?`,
		handlerJSON(`,"old_service":{"pasword":"marker"}`):                                               `old_service: unknown field "pasword"; did you mean password?`,
		handlerJSON(`,"mode":"obsrve"`):                                                                  "mode: has to be one of upgrade, reauthorize, observe; did you mean observe?",
		handlerJSON(`,"mode":"marker-1"`):                                                                "mode: has to be one of upgrade, reauthorize, observe",
		handlerJSON(`,"timeout":"21s"`):                                                                  "when players give up (it is 21s)",
		handlerJSON(`,"timeout":"15sec"`):                                                                "timeout: must be a duration, such as 15s (it is 15sec)",
		handlerJSON(`,"timeout":"marker1"`):                                                              "timeout: must be a duration, such as 15s",
		handlerJSON(`,"replay":"11m"`):                                                                   "replay: has to be off, or a duration of more than 0 and at most 10m, such as 60s (it is 11m",
		handlerJSON(`,"fuse":"marker"`):                                                                  "fuse: must be off, or a percentage from 1% to 100%",
		handlerJSON(`,"failed_logins":"4"`):                                                              "such as 4 30m (it is 4)",
		handlerJSON(`,"max_in_flight":"64"`):                                                             "max_in_flight: is of type string in JSON, and has to be a number (it is 64)",
		handlerJSON(`,"scope":"marker"`):                                                                 "scope: is of type string in JSON, and has to be an array",
		handlerJSON(`,"client_id":12345`):                                                                "client_id: is of type number in JSON, and has to be a string",
		replace(`"https://auth.example.com/token"`, `""`):                                                "token_endpoint: is required",
		replace(`https://auth`, `ftp://auth`):                                                            "token_endpoint: is no absolute",
		replace(`https://auth.example.com`, `https://`):                                                  "token_endpoint: is no absolute",
		replace(`https://auth.example.com/token`, `%zz`):                                                 "token_endpoint: is no absolute",
		replace(`https://auth`, `https://marker@auth`):                                                   "token_endpoint: has a user",
		replace(`https://auth`, `http://auth`):                                                           "token_endpoint: is http beyond loopback",
		replace(`https://auth`, `{env.SMAPI_TEST_EMPTY}`):                                                "token_endpoint: the environment variable SMAPI_TEST_EMPTY is not set",
		handlerJSON(`,"on_error":{"0403":"rejected"}`):                                                   "on_error: needs an OAuth error",
		handlerJSON(`,"on_error":{"+403":"rejected"}`):                                                   "on_error: needs an OAuth error",
		handlerJSON(`,"on_error":{" invalid_grant":"rejected"}`):                                         "on_error: needs an OAuth error",
		handlerJSON(`,"on_error":{"":"rejected"}`):                                                       "on_error: needs an OAuth error",
		handlerJSON(`,"header":{"X":["a\nb"]}`):                                                          "header: has a value that no header can have",
		handlerJSON(`,"header":{"authorization":["marker"]}`):                                            "header: the header Authorization is set by client_auth basic",
		handlerJSON(`,"param":{"x":["{smapi.household_id"]}`):                                            "param: has a placeholder without its closing brace",
		handlerJSON(`,"param":{"x":["{env.X"]}`):                                                         "param: has a placeholder without its closing brace",
		handlerJSON(`,"param":{"x":["{env.SMAPI_TEST_LINES}"]}`):                                         "param: the environment variable SMAPI_TEST_LINES has a tab, a line end",
		handlerJSON(`,"header":{"X":["marker {file./x"]}`):                                               "header: has a placeholder without its closing brace",
		replace(`"s"`, `"marker{env.X"`):                                                                 "client_secret: has a placeholder without its closing brace",
		replace(`"sonos"`, `"{env.SMAPI_TEST_LINES}"`):                                                   "client_id: the environment variable SMAPI_TEST_LINES has a tab, a line end",
		handlerJSON(`,"exchange":[{}]`):                                                                  "exchange: needs the kind of credentials",
		handlerJSON(`,"exchange":[{"credentials":"login"},{"credentials":"login"}]`):                     "exchange login: is given twice",
		handlerJSON(`,"exchange":[{"credentials":"session_id","grant_type":"urn:x"}]`):                   "exchange session_id: no param of it",
		handlerJSON(`,"mode":"dry"`):                                                                     "mode: has to be one of upgrade, reauthorize, observe (it is \"dry\")",
		handlerJSON(`,"issuer":"https://auth.example.com"`):                                              "issuer: cannot be combined with token_endpoint",
		handlerJSON(`,"households":"101%"`):                                                              "has to be a percentage",
		handlerJSON(`,"refresh_auth_tokens":true,"private_key":"x"`):                                     "refresh_auth_tokens: needs private_key",
		replace(`"client_secret":"s"`, `"client_auth":"private_key_jwt","client_key":"/nowhere/at/all"`): "client_key: the file /nowhere/at/all cannot be read",
		replace(`"client_secret":"s"`, `"client_auth":"tls"`):                                            "client_auth: tls needs a client certificate",
		replace(`"sonos"`, `""`):                                                                         "client_id: is required",
		replace(`"sonos"`, `"{env.SMAPI_TEST_EMPTY}"`):                                                   "client_id: the environment variable SMAPI_TEST_EMPTY is not set",
		replace(`"s"`, `""`):                                                                             "client_secret: is required",
		replace(`"s"`, `"{marker}"`):                                                                     "client_secret: has a placeholder that is not known",
		replace(`"s"`, `"{env.SMAPI_TEST_EMPTY}"`):                                                       "client_secret: the environment variable SMAPI_TEST_EMPTY is not set",
		replace(`"s"`, `"{file./nowhere/at/all}"`):                                                       "client_secret: the file /nowhere/at/all cannot be read",
		replace(`"s"`, `"a{marker}b"`):                                                                   "client_secret: has a placeholder",
		handlerJSON(`,"client_auth":"digest"`):                                                           "client_auth: has to be one of basic, basic_raw, post, private_key_jwt, tls, none",
		handlerJSON(`,"form_charset":"ISO-8859-1"`):                                                      "form_charset: must be utf-8",
		handlerJSON(`,"client_auth":"none"`):                                                             "client_secret: is not used",
		handlerJSON(`,"timeout":"20001ms"`):                                                              "timeout: has to be at least 10ms, and at most 20s",
		handlerJSON(`,"timeout":-1`):                                                                     "timeout: has to be at least 10ms",
		handlerJSON(`,"timeout":15`):                                                                     "timeout: has to be at least 10ms",
		handlerJSON(`,"scope":[""]`):                                                                     "scope: is required",
		handlerJSON(`,"scope":["a\nb"]`):                                                                 "scope: has a character",
		replace(`example.com/`, `example.com:99999/`):                                                    "token_endpoint: is no absolute",
		replace(`https://auth.example.com`, `http://auth.localhost`):                                     "token_endpoint: is http beyond loopback",
		handlerJSON(`,"transport":{"protocol":"http","network_proxy":{"from":"url","url":"http://u:marker@ho st"}}`): "transport: cannot be set up with its proxy",
		handlerJSON(`,"max_in_flight":-1`):                                    "max_in_flight: has to be at least 1",
		handlerJSON(`,"param":{"password":["x"]}`):                            `param: "password" cannot be set`,
		handlerJSON(`,"on_rejected":"blank"`):                                 "on_rejected: has to be one of reauthorize, not_linked",
		handlerJSON(`,"private_key_fallback":" "`):                            "private_key: its fallback: the token is blank",
		handlerJSON(`,"transport":{"protocol":"fastcgi"}`):                    "transport: only the http transport",
		handlerJSON(`,"transport":{"protocol":"http","x":1}`):                 "transport: loading",
		handlerJSON(`,"transport":{"protocol":"http","proxy_protocol":"v1"}`): "transport: proxy_protocol",
		strings.Replace(handlerJSON(`,"transport":{"protocol":"http","tls":{}}`),
			"https://auth.example.com", "http://localhost", 1): "transport: is set up for TLS",
	} {
		err := provision(t, handler)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", handler, err, want)
		} else if strings.Contains(err.Error(), "marker") {
			t.Errorf("%s: a secret in: %v", handler, err)
		}
	}
}

func TestHTTPIsAllowedOnLoopbackAndOnDemand(t *testing.T) {
	for host, more := range map[string]string{
		"localhost:1": "", "127.0.0.1": "", "127.8.9.10:80": "", "[::1]:1": "",
		"auth.example.com": `,"insecure_http":true`,
	} {
		if err := provision(t, strings.Replace(handlerJSON(more), "https://auth.example.com", "http://"+host, 1)); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// validate checks a Caddyfile as caddy validate and caddy fmt do.
func validate(t *testing.T, text []byte) {
	t.Helper()
	if formatted := caddyfile.Format(text); !bytes.Equal(bytes.TrimSpace(formatted), bytes.TrimSpace(text)) {
		t.Errorf("caddy fmt would make it\n%s", formatted)
	}
	config, err := caddytest.Adapt(string(text))
	if err != nil {
		t.Errorf("%v in\n%s", err, text)
		return
	}
	var c caddy.Config
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	c.Admin = &caddy.AdminConfig{Disabled: true}
	if err := caddy.Validate(&c); err != nil {
		t.Errorf("%v in\n%s", err, text)
	}
}

// documented are the texts with Caddyfiles that a newcomer starts with.
func documented(t *testing.T) map[string][]byte {
	t.Helper()
	t.Chdir("..") // where Caddyfile.example expects to be tried
	t.Setenv("SMAPI_CLIENT_SECRET", "secret")
	key := filepath.Join(t.TempDir(), "key.pem")
	_, text := caddytest.NewKey(t)
	caddytest.Write(t, key, text)
	t.Setenv("SMAPI_CLIENT_KEY", key)
	files, err := filepath.Glob("docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal("no docs", err)
	}
	texts := map[string][]byte{}
	for _, file := range append(files, "README.md", "CONTRIBUTING.md", "SECURITY.md", "Caddyfile.example") {
		if texts[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return texts
}

func TestTheDocumentedCaddyfilesAreValid(t *testing.T) {
	found, keys := 0, caddytest.VaultFile(t)
	for file, text := range documented(t) {
		if file == "Caddyfile.example" {
			validate(t, text)
			continue
		}
		blocks := regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllSubmatch(text, -1)
		for _, block := range blocks {
			validate(t, []byte(strings.ReplaceAll(withoutOtherModules(string(block[1])), "/etc/caddy/vault.json", keys)))
		}
		found += len(blocks)
	}
	if found < 10 {
		t.Errorf("%d Caddyfiles", found)
	}
}

// Each section of the example that is commented out is one step or one way into OAuth.
func TestEverySectionOfTheExampleIsValid(t *testing.T) {
	example := string(documented(t)["Caddyfile.example"])
	sections := regexp.MustCompile(`(?m)(^\t\t#\t.*\n)+`).FindAllString(example, -1)
	t.Setenv("SMAPI_VAULT_KEYS", caddytest.VaultFile(t))
	if len(sections) != 9 {
		t.Fatalf("%d sections", len(sections))
	}
	uncommented := func(section string) string { return strings.ReplaceAll(section, "\t\t#\t", "\t\t") }
	everything := example
	for _, section := range sections {
		config := strings.Replace(example, section, uncommented(section), 1)
		if strings.Contains(section, "old_service") {
			config = strings.Replace(config, "#\tvault", "vault", 1)
		}
		if strings.Contains(section, "vault") || strings.Contains(section, "old_service") {
			config = strings.Replace(config, "#\trefresh_auth_tokens", "refresh_auth_tokens", 1)
		}
		validate(t, []byte(config))
		if !strings.Contains(section, "observe") { // which upgrades nobody
			everything = strings.Replace(everything, section, uncommented(section), 1)
		}
	}
	validate(t, []byte(everything))
}

// A link to nowhere is a step that cannot be taken.
func TestTheLinksInTheDocumentsLeadSomewhere(t *testing.T) {
	anchor := regexp.MustCompile(`[^a-z0-9 _-]`)
	texts := documented(t)
	for file, text := range texts {
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllSubmatch(text, -1) {
			target, fragment, _ := strings.Cut(string(link[1]), "#")
			if strings.Contains(target, "://") {
				continue
			}
			if target != "" {
				target = filepath.Join(filepath.Dir(file), target)
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			} else {
				target = file
			}
			if fragment == "" {
				continue
			}
			found := false
			for _, title := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(texts[target], -1) {
				id := strings.ReplaceAll(anchor.ReplaceAllString(strings.ToLower(string(title[1])), ""), " ", "-")
				found = found || id == fragment
			}
			if !found {
				t.Errorf("%s: no title for #%s in %s", file, fragment, target)
			}
		}
	}
}

func TestTheSmallestJSONIsTheREADMEsCaddyfile(t *testing.T) {
	texts := documented(t)
	block := func(file, kind string) []byte {
		found := regexp.MustCompile("(?s)```" + kind + "\n(.*?)```").FindSubmatch(texts[file])
		if found == nil {
			t.Fatal("no ", kind)
		}
		return found[1]
	}
	var documented bytes.Buffer
	if err := json.Compact(&documented, block("docs/options.md", "json")); err != nil {
		t.Fatal(err)
	}
	config, err := caddytest.Adapt(string(block("README.md", "caddyfile")))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(config, documented.Bytes()) {
		t.Errorf("the Caddyfile is %s, the JSON is %s", config, &documented)
	}
}

// With its defaults the example validates, and would upgrade nobody.
func TestTheExampleSaysThatItIsOne(t *testing.T) {
	old := caddytest.OldService(t)
	for lines, want := range map[string]bool{
		"smapi_upgrade https://auth.example.com/oauth2/token {\nclient_id a\nclient_secret {env.HOME}\n}":            true,
		"smapi_upgrade {\nissuer https://auth.example.com\nclient_id a\nclient_secret {env.HOME}\n}":                 true,
		"smapi_upgrade https://auth.invalid/token {\nclient_id a\nclient_secret {file.../testdata/client_secret}\n}": true,
		"smapi_upgrade https://auth.invalid/token {\nclient_id a\nclient_secret {env.HOME}\n}":                       false,
		"smapi_upgrade https://auth.example.company/token {\nclient_id a\nclient_secret {env.HOME}\n}":               false,
	} {
		s := caddytest.Run(t, lines+"\nreverse_proxy "+old.URL)
		if got := strings.Contains(s.Log(t), "is still that of the example"); got != want {
			t.Errorf("%s: warned %v", lines, got)
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}
