package smapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"unicode/utf8"
)

// The scanner reads the XML with namespaces that SOAP is made of, and refuses every document that two
// readers could take for different things. General-purpose parsers do not: the standard library's, and all that
// is built on it, lets undeclared prefixes and repeated attributes pass. Parsing into a tree of it would also be
// the most expensive step of an upgrade.
//
// It is stricter than XML where no player goes: names are ASCII, there are no DTDs and no processing
// instructions (SOAP 1.1 section 3), and everything is bounded.

// Bounds of a document, so that no body costs much more than a plain one of its size. A real call has some twenty
// elements, six deep, with an attribute or two and half a dozen namespaces.
const (
	maxElements   = 256
	maxDepth      = 32
	maxSteps      = 1024 // tags, comments, CDATA sections and runs of text
	maxAttributes = 128
	maxOfElement  = 16   // attributes of one element
	maxBindings   = 32   // namespaces in force at once
	maxReferences = 4096 // all characters of two credentials
)

var (
	errMalformed   = errors.New("malformed XML")
	errTooComplex  = errors.New("more markup than a call has")
	errEncoding    = errors.New("neither UTF-8 nor ASCII")
	errInstruction = errors.New("a DTD or a processing instruction, which SOAP forbids")
	errNamespace   = errors.New("an undeclared or reserved namespace prefix")
	errAttribute   = errors.New("an attribute given twice")
	errStrayText   = errors.New("text or elements where none belong")
)

// namespace tells the namespaces apart that matter here.
type namespace uint8

const (
	noNamespace namespace = iota
	soap
	sonos
	foreign
)

// element is one element of a document. It has no pointers, so that it costs little to make and to keep. Its relatives are
// indexes, of which none is the document's 0.
type element struct {
	namespace   namespace
	name        name
	stray       bool  // its text is more than white space
	first, next int16 // child, sibling
	last        int16
	made        int16 // which of the document's its text is, counted from 1; 0 for one that is a part of the body

	local span
	text  span // zero for none

	// Where it stands in the body: its start tag begins at from and its end tag ends at to; open and shut are where what is
	// between them begins and ends. An empty element tag has nothing between, and open, shut and to are its end.
	from, open, shut, to int32
}

// span is a part of the body.
type span struct{ from, to int32 }

// document is the elements in their order; the one at 0 stands for the document itself.
type document struct {
	body     []byte
	elements []element
	made     [][]byte         // texts that do not stand in the body as they are
	met      [numNames]uint16 // how many elements have a name, whatever their namespace
}

func (d *document) part(s span) []byte { return d.body[s.from:s.to:s.to] }

// local is the name of an element, without a prefix.
func (d *document) local(i int) []byte { return d.part(d.elements[i].local) }

// text is all of the text in an element, markup resolved, but not that of elements in it. It is nil where there is none, and must not
// be written to.
func (d *document) text(i int) []byte {
	switch e := &d.elements[i]; {
	case e.made != 0:
		return d.made[e.made-1]
	case e.text.to != 0:
		return d.part(e.text)
	}
	return nil
}

// children calls f with the index of each child, until it returns false.
func (d *document) children(parent int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := int(d.elements[parent].first); i != 0; i = int(d.elements[i].next) {
			if !yield(i) {
				return
			}
		}
	}
}

type scanner struct {
	reader
	document
	open     []opened
	bindings []binding

	plain bool // what is between tags stands for itself: there is no reference, no CDATA section and no carriage return
	ascii bool // is declared

	steps, attributes, references int // so far

	// What slices start on: those above, and the attributes of an element.
	elementSpace   [32]element
	openSpace      [8]opened
	bindingSpace   [8]binding
	attributeSpace [4]attribute
}

// opened is an element whose end has not been read.
type opened struct {
	index    int
	name     span // with its prefix
	bindings int  // how many were in force around it
}

type binding struct {
	prefix    []byte
	namespace namespace
	uri       []byte
}

type attribute struct {
	prefix, local, value []byte
	uri                  []byte // of its namespace
}

// scanners are kept for reuse, empty: a scanner is the largest part of what a call allocates.
var scanners = sync.Pool{New: func() any { return new(scanner) }}

