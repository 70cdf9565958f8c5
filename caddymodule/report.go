package caddymodule

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

var verdicts = map[state]string{
	well:    "All is well.",
	mend:    "The exchange works, but there is something to mend.",
	problem: "It would not work for players.",
}

func (r report) print(w io.Writer) {
	for i, h := range r.Handlers {
		if i > 0 {
			fmt.Fprintln(w)
		}
		h.handlerFacts.print(w)
		fmt.Fprintln(w)
		for _, f := range h.Checks {
			f.print(w, r.color)
		}
	}
	fmt.Fprintf(w, "\n%s\n", verdicts[r.State])
}

func (f *finding) print(w io.Writer, color bool) {
	says := f.Says
	if f.Mend != "" {
		says += ". To mend it: " + f.Mend
	}
	var text strings.Builder
	wrapped(&text, "  ", fmt.Sprintf("%-8s %-18s ", f.State, f.Check), says)
	line := text.String()
	if color {
		line = strings.Replace(line, string(f.State), colors[f.State]+string(f.State)+"\x1b[0m", 1)
	}
	_, _ = io.WriteString(w, line)
}

var colors = map[state]string{well: "\x1b[32m", mend: "\x1b[33m", problem: "\x1b[31m"}

// colored tells whether colors are wanted: https://no-color.org
func colored(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
