package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// show prints something as JSON or as text.
func show(out io.Writer, what any, asJSON bool, asText func(io.Writer)) error {
	var text bytes.Buffer
	if asJSON {
		encoder := json.NewEncoder(&text)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(what); err != nil {
			return err
		}
	} else {
		asText(&text)
	}
	_, err := out.Write(text.Bytes())
	return err
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

// row is one of a table of counts.
func row(w io.Writer, title, lately, total, history string) {
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-14s %11s %15s   %s", title, lately, total, history), " "))
}

// seconds is a duration as people say it.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Minute:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%.1f s", s)
}

// color is an escape sequence of a terminal.
type color string

const (
	green  color = "\x1b[32m"
	yellow color = "\x1b[33m"
	red    color = "\x1b[31m"
)

func (c color) of(text string) string { return string(c) + text + "\x1b[0m" }

// colored reports whether colors are wanted: https://no-color.org
func colored(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
