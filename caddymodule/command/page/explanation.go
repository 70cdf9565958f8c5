package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/capture"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Explanation prints what explain says of a request.
func Explanation(p *Page, x *diagnose.Explanation) {
	printRequest(p, &x.Request)
	for _, note := range x.Notes {
		p.Wrapped("  ", "! ", note)
	}
	for i := range x.Handlers {
		fmt.Fprintln(p)
		printExplained(p, &x.Handlers[i])
	}
}

func printRequest(p *Page, f *capture.Facts) {
	fmt.Fprintf(p, "%s: %s with a body of %d bytes\n", strings.ToUpper(f.Kind[:1])+f.Kind[1:], f.Method, f.BodyBytes)
	for _, h := range f.Deciding {
		p.Wrapped("  ", "", h.Name+": "+h.Value)
	}
}

func printHandler(p *Page, f *diagnose.HandlerFacts) {
	title := cmp.Or(f.Endpoint, "smapi_upgrade without a token endpoint")
	if f.At == "" {
		title = "smapi_upgrade with the defaults"
	}
	if f.ClientID != "" {
		title += " as " + f.ClientID
	}
	fmt.Fprintln(p, title)
	if f.At != "" {
		fmt.Fprintf(p, "  at %s\n", strings.TrimPrefix(f.At, "apps/http/servers/"))
	}
	for _, m := range f.Matches {
		p.Wrapped("  ", "for ", m)
	}
	for _, note := range f.Notes {
		p.Wrapped("  ", "! ", note)
	}
}

func printExplained(p *Page, x *diagnose.Explained) {
	printHandler(p, &x.HandlerFacts)
	step := p.steps()
	var methods []string
	for _, m := range x.LookedFor {
		if m != smapi.Poll { // which is a getDeviceAuthToken
			methods = append(methods, string(m))
		}
	}
	if !x.HeadersAllow {
		step("method and headers", "They rule out a call: "+x.Forwarded+".")
		step("body", "Nothing of it is read.")
		printVerdict(p, x)
		return
	}
	step("method and headers", "They allow a call of "+strings.Join(methods, " or ")+".")
	step("body", fmt.Sprintf("%d bytes of it are read to find out (%d at most).", x.BytesRead, smapi.MaxBody))
	if x.Call == nil {
		if x.Ambiguous {
			step("call", "It looks like one, but is malformed or can be understood in more than one way: "+x.Forwarded+". Only what every reader understands in the same way is answered.")
		} else {
			step("call", "It is none: "+x.Forwarded+".")
		}
		printVerdict(p, x)
		return
	}
	step("call", "")
	printCall(p, x.Call)
	step("decision", x.Rule+".")
	if x.Exchange != nil {
		step("exchange", "")
		printExchange(p, x.Exchange)
	}
	if len(x.Told) > 0 {
		step("answer", "")
		printTold(p, x)
	}
	printVerdict(p, x)
}

func printVerdict(p *Page, x *diagnose.Explained) {
	verdict := "It would be answered here."
	switch {
	case x.Observed:
		verdict = "It would be forwarded, as mode observe does with every call. In mode upgrade it would be answered as above."
	case !x.Answered:
		verdict = "It would be forwarded."
	}
	fmt.Fprintln(p)
	p.Wrapped("  ", "=> ", strings.TrimSpace(verdict+" "+x.Hint))
}

func printCall(p *Page, f *capture.CallFacts) {
	method := string(f.Method)
	if f.Method == smapi.GetDeviceAuthToken {
		method += " without linkCode: an upgrade call"
	}
	if f.Method == smapi.Poll {
		method = "getDeviceAuthToken with linkCode: a poll"
	}
	for _, line := range []struct{ name, value string }{
		{"method", method}, {"householdId", f.HouseholdID}, {"credentials", string(f.Credentials)},
		{"  username", f.Username}, {"  password", f.Password}, {"  sessionId", f.SessionID},
		{"  token", f.Token}, {"  key", f.Key},
		{"deviceId", f.DeviceID}, {"deviceProvider", f.DeviceProvider},
	} {
		if line.value != "" {
			fmt.Fprintf(p, "     %-16s %s\n", line.name, line.value)
		}
	}
}

func printExchange(p *Page, f *diagnose.ExchangeFacts) {
	endpoint := "token"
	if f.Device {
		endpoint = "device authorization"
	}
	p.Wrapped("     ", "", "One POST to the "+endpoint+" endpoint, with the form")
	for _, param := range f.Params {
		fmt.Fprintf(p, "       %-22s %s\n", param.Name, param.Value)
	}
	p.Wrapped("     ", "", "and the headers "+strings.Join(f.Headers, ", ")+".")
	if len(f.LeftOut) > 0 {
		p.Wrapped("     ", "", "Left out, because they are empty here: "+strings.Join(f.LeftOut, ", ")+
			". (The player's address, for one, is not in a capture.)")
	}
}

func printTold(p *Page, x *diagnose.Explained) {
	if x.Exchange == nil {
		t := x.Told[0]
		p.Wrapped("     ", "", fmt.Sprintf("%s: the player gets %s: %s.", t.Outcome, t.Player, t.Then))
		return
	}
	const row = "     %-30s %-15s %s\n"
	endpoint := "of the token endpoint"
	if x.Exchange.Device {
		endpoint = "of the endpoint"
	}
	fmt.Fprintf(p, row, endpoint, "outcome", "the player gets")
	var players []string
	then := map[string]string{}
	for _, t := range x.Told {
		fmt.Fprintf(p, row, t.Answer, t.Outcome, t.Player)
		if then[t.Player] == "" {
			players = append(players, t.Player)
			then[t.Player] = t.Then
		}
	}
	fmt.Fprintln(p)
	for _, player := range players {
		fmt.Fprintf(p, "     %-30s %s\n", player, then[player])
	}
	if names := slices.Sorted(maps.Keys(x.Exchange.OnError)); len(names) > 0 {
		for i, name := range names {
			names[i] += " " + string(x.Exchange.OnError[name])
		}
		fmt.Fprintln(p)
		p.Wrapped("     ", "on_error: ", strings.Join(names, ", "))
	}
}
