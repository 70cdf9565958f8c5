package caddymodule

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

func (x explanation) print(w io.Writer) {
	x.Request.print(w)
	for _, note := range x.Notes {
		wrapped(w, "  ", "! ", note)
	}
	for _, h := range x.Handlers {
		fmt.Fprintln(w)
		h.print(w)
	}
}

func (f handlerFacts) print(w io.Writer) {
	title := cmp.Or(f.Endpoint, "smapi_upgrade without a token endpoint")
	if f.At == "" {
		title = "smapi_upgrade with the defaults"
	}
	if f.ClientID != "" {
		title += " as " + f.ClientID
	}
	fmt.Fprintln(w, title)
	if f.At != "" {
		fmt.Fprintf(w, "  at %s\n", strings.TrimPrefix(f.At, "apps/http/servers/"))
	}
	for _, m := range f.Matches {
		wrapped(w, "  ", "for ", m)
	}
	for _, note := range f.Notes {
		wrapped(w, "  ", "! ", note)
	}
}

func (x *explained) print(w io.Writer) {
	x.handlerFacts.print(w)
	step := steps(w)
	var methods []string
	for _, m := range x.LookedFor {
		methods = append(methods, string(m))
	}
	if !x.HeadersAllow {
		step("method and headers", "They rule out a call: "+x.Forwarded+".")
		step("body", "Nothing of it is read.")
		x.printVerdict(w)
		return
	}
	step("method and headers", "They allow a call of "+strings.Join(methods, " or ")+".")
	step("body", fmt.Sprintf("%d bytes of it are read to find out (%d at most).", x.BytesRead, smapi.MaxBody))
	if x.Call == nil {
		if x.Ambiguous {
			step("call", "It resembles one, but is malformed or can be understood in more than one way: "+x.Forwarded+". Only what every reader understands in the same way is answered.")
		} else {
			step("call", "It is none: "+x.Forwarded+".")
		}
		x.printVerdict(w)
		return
	}
	step("call", "")
	x.Call.print(w)
	step("decision", x.Rule+".")
	if x.Exchange != nil {
		step("exchange", "")
		x.Exchange.print(w)
	}
	if len(x.Told) > 0 {
		step("answer", "")
		x.printTold(w)
	}
	x.printVerdict(w)
}

// steps prints numbered steps.
func steps(w io.Writer) func(title, text string) {
	n := 0
	return func(title, text string) {
		n++
		fmt.Fprintf(w, "\n  %d. %s\n", n, title)
		if text != "" {
			wrapped(w, "     ", "", text)
		}
	}
}

func (x *explained) printVerdict(w io.Writer) {
	verdict := "It would be answered here."
	switch {
	case x.Observed:
		verdict = "It would be forwarded, as mode observe does with every call. In mode upgrade it would be answered as above."
	case !x.Answered:
		verdict = "It would be forwarded."
	}
	fmt.Fprintln(w)
	wrapped(w, "  ", "=> ", strings.TrimSpace(verdict+" "+x.Hint))
}

func (f *callFacts) print(w io.Writer) {
	method := string(f.Method)
	if f.Method == smapi.GetDeviceAuthToken {
		method += " without linkCode: an upgrade call"
	}
	for _, line := range []named{
		{"method", method}, {"householdId", f.HouseholdID}, {"credentials", string(f.Credentials)},
		{"  username", f.Username}, {"  password", f.Password}, {"  sessionId", f.SessionID},
		{"  token", f.Token}, {"  key", f.Key},
		{"deviceId", f.DeviceID}, {"deviceProvider", f.DeviceProvider},
	} {
		if line.Value != "" {
			fmt.Fprintf(w, "     %-16s %s\n", line.Name, line.Value)
		}
	}
}

func (f *exchangeFacts) print(w io.Writer) {
	wrapped(w, "     ", "", "One POST to the token endpoint, with the form")
	for _, p := range f.Params {
		fmt.Fprintf(w, "       %-22s %s\n", p.Name, p.Value)
	}
	wrapped(w, "     ", "", "and the headers "+strings.Join(f.Headers, ", ")+".")
	if len(f.LeftOut) > 0 {
		wrapped(w, "     ", "", "Left out, because they come to nothing here: "+strings.Join(f.LeftOut, ", ")+
			". (The player's address, for one, is not in a capture.)")
	}
}

func (x *explained) printTold(w io.Writer) {
	if x.Exchange == nil {
		t := x.Told[0]
		wrapped(w, "     ", "", fmt.Sprintf("%s: the player gets %s: %s.", t.Outcome, t.Player, t.then))
		return
	}
	const row = "     %-30s %-15s %s\n"
	fmt.Fprintf(w, row, "of the token endpoint", "outcome", "the player gets")
	var players []string
	then := map[string]string{}
	for _, t := range x.Told {
		fmt.Fprintf(w, row, t.Answer, t.Outcome, t.Player)
		if then[t.Player] == "" {
			players = append(players, t.Player)
			then[t.Player] = t.then
		}
	}
	fmt.Fprintln(w)
	for _, player := range players {
		fmt.Fprintf(w, "     %-30s %s\n", player, then[player])
	}
	if names := slices.Sorted(maps.Keys(x.Exchange.OnError)); len(names) > 0 {
		for i, name := range names {
			names[i] += " " + string(x.Exchange.OnError[name])
		}
		fmt.Fprintln(w)
		wrapped(w, "     ", "on_error: ", strings.Join(names, ", "))
	}
}

func capitalized(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// wrapped prints a text in lines of at most 80 columns, where it has blanks. What leads it is not repeated.
func wrapped(w io.Writer, indent, lead, text string) {
	line := indent + lead
	indent += strings.Repeat(" ", len(lead))
	begun := false
	for _, word := range strings.Fields(text) {
		if begun && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 80 {
			fmt.Fprintln(w, line)
			line, begun = indent, false
		}
		if begun {
			line += " "
		}
		line, begun = line+word, true
	}
	fmt.Fprintln(w, line)
}
