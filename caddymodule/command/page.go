package command

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

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// page is what a command prints for people. Everything that is printed goes through it. Text that a server has a hand
// in could move the cursor or turn letters round, so that of control characters only line ends get through.
type page struct {
	out     io.Writer
	width   int // in columns
	inColor bool
}

const defaultWidth = 80

// newPage is a page for out: where that is a terminal, no wider than it, and in color if that is wanted.
func newPage(out io.Writer) *page {
	p := &page{out: out, width: defaultWidth}
	fd, ok := terminal(out)
	if !ok {
		return p
	}
	if width, _, err := term.GetSize(fd); err == nil && width > 0 {
		p.width = min(width, defaultWidth)
	}
	p.inColor = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" // https://no-color.org
	return p
}

// terminal reports whether what is read from or written to is a terminal, and which.
func terminal(stream any) (fd int, ok bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// Write prints text. A character must not be cut in two by it.
func (p *page) Write(text []byte) (int, error) {
	if _, err := io.WriteString(p.out, printable(string(text))); err != nil {
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

// data is JSON for programs. What printable replaces is escaped there.
func (p *page) data(text []byte) error {
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
	_, err := p.out.Write(escaped.Bytes())
	return err
}

// show prints something as JSON or as text.
func (p *page) show(what any, asJSON bool, asText func(*page)) error {
	if asJSON {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(what); err != nil {
			return err
		}
		return p.data(text.Bytes())
	}
	var text bytes.Buffer
	asText(&page{out: &text, width: p.width, inColor: p.inColor})
	_, err := p.out.Write(text.Bytes())
	return err
}

// color is an escape sequence of a terminal.
type color string

const (
	green  color = "\x1b[32m"
	yellow color = "\x1b[33m"
	red    color = "\x1b[31m"
)

// colored prints text in a color.
func (p *page) colored(c color, text string) {
	if !p.inColor {
		fmt.Fprint(p, text)
		return
	}
	_, _ = io.WriteString(p.out, string(c)+printable(text)+"\x1b[0m")
}

// wrapped prints a text in lines that fit, where it has blanks. What leads it is not repeated.
func (p *page) wrapped(indent, lead, text string) {
	fmt.Fprint(p, indent+lead)
	p.hang(utf8.RuneCountInString(indent+lead), text)
}

// hang prints a text behind so many columns, and what does not fit there below its beginning.
func (p *page) hang(column int, text string) {
	at, begun := column, false
	for _, word := range strings.Fields(text) {
		length := utf8.RuneCountInString(word)
		switch {
		case begun && at+1+length > p.width:
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
func (p *page) steps() func(title, text string) {
	n := 0
	return func(title, text string) {
		n++
		fmt.Fprintf(p, "\n  %d. %s\n", n, title)
		if text != "" {
			p.wrapped("     ", "", text)
		}
	}
}

// tell prints text to standard error, where a person reads it.
func tell(cmd *cobra.Command, format string, values ...any) {
	fmt.Fprintf(newPage(cmd.ErrOrStderr()), format, values...)
}
