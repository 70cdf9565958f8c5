package smapi

import (
	"bytes"
	"slices"
	"strconv"
)

// plain is the text of a body as any XML reader may see it, whatever else is wrong with the body and whatever encoding it is in, as
// long as that has ASCII as it is: with its character references resolved, and without comments, processing instructions, and what CDATA
// sections begin and end with. Tags stay, and so do entities, which SOAP allows nobody to declare. The zero value has seen nothing.
type plain struct {
	text    []byte
	pending []byte // may begin something that goes on in what comes next
	until   []byte // ends what is left out or taken as it stands; nil outside of both
	skips   bool   // it is left out
	keeps   bool   // nothing is
	whole   *plain // keeps all, since what seems to begin a comment may not; nil before the first
}

// sections are what does not stand for itself, by how it begins.
var sections = [...]struct {
	begin, end []byte
	skips      bool
}{
	{[]byte("<!--"), []byte("-->"), true},
	{[]byte("<?"), []byte("?>"), true},
	{[]byte("<![CDATA["), []byte("]]>"), false},
}

// has reports whether a token of ours comes with what comes next. It keeps no more than the end of the text.
func (p *plain) has(ours Ours, body []byte) bool {
	p.add(body)
	met := ours(p.text)
	p.text = append(p.text[:0], p.text[max(0, len(p.text)-maxTail):]...)
	return met || p.whole != nil && p.whole.has(ours, nil)
}

// mayEndIn reports whether what was seen may end in the middle of a token of ours. It overwrites goesOn.
func (p *plain) mayEndIn(ours Ours, goesOn []byte) bool {
	return ours.mayEndIn(p.text, goesOn) || p.whole != nil && p.whole.mayEndIn(ours, goesOn)
}

// add takes in what comes next.
func (p *plain) add(body []byte) {
	if p.whole != nil {
		p.whole.add(body)
	}
	in := body
	if len(p.pending) > 0 {
		in = slices.Concat(p.pending, body)
	}
	if bytes.IndexByte(in, 0) >= 0 { // of UTF-16 and UTF-32
		in = withoutNUL(in)
	}
	p.text = slices.Grow(p.text, len(in))
	for decided := true; len(in) > 0 && decided; {
		switch {
		case p.until != nil:
			in, decided = p.section(in)
		case in[0] == '<':
			in, decided = p.begin(in)
		case in[0] == '&':
			in, decided = p.reference(in)
		default:
			n := 1
			for n < len(in) && in[n] != '<' && in[n] != '&' {
				n++
			}
			p.text, in = append(p.text, in[:n]...), in[n:]
		}
	}
	p.pending = slices.Clone(in)
}

func withoutNUL(in []byte) []byte {
	out := make([]byte, 0, len(in))
	for _, b := range in {
		if b != 0 {
			out = append(out, b)
		}
	}
	return out
}

// section takes in what is left of a section. Like the others, it returns the rest, and false where that depends on what comes next.
func (p *plain) section(in []byte) (rest []byte, decided bool) {
	inside, after, ended := bytes.Cut(in, p.until)
	if ended {
		p.until = nil
	} else {
		n := max(0, len(in)-len(p.until)+1) // behind it the end may begin
		inside, after = in[:n], in[n:]
	}
	if !p.skips {
		p.text = append(p.text, inside...)
	}
	return after, ended
}

// begin takes in a "<", or what begins a section.
func (p *plain) begin(in []byte) (rest []byte, decided bool) {
	if len(in) == 1 {
		return in, false
	}
	for i := range sections {
		s := &sections[i]
		if in[1] != s.begin[1] || len(in) > 3 && len(s.begin) > 3 && in[3] != s.begin[3] {
			continue // of most at one look
		}
		if after, ok := bytes.CutPrefix(in, s.begin); ok {
			if !s.skips || !p.keeps {
				p.until, p.skips = s.end, s.skips
			}
			if p.skips && p.whole == nil && len(p.text) > 0 { // behind a declaration
				p.whole = &plain{keeps: true, text: slices.Clone(p.text)}
				p.whole.add(after)
			}
			return after, true
		}
		if bytes.HasPrefix(s.begin, in) {
			return in, false
		}
	}
	p.text = append(p.text, in[0])
	return in[1:], true
}

// reference takes in a "&", or a character reference to ASCII.
func (p *plain) reference(in []byte) (rest []byte, decided bool) {
	number, base, at := 0, 10, len("&#")
	if len(in) > at && in[1] == '#' && in[at]|' ' == 'x' {
		base, at = 16, at+1
	}
	for ; at < len(in) && in[1] == '#'; at++ {
		digit := digitOf(in[at])
		if digit >= base {
			break
		}
		number = min(number*base+digit, 1<<7) // any number of zeros may stand before it
	}
	switch {
	case len(in) == 1, at >= len(in) && in[1] == '#':
		if at > len("&#") {
			in = strconv.AppendInt(slices.Clone(in[:len("&#")+base/16]), int64(number), base)
		}
		return in, false
	case in[1] == '#' && in[at] == ';' && number < 1<<7:
		p.text = append(p.text, byte(number))
		return in[at+1:], true
	}
	p.text = append(p.text, in[0])
	return in[1:], true
}

// digitOf is what a digit stands for, decimal or hexadecimal: more than all of them for what is none.
func digitOf(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b|' ' >= 'a' && b|' ' <= 'f':
		return int(b|' '-'a') + 10
	}
	return 16
}
