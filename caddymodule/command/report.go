package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
)

var verdicts = map[diagnose.State]string{
	diagnose.Well:    "All is well.",
	diagnose.Fix:     "The exchange works, but there is something to fix.",
	diagnose.Problem: "It would not work for players.",
}

func printReport(w io.Writer, r *diagnose.Report, inColor bool) {
	for i, h := range r.Handlers {
		if i > 0 {
			fmt.Fprintln(w)
		}
		printHandler(w, &h.HandlerFacts)
		fmt.Fprintln(w)
		for i := range h.Checks {
			printFinding(w, &h.Checks[i], inColor)
		}
	}
	fmt.Fprintf(w, "\n%s\n", verdicts[r.State])
}

func printFinding(w io.Writer, f *diagnose.Finding, inColor bool) {
	says := f.Says
	if f.Fix != "" {
		says += ". To fix it: " + f.Fix
	}
	var text strings.Builder
	wrapped(&text, "  ", fmt.Sprintf("%-8s %-18s ", f.State, f.Check), says)
	line := text.String()
	if inColor {
		line = strings.Replace(line, string(f.State), colors[f.State].of(string(f.State)), 1)
	}
	_, _ = io.WriteString(w, line)
}

var colors = map[diagnose.State]color{diagnose.Well: green, diagnose.Fix: yellow, diagnose.Problem: red}
