package flow

import (
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

func TestAnAccountIsMadeOnceUnlessAFileMayChangeIt(t *testing.T) {
	text := "one"
	templates := map[string]exchange.Template{
		"username": {{Placeholder: "smapi.username"}}, "password": {{Text: func() string { return text }}},
	}
	opened := &vault.Opened{Fields: map[string]string{"smapi.username": "ella", "smapi.password": "12345"}}
	o := NewOldService(smapi.SessionID, templates, 0)
	before := o.account(opened)
	if text = "two"; before.Password != "one" || o.account(opened).Password != "two" || o.account(opened).Digest == before.Digest {
		t.Errorf("%+v became %+v", before, o.account(opened))
	}
	templates["password"] = exchange.Template{{Placeholder: "smapi.password"}}
	o = NewOldService(smapi.SessionID, templates, 0)
	if a := o.account(opened); a.Password != "12345" || o.account(opened) != a {
		t.Errorf("%+v is made twice", a)
	}
	if other := NewOldService(smapi.Anonymous, nil, 0); other.account(opened).Kind != smapi.Anonymous {
		t.Error("after a reload the account is as it was")
	}
}
