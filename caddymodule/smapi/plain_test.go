package smapi

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

func inUTF16(text string, bigEndian, mark bool) string {
	var out []byte
	units := utf16.Encode([]rune(text))
	if mark {
		units = append([]uint16{0xfeff}, units...)
	}
	for _, u := range units {
		if bigEndian {
			out = append(out, byte(u>>8), byte(u))
		} else {
			out = append(out, byte(u), byte(u>>8))
		}
	}
	return string(out)
}

// hiding are ways to write a token that XML readers see all the same.
var hiding = map[string]func(token string) string{
	"a reference":                func(t string) string { return "&#115;" + t[1:] },
	"a hexadecimal one":          func(t string) string { return "&#x73;" + t[1:] },
	"one with zeros":             func(t string) string { return "&#" + strings.Repeat("0", 500) + "115;" + t[1:] },
	"hexadecimal with zeros":     func(t string) string { return t[:1] + "&#x" + strings.Repeat("0", 500) + "6D;" + t[2:] },
	"a comment in it":            func(t string) string { return t[:2] + "<!-- - -- x>y -->" + t[2:] },
	"a CDATA section":            func(t string) string { return "<![CDATA[" + t[:2] + "]]>" + t[2:] },
	"two CDATA sections":         func(t string) string { return "<![CDATA[" + t[:2] + "]]><![CDATA[" + t[2:] + "]]>" },
	"a processing instruction":   func(t string) string { return t[:3] + "<?x y?>" + t[3:] },
	"behind a CDATA section":     func(t string) string { return "<![CDATA[<!--]]>&#115;" + t[1:] },
	"behind a comment":           func(t string) string { return "<!-- <![CDATA[ -->&#115;" + t[1:] },
	"behind an entity":           func(t string) string { return "&amp;&#115;" + t[1:] },
	"every character":            func(t string) string { return byReferences(t) },
	"references and comments":    func(t string) string { return "&#115;<!---->&#109;<!---->" + t[2:] },
	"references that are broken": func(t string) string { return "&#x;&#;&#115" + " &#115;" + t[1:] },
}

func byReferences(token string) string {
	var b strings.Builder
	for _, r := range []byte(token) {
		b.WriteString("&#x00" + string("0123456789abcdef"[r>>4]) + string("0123456789abcdef"[r&15]) + ";")
	}
	return b.String()
}

// Whatever a body is that is not understood, an old service may have a reader that understands it.
func TestATokenThatIsHiddenIsFoundWhateverTheBodyIs(t *testing.T) {
	const latin = `<?xml version="1.0" encoding="ISO-8859-1"?>`
	for name, hide := range hiding {
		body := "<a>" + hide(ourToken) + "</a>"
		for what, c := range map[string]struct {
			contentType, body string
			change            func(*http.Request)
		}{
			"a well-formed one":           {"text/xml", body, nil},
			"a malformed one":             {"text/xml", body + "<", nil},
			"declared as Latin-1":         {"text/xml", latin + body, nil},
			"Latin-1 by its content type": {"text/xml; charset=iso-8859-1", body, nil},
			"SOAP 1.2":                    {"application/soap+xml; charset=utf-8", body, nil},
			"with attachments":            {`multipart/related; type="text/xml"`, "--x\r\n\r\n" + body, nil},
			"without a content type":      {"", latin + body, nil},
			"UTF-16":                      {"text/xml; charset=utf-16", inUTF16(body, true, true), nil},
			"UTF-16, not said":            {"text/xml", inUTF16(body, false, false), nil},
			"UTF-16 with a mark":          {"text/xml", inUTF16(body, false, true), nil},
			"no type of XML":              {"text/plain", body, nil},
			"a blank in front":            {"application/octet-stream", "\x00 \n" + body, nil},
			"an attribute":                {"text/xml", "<a b='" + hide(ourToken) + "'/>", nil},
			"the start of the body":       {"text/xml", "<a>" + hide(ourToken), nil},
			"behind a DTD":                {"text/xml", `<!DOCTYPE a SYSTEM "<!--">` + body, nil},
			"behind a DTD, once more":     {"text/xml", `<!DOCTYPE a [<!ENTITY x "<?">]>` + body, nil},
			"behind two characters":       {"text/xml; charset=utf-16", inUTF16("<a>\u3c21\u2d2d</a>"+body, true, true), nil},
			"with trailers":               {"text/xml", body, func(r *http.Request) { r.Trailer = http.Header{"A": nil} }},
			"longer than fits":            {"text/xml", body + strings.Repeat(" ", MaxBody), nil},
			"not ASCII as declared":       {"text/xml; charset=us-ascii", "<a>\u00df</a>" + body, nil},
		} {
			if confuses := strings.HasPrefix(what, "behind"); confuses && strings.ContainsAny(hide("@@@@"), "!?") {
				continue // a token in pieces, and behind what only seems to begin a comment
			}
			if what == "an attribute" && strings.Contains(hide("@@@@"), "<") {
				continue // in which no reader would take that for markup
			}
			for _, size := range []int{1, 7, 1 << 20} {
				r := everydayPost("getLastUpdate", "", nil)
				r.Header.Set("Content-Type", c.contentType)
				if c.contentType == "" {
					r.Header.Del("Content-Type")
				}
				r.ContentLength = int64(len(c.body))
				r.Body = io.NopCloser(&pieces{[]byte(c.body), size})
				if c.change != nil {
					c.change(r)
				}
				call, why := readOurs(r, upgrades)
				if _, refused := why.(Refuse); refused {
					continue
				}
				got, err := io.ReadAll(r.Body)
				if call != nil || err != ErrTokenInBody || sees(partly, string(got), c.contentType) {
					t.Errorf("%s, %s, in pieces of %d: %v, forwarded with %v: %q", name, what, size, why, err, got)
				}
			}
		}
	}
}

