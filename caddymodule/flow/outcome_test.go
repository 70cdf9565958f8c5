package flow

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

func TestEveryOutcomeHasAWholeRow(t *testing.T) {
	names := map[string]bool{}
	for _, o := range Outcomes() {
		r := o.Row()
		if r.Name == "" || names[r.Name] || r.When == "" || r.Gets == "" || r.Reply.Player == "" || r.Reply.Then == "" {
			t.Errorf("%d: %+v", o, r)
		}
		names[r.Name] = true
		text, err := json.Marshal(map[Outcome]int{o: 1})
		var again map[Outcome]int
		if err != nil || json.Unmarshal(text, &again) != nil || again[o] != 1 {
			t.Errorf("%s is %s in JSON, %v", o, text, err)
		}
	}
	if none := (outcomes + 7).Row(); none.Name != "" {
		t.Errorf("what is no outcome is %+v", none)
	}
}

// What cannot be taken back needs a definitive answer: rule 3.
func TestOnlyADefinitiveAnswerSignsAListenerOut(t *testing.T) {
	final := map[Reply]bool{blankPair: true, signInAgain: true, linkAgain: true, linkFailed: true}
	for _, onRejected := range []OnRejected{Reauthorize, NotLinked} {
		p := &Policy{Mode: ModeUpgrade, Households: households.All, OnRejected: onRejected}
		for _, f := range flows {
			for _, class := range []token.Class{token.Unavailable, token.Misconfigured, exchange.NotSent, exchange.AccountGuarded, exchange.InDoubt, "", "one that is not known"} {
				d := Decision{Call: new(smapi.Call), Rule: new(exchange.Rule), flow: f}
				p.Conclude(&d, &exchange.Result{Verdict: token.Verdict{Class: class}})
				if reply := p.Reply(&d); final[reply] {
					t.Errorf("%s, %q: the player gets %s", f.method, class, reply.Player)
				}
			}
			d := Decision{Call: new(smapi.Call), Rule: new(exchange.Rule), flow: f}
			p.Conclude(&d, &exchange.Result{Verdict: token.Verdict{Class: token.Rejected}})
			if d.Outcome != Rejected {
				t.Errorf("%s: a rejection is %s", f.method, d.Outcome)
			}
		}
	}
}

func TestACallOfAMethodWithoutAFlowIsForwarded(t *testing.T) {
	p := &Policy{Mode: ModeUpgrade, Households: households.All, ExpireSessionIDs: true, RefreshAuthTokens: true}
	if d := p.Decide(&smapi.Call{Method: "getMetadata"}); d.Outcome != Forwarded || d.Rule != nil {
		t.Errorf("%+v", d)
	}
}

// The handbook says of each outcome what the table says, in a row of a table of its own.
func TestTheHandbookHasTheTableOfOutcomes(t *testing.T) {
	handbook := document(t, "docs/handbook.md")
	for _, o := range Outcomes() {
		r := o.Row()
		level := r.Level.String()
		if o == Forwarded {
			level = "none"
		}
		row := "| `" + r.Name + "` | " + r.When + " | " + r.Gets + " | " + r.Reply.Then + " | " + level + " | "
		if !strings.Contains(handbook, row) {
			t.Errorf("the handbook lacks\n%s", row)
		}
	}
	_, table, _ := strings.Cut(handbook, "| outcome | when | the player gets |")
	table, _, _ = strings.Cut(table, "\n\n")
	if rows := strings.Count(table, "\n") - 1; rows != len(Outcomes()) {
		t.Errorf("the handbook has %d rows for %d outcomes", rows, len(Outcomes()))
	}
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
