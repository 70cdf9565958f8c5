package secret

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWhatEditorsAndShellsPutAroundASecretIsNoPartOfIt(t *testing.T) {
	for raw, want := range map[string]struct {
		text, odd string
		err       error
	}{
		"secret":                   {text: "secret"},
		"secret\n":                 {text: "secret"},
		"secret\r\n\r\n":           {text: "secret"},
		"\uFEFFsecret\n":           {text: "secret"},
		"pässwörd 日本 \u0085x":      {text: "pässwörd 日本 \u0085x"},
		"a b":                      {text: "a b"},
		" secret":                  {text: " secret", odd: "begins or ends with a blank"},
		"secret \n":                {text: "secret ", odd: "begins or ends with a blank"},
		`"secret"`:                 {text: `"secret"`, odd: "is in quotes"},
		"'secret'\n":               {text: "'secret'", odd: "is in quotes"},
		`"secret'`:                 {text: `"secret'`},
		`"`:                        {text: `"`},
		"":                         {err: errEmpty},
		"\r\n\n":                   {err: errEmpty},
		"\uFEFF":                   {err: errEmpty},
		"\nsecret":                 {err: errControl},
		"sec\nret":                 {err: errControl},
		"secret\t":                 {err: errControl},
		"sec\x7fret":               {err: errControl},
		"sec\x1bret":               {err: errControl},
		"\xFF\xFEs\x00e\x00\n\x00": {err: errUTF16},
		"\xFE\xFF\x00s\x00e\x00\n": {err: errUTF16},
		"s\x00e\x00":               {err: errUTF16},
		"sec\xE4ret":               {err: errNotUTF8},
	} {
		if text, odd, err := Clean(raw); text != want.text || odd != want.odd || !errors.Is(err, want.err) {
			t.Errorf("%q is %q, which %q, %v", raw, text, odd, err)
		}
	}
}

func TestAKeyMayHaveSeveralLines(t *testing.T) {
	for raw, want := range map[string]struct {
		text string
		err  error
	}{
		"a\n\tb\r\n":    {text: "a\n\tb\r\n"},
		"\uFEFFa\n":     {text: "a\n"},
		"\xFF\xFEa\x00": {err: errUTF16},
		"\xFE\xFF\x00a": {err: errUTF16},
		"a\x00":         {err: errUTF16},
		" \r\n":         {err: errEmpty},
	} {
		if text, err := CleanKey([]byte(raw)); string(text) != want.text || !errors.Is(err, want.err) {
			t.Errorf("%q is %q, %v", raw, text, err)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, raw := range []string{"", "secret\r\n", "\uFEFFsecret", " \"secret\" ", "\xFF\xFEs\x00", "a\tb", "\xE4"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		text, odd, err := Clean(raw)
		switch {
		case err != nil && (text != "" || odd != ""):
			t.Errorf("%q and %v", text, err)
		case err == nil && (text == "" || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\t\r\n") || !strings.Contains(raw, text)):
			t.Errorf("%q is %q", raw, text)
		}
	})
}
