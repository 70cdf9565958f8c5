package smapi

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// upgradeWith is a call of MaxBody bytes: as many pieces as fit, most of them if that is not 0, at one place.
func upgradeWith(at string, most int, piece func(i int) string) []byte {
	const upgrade = `<s:Envelope xmlns:s="` + soapNamespace + `" xmlns="` + sonosNamespace + `" $tag>` +
		`<s:Header>$header<credentials>$credentials<login><username>u</username><password>p$password</password></login></credentials></s:Header>` +
		`<s:Body><getDeviceAuthToken>$call<householdId>h</householdId></getDeviceAuthToken></s:Body></s:Envelope>`
	var pieces strings.Builder
	for i := 0; most == 0 || i < most; i++ {
		next := piece(i)
		if len(upgrade)+pieces.Len()+len(next) > MaxBody {
			break
		}
		pieces.WriteString(next)
	}
	body := strings.Replace(upgrade, at, pieces.String(), 1)
	body = strings.NewReplacer("$tag", "", "$header", "", "$credentials", "", "$password", "", "$call", "").Replace(body)
	return []byte(body + strings.Repeat(" ", MaxBody-len(body)))
}

// upgradeBehind is a call of MaxBody bytes behind what may stand in front of an envelope.
func upgradeBehind(prologue string) []byte {
	body := prologue + strings.TrimRight(string(upgradeWith("$tag", 1, the(""))), " ")
	return []byte(body + strings.Repeat(" ", MaxBody-len(body)))
}

func the(text string) func(int) string { return func(int) string { return text } }

// plainBody is a call with much text, all of which is read.
func plainBody() []byte {
	return upgradeWith("$header", 0, the("<x>"+strings.Repeat("plain ", 10000)+"</x>"))
}

// worstBodies are what is dearest to read among bodies of MaxBody bytes. Those with "most" just keep to the bounds.
func worstBodies() map[string][]byte {
	long := strings.Repeat("n", 400)
	numbered := func(format string) func(int) string {
		return func(i int) string { return fmt.Sprintf(format, i) }
	}
	bodies := map[string][]byte{
		"bindings":                upgradeWith("$header", 1, the(scoped(28, 230, "p"))),
		"bindings of one":         upgradeWith("$tag", 0, numbered(`xmlns:p%d="u" `)),
		"bindings, most":          upgradeWith("$header", 1, the(scoped(2, 6, "p"))),
		"bindings, most and long": upgradeWith("$header", 1, the(scoped(2, 6, long[:330]))),
		"attributes":              upgradeWith("$header", 0, numbered(`<x a%d=""/>`)),
		"attributes of one":       upgradeWith("$tag", 0, numbered(`a%d="" `)),
		"attributes, most":        upgradeWith("$header", 7, numbered(`<x `+attributes(16, long)+`a%d=""/>`)),
		"a long attribute":        upgradeWith("$tag", 1, the(`a="`+strings.Repeat("&amp;", 10000)+`"`)),
		"elements":                upgradeWith("$header", 0, the("<x/>")),
		"elements, most":          upgradeWith("$header", 240, the("<"+long[:120]+"></"+long[:120]+">")),
		"children of credentials": upgradeWith("$credentials", 240, the("<deviceId2/>")),
		"deep":                    upgradeWith("$header", 0, the("<x>")),
		"deep, with long names":   upgradeWith("$header", 1, the(nested(25, strings.Repeat("n", 1200)))),
		"a long name":             upgradeWith("$header", 1, the("<"+strings.Repeat("n", 30000)+"/>")),
		"comments":                upgradeWith("$password", 0, the("<!---->")),
		"comments, most":          upgradeWith("$password", 480, the("x<!-- "+strings.Repeat("- ", 50)+"-->")),
		"CDATA":                   upgradeWith("$password", 0, the("<![CDATA[]]>")),
		"CDATA, most":             upgradeWith("$password", 900, the("<![CDATA["+strings.Repeat("]", 50)+"]]>")),
		"references":              upgradeWith("$password", 0, the("&lt;")),
		"references, most":        upgradeWith("$password", 4096, the("&#x10FFFF;")),
		"a long reference":        upgradeWith("$password", 1, the("&#"+strings.Repeat("0", 60000)+"65;")),
		"carriage returns":        upgradeWith("$password", 0, the("\r")),
		"line ends":               upgradeWith("$password", 0, the("\r\n")),
		"white space":             upgradeWith("$credentials", 0, the(" ")),
		"white space in front":    append(bytes.Repeat([]byte(" "), MaxBody-1000), upgradeWith("$tag", 1, the(""))[:1000]...),
		"brackets":                upgradeWith("$password", 0, the("]] >")),
		"almost a method":         upgradeWith("$password", 0, the("getDeviceAuthToke ")),
		"almost another":          upgradeWith("$password", 0, the("getSessionI refreshAuthToke ")),
		"almost a linkCode":       upgradeWith("$password", 0, the("linkCode ")),
		"almost no character":     upgradeWith("$password", 0, the("\uFF01\uFFBF")),
		"entities":                upgradeBehind("<!DOCTYPE a [" + strings.Repeat(`<!ENTITY b "&c;&c;">`, 3000) + "]>"),
		"instructions":            upgradeWith("$header", 0, the("<?a b?>")),
		"a long instruction":      upgradeWith("$header", 1, the("<?a "+strings.Repeat("? ", 30000)+"?>")),
		"a long declaration":      upgradeBehind(`<?xml version="1.0"` + strings.Repeat(" ", 60000) + "?>"),
		"default namespaces":      upgradeWith("$header", 0, numbered(`<x xmlns="u%d"/>`)),
		"namespaces, most":        upgradeWith("$header", 7, numbered(`<x `+attributes(16, long[:380])+`xmlns="u%d"/>`)),
		"a long namespace":        upgradeWith("$tag", 1, the(`xmlns:p="`+strings.Repeat("n", 60000)+`"`)),
		"siblings, most":          upgradeWith("$credentials", 225, numbered("<deviceId%d>"+long[:200]+"</deviceId%[1]d>")),
		"text between, most":      upgradeWith("$credentials", 225, the(strings.Repeat(" ", 240)+"<x/>")),
		"callbacks":               upgradeWith("$call", 0, the("<callbackPath/>")),
		"quotes":                  upgradeWith("$tag", 1, the(`a="`+strings.Repeat("'", 60000)+`"`)),
		"tag that does not end":   upgradeWith("$header", 1, the("<x"+strings.Repeat(" ", 60000))),
		"end tags":                upgradeWith("$header", 0, the("</x>")),
		"almost references":       upgradeWith("$password", 0, the("&#")),
		"almost tags":             upgradeWith("$password", 0, the("<")),
		"almost comments":         upgradeWith("$password", 0, the("<!-")),
		"almost CDATA":            upgradeWith("$password", 0, the("<![CDATA[]]")),
		"references to ASCII":     upgradeWith("$password", 0, the("&#65;")),
		"NUL":                     upgradeWith("$password", 0, the("\x00")),
		"runes":                   upgradeWith("$password", 0, the("\U0001F3B5")),
	}
	return bodies
}

