package player

import (
	"context"
	"encoding/xml"
	"net/http"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// spelling is one of the ways in which players write the same call.
type spelling struct {
	declaration string // of XML, at the beginning

	// The prefixes for SOAP's namespace, of Envelope and Header, and of Body.
	soap, body string

	// The prefixes for Sonos's namespace, which elements have in turn. Blank is a default namespace.
	sonos [2]string

	declares string // the attributes of Envelope
	inner    string // the attributes of credentials and of the call

	context    place // of <context>
	tokenFirst bool  // loginToken before deviceId, as in Sonos's own sample
	cdata      bool  // texts as CDATA
	lines      bool  // an element to a line

	action, contentType string
}

type place int

const (
	nowhere place = iota
	before
	inside
	behind
)

const (
	xmlDeclaration = `<?xml version="1.0" encoding="utf-8"?>`
	inCapitals     = `<?xml version="1.0" encoding="UTF-8"?>`

	ofSonos  = ` xmlns="` + sonosNamespace + `"`
	withNs   = ` xmlns:soapenv="` + soapNamespace + `" xmlns:ns="` + sonosNamespace + `"`
	twice    = ` xmlns:SOAP-ENV="` + soapNamespace + `" xmlns:ns0="` + soapNamespace + `" xmlns:ns1="` + sonosNamespace + `" xmlns:ns2="` + sonosNamespace + `"`
	encoding = ` soapenv:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"`

	action  = sonosNamespace + "#getDeviceAuthToken"
	quoted  = `"` + action + `"`
	textXML = "text/xml; charset=utf-8"
)

// spellings are those that have been seen, at Sonos's players, samples and self-test or by others.
var spellings = []spelling{
	{ // Sonos's sample
		soap: "soapenv", body: "soapenv", sonos: [2]string{"ns", "ns"}, declares: withNs, lines: true,
		action: quoted, contentType: textXML,
	},
	{
		declaration: xmlDeclaration, soap: "s", body: "s", declares: ` xmlns:s="` + soapNamespace + `"`, inner: ofSonos,
		action: quoted, contentType: `text/xml; charset="utf-8"`,
	},
	{ // no prefix at all
		declares: ` xmlns="` + soapNamespace + `"`, inner: ofSonos,
		action: action, contentType: textXML,
	},
	{ // Sonos's namespace as the envelope's default, and loginToken first: another sample of Sonos's
		soap: "soapenv", body: "soapenv", declares: ` xmlns:soapenv="` + soapNamespace + `"` + ofSonos, lines: true,
		tokenFirst: true, action: quoted, contentType: textXML,
	},
	{ // two prefixes for one namespace: Sonos's self-test
		soap: "SOAP-ENV", body: "ns0", sonos: [2]string{"ns1", "ns2"}, declares: twice,
		action: quoted, contentType: "text/xml",
	},
	{
		declaration: inCapitals, soap: "soapenv", body: "soapenv", sonos: [2]string{"ns", "ns"}, declares: withNs + encoding,
		lines: true, action: `"` + sonosNamespace + `#getdeviceauthtoken"`, contentType: textXML,
	},
	{
		declaration: xmlDeclaration + "\n", soap: "s", body: "s", declares: ` xmlns:s="` + soapNamespace + `"`, inner: ofSonos,
		context: before, action: quoted, contentType: textXML,
	},
	{
		soap: "soapenv", body: "soapenv", sonos: [2]string{"ns", "ns"}, declares: withNs, context: behind, lines: true,
		action: strings.ToLower(action), contentType: textXML,
	},
	{
		soap: "soapenv", body: "soapenv", sonos: [2]string{"ns", "ns"}, declares: withNs, context: inside, tokenFirst: true,
		action: `"` + sonosNamespace + `#GETDEVICEAUTHTOKEN"`, contentType: textXML,
	},
	{
		soap: "s", body: "s", declares: ` xmlns:s="` + soapNamespace + `"`, inner: ofSonos, cdata: true,
		action: quoted, contentType: textXML,
	},
}

// request is the upgrade call of an account in a spelling, which is taken round the clock of those there are.
func request(ctx context.Context, url string, a Account, turn int) (*http.Request, error) {
	s := spellings[turn%len(spellings)]
	return s.request(ctx, url, a, s.action, s.tree(1, string(smapi.GetDeviceAuthToken), s.text(0, "householdId", a.HouseholdID)))
}

func (s spelling) request(ctx context.Context, url string, a Account, action string, call element) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(s.envelope(a, call)))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", s.contentType)
	r.Header.Set("SOAPAction", action)
	r.Header.Set("User-Agent", "Linux UPnP/1.0 Sonos/83.1-61240 (ZPS9)")
	return r, nil
}

