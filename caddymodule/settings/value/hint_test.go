package value

import "testing"

func TestOnlyWhatIsANumberOrAPlainWordIsShown(t *testing.T) {
	for text, want := range map[string]string{
		"25s": " (it is 25s)", "-1": " (it is -1)", "101%": " (it is 101%)", "15sec": " (it is 15sec)", "1h30m": " (it is 1h30m)", "4 10s": " (it is 4 10s)", "0,5%": " (it is 0,5%)",
		"hunter2": "", "s3cret": "", "1a2b3c4d": "", "123456-abc": "", "12345678901234567890": "", "5 minutes or so": "", "": "", "4 hunter2": "", "{env.X}": "",
	} {
		if got := Shown(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	for text, want := range map[string]string{"dry": ` (it is "dry")`, "not-linked": ` (it is "not-linked")`, "hunter2": "", "correct horse": "", "{env.X}": "", "aaaaaaaaaaaaaaaaaaaa": ""} {
		if got := ShownWord(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestAMisspelledNameIsFound(t *testing.T) {
	known := []string{"upgrade", "reauthorize", "observe", "forget_after", "show_link_code", "client_id", "client_secret", "on"}
	for text, want := range map[string]string{
		"obsrve": "observe", "observed": "observe", "Observe": "observe", "upgarde": "upgrade", "forget": "forget_after", "forget-afetr": "forget_after",
		"clientid": "client_id", "reauth": "reauthorize", "show_code": "", "client": "", "off": "", "hunter2": "", "": "",
	} {
		if got := Similar(text, known...); got != want {
			t.Errorf("%q is taken for %q", text, got)
		}
	}
}