// scoped is elements, each in the one before, that bind 15 prefixes each, and in them elements with 15 attributes of
// one name and the outermost prefixes.
func scoped(levels, elements int, prefix string) string {
	var text strings.Builder
	for level := range levels {
		text.WriteString("<x ")
		for i := range 15 {
			fmt.Fprintf(&text, `xmlns:%[1]s%02[2]d="u%[2]d" `, prefix, level*15+i)
		}
		text.WriteString(">")
	}
	for range elements {
		text.WriteString("<x ")
		for i := range 15 {
			fmt.Fprintf(&text, `%s%02d:a="" `, prefix, i)
		}
		text.WriteString("/>")
	}
	return text.String() + strings.Repeat("</x>", levels)
}

func attributes(n int, name string) string {
	var list strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&list, `%s%02d="" `, name, i)
	}
	return list.String()
}

func nested(n int, name string) string {
	return strings.Repeat("<"+name+">", n) + strings.Repeat("</"+name+">", n)
}

func read(body []byte) error {
	r := post(body)
	_, _, err := Read(r, allMethods)
	return err
}

func TestAPlainBodyIsReadWhole(t *testing.T) {
	if body := plainBody(); len(body) != MaxBody || read(body) != nil {
		t.Errorf("%d bytes, %v", len(body), read(body))
	}
}

func TestMoreMarkupThanACallHasIsForwarded(t *testing.T) {
	bodies := worstBodies()
	for _, name := range []string{"attributes", "attributes of one", "bindings", "bindings of one", "CDATA", "comments", "deep", "elements", "references"} {
		if err := read(bodies[name]); err != errTooComplex {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, body := range bodies {
		if err := read(body); strings.HasSuffix(name, "most") && err != nil && err != errLongCredential {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The two are read in turn, and again while the ratio is too high, so that a machine that is busy with something else does
// not decide.
func TestNoBodyIsMuchDearerThanAPlainOne(t *testing.T) {
	const enough, most = 10, 300 // a plain one takes some 50 us
	plainOne := plainBody()
	call := func(body []byte) { _ = read(body) }
	took := func(read func([]byte), body []byte) time.Duration {
		begun := time.Now()
		read(body)
		return time.Since(begun)
	}
	for what, read := range map[string]func([]byte){
		"a call":                   call,
		"a call or a token":        func(body []byte) { _, _ = readOurs(everydayPost("getLastUpdate", "", body), allMethods) },
		"a token, in what is none": func(body []byte) { (&plain{}).add(body) },
	} {
		times := time.Duration(20) // what is not understood may be looked through twice
		if what == "a call" {
			times = 10
		}
		for name, body := range worstBodies() {
			if len(body) != MaxBody {
				t.Errorf("%s: %d bytes", name, len(body))
			}
			is, plain := time.Hour, time.Hour
			for n := 0; n < enough || n < most && is > times*plain; n++ {
				is, plain = min(is, took(read, body)), min(plain, took(call, plainOne))
			}
			if is > times*plain {
				t.Errorf("%s, %s: %v, a plain one %v", what, name, is, plain)
			}
		}
	}
}

func BenchmarkWorstBodies(b *testing.B) {
	bodies := worstBodies()
	bodies["a plain one"] = plainBody()
	var names []string
	for name := range bodies {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = read(bodies[name])
			}
		})
	}
}