func (s spelling) envelope(a Account, call element) string {
	header := []element{s.credentials(a)}
	switch s.context {
	case before:
		header = append([]element{s.timeZone(s.inner)}, header...)
	case behind:
		header = append(header, s.timeZone(s.inner))
	}
	call.attributes = s.inner
	var w writer
	w.lines = s.lines
	w.WriteString(s.declaration)
	w.write(element{name: qualified(s.soap, "Envelope"), attributes: s.declares, children: []element{
		{name: qualified(s.soap, "Header"), children: header},
		{name: qualified(s.body, "Body"), children: []element{call}},
	}}, 0)
	return w.String()
}

func (s spelling) credentials(a Account) element {
	children := []element{s.text(0, "deviceId", a.DeviceID), s.text(0, "deviceProvider", a.DeviceProvider)}
	if s.context == inside {
		children = append(children, s.timeZone(""))
	}
	switch a.Kind {
	case smapi.Login:
		children = append(children, s.tree(1, "login", s.text(0, "username", a.Username), s.text(1, "password", a.Password)))
	case smapi.SessionID:
		children = append(children, s.text(1, "sessionId", a.SessionID))
	case smapi.LoginToken:
		proof := s.tree(1, "loginToken")
		for i, part := range [...]struct{ name, value string }{{"token", a.Token}, {"key", a.Key}, {"householdId", a.HouseholdID}} {
			if part.value != "" {
				proof.children = append(proof.children, s.text(i%2, part.name, part.value))
			}
		}
		if s.tokenFirst {
			children = append([]element{proof}, children...)
		} else {
			children = append(children, proof)
		}
	}
	credentials := s.tree(0, "credentials", children...)
	credentials.attributes = s.inner
	return credentials
}

func (s spelling) timeZone(attributes string) element {
	e := s.tree(0, "context", s.text(0, "timeZone", "+01:00"))
	e.attributes = attributes
	return e
}

// element is an element with children or a text.
type element struct {
	name, attributes, text string
	children               []element
}

func (s spelling) tree(prefix int, name string, children ...element) element {
	return element{name: qualified(s.sonos[prefix], name), children: children}
}

func (s spelling) text(prefix int, name, text string) element {
	if s.cdata {
		text = "<![CDATA[" + strings.ReplaceAll(text, "]]>", "]]]]><![CDATA[>") + "]]>"
	} else {
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(text)) // writes to memory, which cannot fail
		text = b.String()
	}
	return element{name: qualified(s.sonos[prefix], name), text: text}
}

func qualified(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + ":" + name
}

type writer struct {
	strings.Builder
	lines bool
}

func (w *writer) write(e element, depth int) {
	w.WriteString("<" + e.name + e.attributes + ">" + e.text)
	for _, child := range e.children {
		w.line(depth + 1)
		w.write(child, depth+1)
	}
	if len(e.children) > 0 {
		w.line(depth)
	}
	w.WriteString("</" + e.name + ">")
}

func (w *writer) line(depth int) {
	if w.lines {
		w.WriteString("\n" + strings.Repeat("  ", depth))
	}
}