// sees reports whether a reader of many encodings sees a token in the texts of a body, until it gives up.
func sees(known Ours, body, contentType string) bool {
	var in io.Reader = transform.NewReader(strings.NewReader(body), unicode.BOMOverride(transform.Nop))
	if _, label, _ := strings.Cut(contentType, "charset="); label != "" && label != "us-ascii" {
		var err error
		if in, err = decoded(label, strings.NewReader(body)); err != nil {
			return false
		}
	}
	d := xml.NewDecoder(in)
	d.CharsetReader = decoded
	var text []byte
	for {
		token, err := d.Token()
		if err != nil {
			return known(text)
		}
		switch x := token.(type) {
		case xml.CharData:
			text = append(text, x...)
			continue
		case xml.Directive: // SOAP forbids a DTD, and XML one in the middle, which this reader leaves out
			return known(text)
		case xml.StartElement, xml.EndElement:
		default:
			continue
		}
		if known(text) {
			return true
		}
		text = nil
	}
}

// decoded reads an encoding, but for one in which escapes may stand between the letters of ASCII.
func decoded(label string, in io.Reader) (io.Reader, error) {
	if _, name := charset.Lookup(label); name == "iso-2022-jp" {
		return nil, errors.ErrUnsupported
	}
	return charset.NewReaderLabel(label, in)
}

func TestATokenOfOursInATrailerIsFound(t *testing.T) {
	r := everydayPost("getLastUpdate", "", []byte("<a/>"))
	r.Trailer = http.Header{"Authorization": nil}
	if _, why := readOurs(r, upgrades); why != trailers {
		t.Fatal(why)
	}
	r.Trailer["Authorization"] = []string{"Bearer " + ourToken} // as net/http does it when the body is over
	if got, err := io.ReadAll(r.Body); err != ErrTokenInBody || !Met(r.Body) {
		t.Errorf("forwarded with %v: %q", err, got)
	}
}

func TestTrailersBehindNoBodyAreLookedThrough(t *testing.T) {
	r := everydayPost("getLastUpdate", "", nil) // as HTTP/2 allows it
	r.ContentLength, r.Body, r.Trailer = 0, io.NopCloser(strings.NewReader("")), http.Header{"X-Token": nil}
	if _, why := readOurs(r, upgrades); why == nil {
		t.Fatal("a call")
	}
	r.Trailer["X-Token"] = []string{ourToken}
	if _, err := io.ReadAll(r.Body); err != ErrTokenInBody {
		t.Error(err)
	}
}

func TestPlainTextIsTheSameInPieces(t *testing.T) {
	for name, hide := range hiding {
		body := []byte("a<b c='&#100;'>" + hide(ourToken) + "<!-- e --></b>&f;&#103;")
		var whole plain
		whole.add(body)
		if !bytes.Contains(whole.text, []byte(ourToken)) {
			t.Errorf("%s: %s", name, whole.text)
		}
		for size := 1; size < 50; size++ {
			var p plain
			for rest := body; len(rest) > 0; {
				n := min(size, len(rest))
				p.add(rest[:n])
				rest = rest[n:]
			}
			if !bytes.Equal(p.text, whole.text) {
				t.Fatalf("%s in pieces of %d: %s, want %s", name, size, p.text, whole.text)
			}
		}
	}
}