// release gives the scanner back. Its document must not be used any more.
func (s *scanner) release() {
	clear(s.bindingSpace[:])
	clear(s.attributeSpace[:])
	s.reader, s.document, s.open, s.bindings = reader{}, document{}, nil, nil
	s.plain, s.ascii, s.steps, s.attributes, s.references = false, false, 0, 0, 0
	scanners.Put(s)
}

// scan reads a document, whole or not at all.
func (s *scanner) scan(body []byte) (*document, error) {
	s.body, s.rest = body, bytes.TrimPrefix(body, byteOrderMark)
	if err := checkCharacters(s.rest); err != nil {
		return nil, err
	}
	s.plain = bytes.IndexByte(body, '&') < 0 && bytes.IndexByte(body, ']') < 0 && bytes.IndexByte(body, '\r') < 0
	s.elements = append(s.elementSpace[:0], element{})
	s.open = append(s.openSpace[:0], opened{})
	s.bindings = s.bindingSpace[:0]
	if err := s.declaration(); err != nil {
		return nil, err
	}
	for ; len(s.rest) > 0; s.steps++ {
		if s.steps == maxSteps {
			return nil, errTooComplex
		}
		if err := s.step(); err != nil {
			return nil, err
		}
	}
	root := s.elements[0].first
	if len(s.open) != 1 || root == 0 {
		return nil, errMalformed
	}
	if s.elements[root].next != 0 {
		return nil, errStrayText
	}
	return &s.document, nil
}

// at is where in the body the next byte to read stands.
func (s *scanner) at() int32 { return int32(len(s.body) - len(s.rest)) }

const blank = " \t\r\n"

