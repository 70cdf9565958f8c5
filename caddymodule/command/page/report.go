package page

import (
	"fmt"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
)

var verdicts = map[diagnose.State]string{
	diagnose.Well:    "All is well.",
	diagnose.Fix:     "The exchange works, but there is something to fix.",
	diagnose.Problem: "It would not work for players.",
}

// Report prints what check has found.
func Report(p *Page, r *diagnose.Report) {
	for i, h := range r.Handlers {
		if i > 0 {
			fmt.Fprintln(p)
		}
		printHandler(p, &h.HandlerFacts)
		fmt.Fprintln(p)
		for i := range h.Checks {
			printFinding(p, &h.Checks[i])
		}
	}
	fmt.Fprintf(p, "\n%s\n", verdicts[r.State])
}

var colors = map[diagnose.State]Color{diagnose.Well: Green, diagnose.Fix: Yellow, diagnose.Problem: Red}

func printFinding(p *Page, f *diagnose.Finding) {
	says := f.Says
	if f.Fix != "" {
		says += ". To fix it: " + f.Fix
	}
	fmt.Fprint(p, "  ")
	p.Colored(colors[f.State], string(f.State))
	fmt.Fprintf(p, "%-*s %-18s ", 8-len(f.State), "", f.Check)
	p.hang(30, says)
}
