// Package page is how the commands print: text in columns, colors, durations, tables, and JSON for programs. What they
// have found out comes as values.
package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"
)

// Page is what a command prints for people. Everything that is printed goes through it. Text that a server has a hand
// in could move the cursor or turn letters round, so that of control characters only line ends get through.
type Page struct {
	Out     io.Writer
	Width   int // in columns, at which Wrapped begins a new line
	InColor bool
}

const defaultWidth = 80

// New is a page for out: where that is a terminal, no wider than it, and in color if that is wanted.
func New(out io.Writer) *Page {
	p := &Page{Out: out, Width: defaultWidth}
	fd, ok := Terminal(out)
	if !ok {
		return p
	}
	if width, _, err := term.GetSize(fd); err == nil && width > 0 {
		p.Width = min(width, defaultWidth)
	}
	p.InColor = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" // https://no-color.org
	return p
}

// Terminal reports whether what is read from or written to is a terminal, and which.
func Terminal(stream any) (fd int, ok bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// Write prints text. A character must not be cut in two by it.
func (p *Page) Write(text []byte) (int, error) {
	if _, err := io.WriteString(p.Out, printable(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// printable shows what does not print, invalid UTF-8 too, as U+FFFD.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsGraphic(r) {
			return r
		}
		return utf8.RuneError
	}, text)
}

// Data is JSON for programs. What printable replaces is escaped there.
func (p *Page) Data(text []byte) error {
	var escaped bytes.Buffer
	for _, r := range string(text) { // in JSON, what has to be escaped stands in strings
		if r == '\n' || r == '\t' || r == '\r' || unicode.IsGraphic(r) {
			escaped.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&escaped, `\u%04x`, unit)
		}
	}
	_, err := p.Out.Write(escaped.Bytes())
	return err
}

// Show prints something as JSON or as text.
func (p *Page) Show(what any, asJSON bool, asText func(*Page)) error {
	if asJSON {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(what); err != nil {
			return err
		}
		return p.Data(text.Bytes())
	}
	var text bytes.Buffer
	asText(&Page{Out: &text, Width: p.Width, InColor: p.InColor})
	_, err := p.Out.Write(text.Bytes())
	return err
}

// Color is an escape sequence of a terminal.
type Color string

const (
	Green  Color = "\x1b[32m"
	Yellow Color = "\x1b[33m"
	Red    Color = "\x1b[31m"
)

// Colored prints text in a color.
func (p *Page) Colored(c Color, text string) {
	if !p.InColor {
		fmt.Fprint(p, text)
		return
	}
	_, _ = io.WriteString(p.Out, string(c)+printable(text)+"\x1b[0m")
}

// Wrapped prints a text in lines that fit, where it has blanks. What leads it is not repeated.
func (p *Page) Wrapped(indent, lead, text string) {
	fmt.Fprint(p, indent+lead)
	p.hang(utf8.RuneCountInString(indent+lead), text)
}

// hang prints a text behind so many columns, and what does not fit there below its beginning.
func (p *Page) hang(column int, text string) {
	at, begun := column, false
	for _, word := range strings.Fields(text) {
		length := utf8.RuneCountInString(word)
		switch {
		case begun && at+1+length > p.Width:
			fmt.Fprint(p, "\n", strings.Repeat(" ", column))
			at = column
		case begun:
			fmt.Fprint(p, " ")
			at++
		}
		fmt.Fprint(p, word)
		at, begun = at+length, true
	}
	fmt.Fprintln(p)
}

// steps prints numbered steps.
func (p *Page) steps() func(title, text string) {
	n := 0
	return func(title, text string) {
		n++
		fmt.Fprintf(p, "\n  %d. %s\n", n, title)
		if text != "" {
			p.Wrapped("     ", "", text)
		}
	}
}