func isBlank(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

func allBlank(text []byte) bool {
	for _, b := range text {
		if !isBlank(b) {
			return false
		}
	}
	return true
}

// checkCharacters refuses what is no UTF-8 and the characters that XML does not have.
func checkCharacters(body []byte) error {
	const (
		each   = ^uint64(0) / 0xFF // a one in each byte
		high   = 0x80              // the bit that ASCII does not have
		blanks = 1<<'\t' | 1<<'\n' | 1<<'\r'
	)
	ascii := true
	for rest := body; len(rest) > 0; {
		n := min(8, len(rest))
		if n == 8 {
			// Below a blank the difference has the high bit, above ASCII the byte itself.
			if eight := binary.LittleEndian.Uint64(rest); (eight|(eight-each*' '))&(each*high) == 0 {
				rest = rest[8:]
				continue
			}
		}
		for _, b := range rest[:n] {
			if b < ' ' && blanks>>b&1 == 0 {
				return errEncoding
			}
			ascii = ascii && b < high
		}
		rest = rest[n:]
	}
	if !ascii && (!utf8.Valid(body) || bytes.Contains(body, []byte("\uFFFE")) || bytes.Contains(body, []byte("\uFFFF"))) {
		return errEncoding
	}
	return nil
}

// declaration reads <?xml version="1.0" encoding="..." standalone="..."?>, which need not be there.
func (s *scanner) declaration() error {
	if s.skip(`<?xml version="1.0" encoding="utf-8"?>`) || !s.skip("<?xml") { // as nearly all begin, or without one
		return nil
	}
	text, ok := s.until("?>")
	if !ok {
		return errMalformed
	}
	attributes := reader{text}
	for position := 0; ; {
		a, ok, err := attributes.attribute()
		if err != nil || len(a.prefix) > 0 {
			return errMalformed
		}
		if !ok {
			if position == 0 || len(attributes.rest) > 0 {
				return errMalformed
			}
			return nil
		}
		switch name := string(a.local); {
		case position == 0 && name == "version" && string(a.value) == "1.0":
			position = 1
		case position == 1 && name == "encoding":
			position = 2
			s.ascii = strings.EqualFold(string(a.value), ascii)
			if !charsetAllowed(string(a.value)) || s.ascii && bytes.ContainsFunc(s.rest, notASCII) {
				return errEncoding
			}
		case (position == 1 || position == 2) && name == "standalone" && (string(a.value) == "yes" || string(a.value) == "no"):
			position = 3
		default:
			return errMalformed
		}
	}
}

func notASCII(r rune) bool { return r >= utf8.RuneSelf }

// step reads a run of text or one piece of markup.
func (s *scanner) step() error {
	if s.rest[0] != '<' {
		markup := bytes.IndexByte(s.rest, '<')
		if markup < 0 {
			markup = len(s.rest)
		}
		from := s.at()
		s.rest = s.rest[markup:]
		return s.characters(span{from, s.at()})
	}
	switch {
	case s.skip("</"):
		return s.end()
	case s.skip("<!--"):
		comment, ok := s.until("-->")
		if !ok || bytes.Contains(comment, []byte("--")) || bytes.HasSuffix(comment, []byte("-")) {
			return errMalformed
		}
		return nil
	case s.skip("<![CDATA["):
		from := s.at()
		text, ok := s.until("]]>")
		if !ok || len(s.open) == 1 {
			return errMalformed
		}
		text = lines(text)
		s.add(span{from, s.at() - int32(len("]]>"))}, text, !allBlank(text))
		return nil
	case s.skip("<!"), s.skip("<?"):
		return errInstruction
	}
	s.rest = s.rest[1:]
	return s.start()
}

// characters adds text to the element around it.
func (s *scanner) characters(at span) (err error) {
	text := s.part(at)
	if !s.plain {
		text = lines(text)
	}
	if allBlank(text) { // as between any two elements
		s.add(at, text, false)
		return nil
	}
	if len(s.open) == 1 {
		return errStrayText
	}
	stray := true
	if !s.plain {
		if bytes.Contains(text, []byte("]]>")) {
			return errMalformed
		}
		if text, err = s.unescape(text); err != nil {
			return err
		}
		stray = !allBlank(text)
	}
	s.add(at, text, stray)
	return nil
}

// add adds text that stands at some place of the body to the element around it, where it is stray if there are elements too.
func (s *scanner) add(at span, text []byte, stray bool) {
	to := &s.elements[s.open[len(s.open)-1].index]
	to.stray = to.stray || stray
	first := to.made == 0 && to.text.to == 0
	switch {
	case first && same(text, s.part(at)):
		to.text = at
	case first:
		s.made = append(s.made, text)
		to.made = int16(len(s.made))
	case to.first == 0 || stray: // else white space between elements
		if to.made == 0 {
			s.made = append(s.made, s.part(to.text)) // whose capacity keeps an append from writing to the body
			to.made = int16(len(s.made))
		}
		s.made[to.made-1] = append(s.made[to.made-1], text...)
	}
}

// same reports whether two slices are one.
func same(a, b []byte) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// lines turns all line ends into line feeds, as XML section 2.11 demands.
func lines(text []byte) []byte {
	if bytes.IndexByte(text, '\r') < 0 {
		return text
	}
	out, n := make([]byte, len(text)), 0
	for i, b := range text {
		if b == '\r' {
			if i+1 < len(text) && text[i+1] == '\n' {
				continue
			}
			b = '\n'
		}
		out[n] = b
		n++
	}
	return out[:n]
}

// unescape resolves the references that XML has without a DTD.
func (s *scanner) unescape(text []byte) ([]byte, error) {
	if bytes.IndexByte(text, '&') < 0 {
		return text, nil
	}
	out := make([]byte, 0, len(text))
	for {
		before, after, found := bytes.Cut(text, []byte("&"))
		out = append(out, before...)
		if !found {
			return out, nil
		}
		if s.references++; s.references > maxReferences {
			return nil, errTooComplex
		}
		reference, rest, found := bytes.Cut(after, []byte(";"))
		character := referenced(reference)
		if !found || character < 0 {
			return nil, errMalformed
		}
		out = utf8.AppendRune(out, character)
		text = rest
	}
}

// referenced returns the character of a reference, -1 where there is none.
func referenced(name []byte) rune {
	switch string(name) {
	case "lt":
		return '<'
	case "gt":
		return '>'
	case "amp":
		return '&'
	case "quot":
		return '"'
	case "apos":
		return '\''
	}
	digits, ok := bytes.CutPrefix(name, []byte("#"))
	base := rune(10)
	if hex, isHex := bytes.CutPrefix(digits, []byte("x")); isHex {
		digits, base = hex, 16
	}
	if !ok || len(digits) == 0 {
		return -1
	}
	var r rune
	for _, d := range digits {
		value := rune(-1)
		switch {
		case d >= '0' && d <= '9':
			value = rune(d - '0')
		case d >= 'a' && d <= 'f':
			value = rune(d-'a') + 10
		case d >= 'A' && d <= 'F':
			value = rune(d-'A') + 10
		}
		if value < 0 || value >= base {
			return -1
		}
		if r = r*base + value; r > utf8.MaxRune {
			return -1
		}
	}
	if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0xFFFE || r == 0xFFFF || !utf8.ValidRune(r) {
		return -1
	}
	return r
}

// start reads a start tag, whose "<" has been read.
func (s *scanner) start() error {
	from := s.at() - int32(len("<"))
	prefix, local, ok := s.reader.name()
	if !ok {
		return errMalformed
	}
	ends := s.at()
	around := len(s.bindings)
	if len(s.rest) > 0 && isBlank(s.rest[0]) {
		if err := s.readAttributes(); err != nil {
			return err
		}
	}
	empty := s.skip("/>")
	if !empty && !s.skip(">") {
		return errMalformed
	}
	in, ok := s.lookup(prefix)
	if !ok {
		return errNamespace
	}
	if len(s.elements) > maxElements || len(s.open) > maxDepth {
		return errTooComplex
	}

	index, parent := len(s.elements), &s.elements[s.open[len(s.open)-1].index]
	if parent.first == 0 {
		parent.first = int16(index)
	} else {
		s.elements[parent.last].next = int16(index)
	}
	parent.last = int16(index)
	name, at := nameOf(local), s.at()
	s.met[name]++
	s.elements = append(s.elements, element{
		namespace: in, name: name, local: span{ends - int32(len(local)), ends}, from: from, open: at, shut: at, to: at,
	})
	if empty {
		s.bindings = s.bindings[:around]
	} else {
		s.open = append(s.open, opened{index, span{from + int32(len("<")), ends}, around})
	}
	return nil
}

// readAttributes reads those of a start tag, and the declarations of namespaces among them.
func (s *scanner) readAttributes() error {
	attributes := s.attributeSpace[:0]
	for {
		a, ok, err := s.attribute()
		if err != nil {
			return err
		}
		if !ok {
			return s.checkAttributes(attributes)
		}
		if s.attributes++; s.attributes > maxAttributes || len(attributes) == maxOfElement {
			return errTooComplex
		}
		if a.value, err = s.unescape(a.value); err != nil {
			return err
		}
		attributes = append(attributes, a)
		if err := s.bind(a); err != nil {
			return err
		}
	}
}

// end reads an end tag, whose "</" has been read.
func (s *scanner) end() error {
	last, from := s.open[len(s.open)-1], s.at()-int32(len("</"))
	name := s.part(last.name)
	if len(s.open) == 1 || !bytes.HasPrefix(s.rest, name) {
		return errMalformed
	}
	s.rest = s.rest[len(name):]
	s.space()
	if !s.skip(">") {
		return errMalformed
	}
	ended := &s.elements[last.index]
	ended.shut, ended.to = from, s.at()
	s.open = s.open[:len(s.open)-1]
	s.bindings = s.bindings[:last.bindings]
	return nil
}

var (
	prefixXMLNS = []byte("xmlns")
	prefixXML   = []byte("xml")
)

// bind declares a namespace, if that is what the attribute does (Namespaces in XML 1.0, section 3).
func (s *scanner) bind(a attribute) error {
	prefix := a.local
	switch {
	case len(a.prefix) == 0 && bytes.Equal(a.local, prefixXMLNS):
		prefix = nil
	case bytes.Equal(a.prefix, prefixXMLNS):
		if len(a.value) == 0 || bytes.Equal(prefix, prefixXML) || bytes.Equal(prefix, prefixXMLNS) {
			return errNamespace
		}
	default:
		return nil
	}
	in := foreign
	switch string(a.value) {
	case "":
		in = noNamespace
	case soapNamespace:
		in = soap
	case sonosNamespace:
		in = sonos
	case "http://www.w3.org/XML/1998/namespace", "http://www.w3.org/2000/xmlns/":
		return errNamespace
	}
	if len(s.bindings) == maxBindings {
		return errTooComplex
	}
	s.bindings = append(s.bindings, binding{prefix, in, a.value})
	return nil
}

// lookup finds the namespace of a prefix by its innermost declaration.
func (s *scanner) lookup(prefix []byte) (namespace, bool) {
	if b := s.binding(prefix); b != nil {
		return b.namespace, true
	}
	return noNamespace, len(prefix) == 0
}

func (s *scanner) binding(prefix []byte) *binding {
	for i := len(s.bindings) - 1; i >= 0; i-- {
		if bytes.Equal(s.bindings[i].prefix, prefix) {
			return &s.bindings[i]
		}
	}
	return nil
}

func (s *scanner) checkAttributes(attributes []attribute) error {
	for i := range attributes {
		a := &attributes[i]
		in := s.binding(a.prefix)
		if in != nil {
			a.uri = in.uri
		}
		reserved := bytes.Equal(a.prefix, prefixXMLNS) || bytes.Equal(a.prefix, prefixXML)
		if in == nil && len(a.prefix) > 0 && !reserved {
			return errNamespace
		}
		for _, b := range attributes[:i] {
			if !bytes.Equal(a.local, b.local) {
				continue
			}
			if bytes.Equal(a.prefix, b.prefix) ||
				len(a.prefix) > 0 && len(b.prefix) > 0 && !reserved && bytes.Equal(a.uri, b.uri) {
				return errAttribute
			}
		}
	}
	return nil
}

// reader reads the parts that markup is made of.
type reader struct{ rest []byte }

// attribute reads the blank and the attribute after it, if there is one. Its value is as sent.
func (r *reader) attribute() (a attribute, ok bool, err error) {
	if !r.space() || len(r.rest) == 0 || r.rest[0] == '>' || r.rest[0] == '/' {
		return a, false, nil
	}
	if a.prefix, a.local, ok = r.name(); !ok {
		return a, false, errMalformed
	}
	r.space()
	if !r.skip("=") {
		return a, false, errMalformed
	}
	r.space()
	quote := `"`
	if !r.skip(quote) {
		if quote = "'"; !r.skip(quote) {
			return a, false, errMalformed
		}
	}
	if a.value, ok = r.until(quote); !ok || bytes.IndexByte(a.value, '<') >= 0 {
		return a, false, errMalformed
	}
	return a, true, nil
}

// name reads a name and splits it at its colon.
func (r *reader) name() (prefix, local []byte, ok bool) {
	local, ok = r.ncName()
	if ok && r.skip(":") {
		prefix = local
		local, ok = r.ncName()
	}
	return prefix, local, ok
}

// ncName reads a name without a colon.
func (r *reader) ncName() ([]byte, bool) {
	n := 0
	for n < len(r.rest) && (nameBytes[r.rest[n]] == nameStart || n > 0 && nameBytes[r.rest[n]] == nameRest) {
		n++
	}
	name := r.rest[:n]
	r.rest = r.rest[n:]
	return name, n > 0
}

const (
	nameStart = 1 + iota
	nameRest
)

var nameBytes = func() (table [256]uint8) {
	for b := range table {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b == '_':
			table[b] = nameStart
		case b >= '0' && b <= '9', b == '-', b == '.':
			table[b] = nameRest
		}
	}
	return table
}()

// skip reads token, if it comes next.
func (r *reader) skip(token string) bool {
	if len(r.rest) < len(token) || string(r.rest[:len(token)]) != token {
		return false
	}
	r.rest = r.rest[len(token):]
	return true
}

// until reads up to the end and over it.
func (r *reader) until(end string) (before []byte, ok bool) {
	i := bytes.Index(r.rest, []byte(end))
	if i < 0 {
		return nil, false
	}
	before, r.rest = r.rest[:i:i], r.rest[i+len(end):]
	return before, true
}

// space reads blanks.
func (r *reader) space() bool {
	n := 0
	for n < len(r.rest) && isBlank(r.rest[n]) {
		n++
	}
	r.rest = r.rest[n:]
	return n > 0
}
