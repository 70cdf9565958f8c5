package account

import (
	"fmt"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

func TestAccountsAreReadOneToALine(t *testing.T) {
	const text = "\ufeff# my accounts\r\n\nuser\tpassword\r\n \t \n  spaces  \t # \n#user\tpassword\nü\t音\"<"
	accounts, err := Read(strings.NewReader(text), smapi.Login)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, a := range accounts {
		got += fmt.Sprintf("%s:%q:%q ", a.Kind, a.Username, a.Password)
	}
	if want := `login:"user":"password" login:"  spaces  ":" # " login:"ü":"音\"<" `; got != want {
		t.Errorf("read as %s, want %s", got, want)
	}
	accounts, err = Read(strings.NewReader("a session id\n"), smapi.SessionID)
	if err != nil || len(accounts) != 1 || accounts[0].SessionID != "a session id" {
		t.Errorf("sessions read as %v, %v", accounts, err)
	}
	accounts, err = Read(strings.NewReader("token\tkey\n"), smapi.LoginToken)
	if err != nil || len(accounts) != 1 || accounts[0].Token != "token" || accounts[0].Key != "key" {
		t.Errorf("tokens read as %v, %v", accounts, err)
	}
}

func TestAMalformedLineIsToldByItsNumberAndNotQuoted(t *testing.T) {
	for line, kind := range map[string]smapi.Kind{
		"secret":                              smapi.Login,
		"secret:secret":                       smapi.Login,
		"secret\tsecret\tsecret":              smapi.Login,
		"secret\t":                            smapi.Login,
		"\tsecret":                            smapi.Login,
		"secret\tsecret\x00":                  smapi.Login,
		"secret\tsec\rret":                    smapi.Login,
		"secret\tsecret\xff":                  smapi.Login,
		"secret\tsecret\ufffe":                smapi.Login,
		"s\t" + strings.Repeat("secret", 400): smapi.Login,
		strings.Repeat("secret", 20000):       smapi.Login,
		"secret\tsecret2":                     smapi.SessionID,
		"secret2":                             smapi.LoginToken,
	} {
		accounts, err := Read(strings.NewReader("# one\n\n"+line+"\n"), kind)
		if accounts != nil || err == nil || !strings.HasPrefix(err.Error(), "line 3 ") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.20q: %v, %v", line, accounts, err)
		}
	}
}
