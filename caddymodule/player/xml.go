package player

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
)

// invalid is a reason why a player does not have to understand an answer.
type invalid string

func (e invalid) Error() string { return string(e) }

const (
	errXML      invalid = "XML that is not well-formed"
	errEncoding invalid = "an encoding other than UTF-8"
	errSOAP     invalid = "XML that SOAP forbids: a document type or an instruction"
	errLarge    invalid = "more XML than any answer has"
)

const (
	maxDepth    = 32
	maxElements = 1000
)

// node is an element of an answer.
type node struct {
	name     xml.Name
	text     string
	children []*node
}

// parse reads a document. It returns the root as soon as there is one, with an error for what is wrong behind its
// beginning.
func parse(body []byte) (root *node, err error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if len(body) > maxAnswer {
		body, err = body[:maxAnswer], errLarge
	}
	p := parser{Decoder: xml.NewDecoder(bytes.NewReader(body))}
	p.CharsetReader = p.charset
	for {
		offset := p.InputOffset()
		token, tokenErr := p.Token()
		if tokenErr == nil {
			tokenErr = p.take(token, offset)
		}
		switch {
		case tokenErr == nil:
		case p.foreign:
			return p.root, errEncoding
		case err != nil: // cut off
			return p.root, err
		case tokenErr == io.EOF:
			return p.root, nil
		case errors.As(tokenErr, new(invalid)):
			return p.root, tokenErr
		default:
			return p.root, errXML
		}
	}
}

type parser struct {
	*xml.Decoder
	root     *node
	open     []*node
	elements int
	foreign  bool // declared to be in another encoding than UTF-8
}

// charset takes every encoding for UTF-8, and notes where it is not. Whatever can be read is wanted for the reason.
func (p *parser) charset(name string, in io.Reader) (io.Reader, error) {
	p.foreign = !strings.EqualFold(name, "us-ascii")
	return in, nil
}

func (p *parser) take(token xml.Token, offset int64) error {
	switch t := token.(type) {
	case xml.StartElement:
		return p.begin(t.Name)
	case xml.EndElement:
		p.open = p.open[:len(p.open)-1]
	case xml.CharData:
		if len(p.open) > 0 {
			p.open[len(p.open)-1].text += string(t)
		} else if len(bytes.TrimSpace(t)) > 0 {
			return errXML
		}
	case xml.Directive:
		return errSOAP
	case xml.ProcInst:
		if t.Target != "xml" {
			return errSOAP
		}
		if offset != 0 {
			return errXML // a declaration that is not at the very beginning
		}
	}
	return nil
}

func (p *parser) begin(name xml.Name) error {
	if p.elements++; p.elements > maxElements || len(p.open) == maxDepth {
		return errLarge
	}
	n := &node{name: name}
	switch {
	case len(p.open) > 0:
		parent := p.open[len(p.open)-1]
		parent.children = append(parent.children, n)
	case p.root != nil:
		return errXML
	default:
		p.root = n
	}
	p.open = append(p.open, n)
	return nil
}

// content returns what is in the body of an envelope.
func (n *node) content() (*node, error) {
	if n.name.Space != soapNamespace {
		return nil, invalid("an Envelope that is not of SOAP 1.1")
	}
	found, err := n.sequence(soapNamespace, "Header?", "Body")
	if err != nil {
		return nil, err
	}
	body := found[1]
	if len(body.children) != 1 || strings.TrimSpace(body.text) != "" {
		return nil, invalid("a Body that is not one element")
	}
	return body.children[0], nil
}

// sequence returns the children by these names, nil for those with a question mark that are not there. They have
// to be of this namespace, in this order, and there must be no others.
func (n *node) sequence(space string, names ...string) ([]*node, error) {
	if strings.TrimSpace(n.text) != "" {
		return nil, invalid("text between the elements of " + n.name.Local)
	}
	found, last := make([]*node, len(names)), -1
	for _, child := range n.children {
		i := slices.IndexFunc(names, func(name string) bool { return strings.TrimSuffix(name, "?") == child.name.Local })
		switch {
		case i < 0:
			return nil, invalid("an element that the schema does not have in " + n.name.Local)
		case child.name.Space != space:
			return nil, invalid(child.name.Local + " in a wrong namespace")
		case found[i] != nil:
			return nil, invalid(child.name.Local + " twice")
		case i < last:
			return nil, invalid("elements of " + n.name.Local + " out of order")
		}
		found[i], last = child, i
	}
	for i, name := range names {
		if found[i] == nil && !strings.HasSuffix(name, "?") {
			return nil, invalid(n.name.Local + " without " + name)
		}
	}
	return found, nil
}
