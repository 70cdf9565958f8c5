// Package smapitest has the ways in which players write everyday calls, for tests.
package smapitest

import (
	"fmt"
	"strings"
)

// EveryMethod are the methods of Sonos's schema that an upgraded home calls with its credentials, each with a body of some
// kind. getSessionId has none.
var EveryMethod = map[string]string{
	"addToContainer":          "<%[1]sid>a</%[1]sid><%[1]sparentId>b</%[1]sparentId><%[1]sindex>-1</%[1]sindex><%[1]supdateId>1</%[1]supdateId>",
	"createContainer":         "<%[1]scontainerType>playlist</%[1]scontainerType><%[1]stitle>a &amp; b</%[1]stitle><%[1]sparentId/><%[1]sseedId/>",
	"createItem":              "<%[1]sfavorite>track:1</%[1]sfavorite>",
	"deleteContainer":         "<%[1]sid>playlist:1</%[1]sid>",
	"deleteItem":              "<%[1]sfavorite>track:1</%[1]sfavorite>",
	"getAppLink":              "<%[1]shouseholdId>Sonos_abc123</%[1]shouseholdId>",
	"getContentKey":           "<%[1]sid>track:1</%[1]sid><%[1]suri>http://a/?b=1&amp;c=2</%[1]suri>",
	"getDeviceAuthToken":      "<%[1]shouseholdId>Sonos_abc123</%[1]shouseholdId><%[1]slinkCode>ABCD</%[1]slinkCode>",
	"getDeviceLinkCode":       "<%[1]shouseholdId>Sonos_abc123</%[1]shouseholdId>",
	"getExtendedMetadata":     "<%[1]sid>track:1</%[1]sid>",
	"getExtendedMetadataText": "<%[1]sid>track:1</%[1]sid><%[1]stype>BIO</%[1]stype>",
	"getLastUpdate":           "",
	"getMediaMetadata":        "<%[1]sid>track:1</%[1]sid>",
	"getMediaURI":             "<%[1]sid>track:1</%[1]sid><%[1]saction>EXPLICIT:PLAY</%[1]saction>",
	"getMetadata":             "<%[1]sid>root</%[1]sid><%[1]sindex>0</%[1]sindex><%[1]scount>100</%[1]scount><%[1]srecursive>false</%[1]srecursive>",
	"getScrollIndices":        "<%[1]sid>artists</%[1]sid>",
	"getStreamingMetadata":    "<%[1]sid>stream:1</%[1]sid>",
	"getUserInfo":             "",
	"rateItem":                "<%[1]sid>track:1</%[1]sid><%[1]srating>5</%[1]srating>",
	"removeFromContainer":     "<%[1]sid>playlist:1</%[1]sid><%[1]sindices>1,2</%[1]sindices><%[1]supdateId/>",
	"renameContainer":         "<%[1]sid>playlist:1</%[1]sid><%[1]stitle>\u00dcber &lt;uns&gt;</%[1]stitle>",
	"reorderContainer":        "<%[1]sid>playlist:1</%[1]sid><%[1]sfrom>1</%[1]sfrom><%[1]sto>2</%[1]sto><%[1]supdateId/>",
	"reportAccountAction":     "<%[1]stype>addAccount</%[1]stype>",
	"reportPlaySeconds":       "<%[1]sid>track:1</%[1]sid><%[1]sseconds>60</%[1]sseconds><%[1]sprivateData>p</%[1]sprivateData>",
	"reportPlayStatus":        "<%[1]sid>track:1</%[1]sid><%[1]sstatus>skippedTrack</%[1]sstatus>",
	"reportStatus":            "<%[1]sid>track:1</%[1]sid><%[1]serrorCode>0</%[1]serrorCode><%[1]smessage>m</%[1]smessage>",
	"search":                  "<%[1]sid>artists</%[1]sid><%[1]sterm><![CDATA[a & b]]></%[1]sterm><%[1]sindex>0</%[1]sindex><%[1]scount>10</%[1]scount>",
	"setPlayedSeconds":        "<%[1]sid>track:1</%[1]sid><%[1]sseconds>60</%[1]sseconds>",
}

// Spelling is a way in which players write a call. The account stands where %[1]s is, in Sonos's namespace by Prefix, and
// the call where %[2]s is.
type Spelling struct {
	Name, Prefix, Text string
	Wrong              string // the same with the account where players put it that is not the schema's place
}

// The namespaces, in quotes.
const (
	SOAPXMLNS  = `"http://schemas.xmlsoap.org/soap/envelope/"`
	SonosXMLNS = `"http://www.sonos.com/Services/1.1"`
	zone       = `<context><timezone>+01:00</timezone></context>`
)

// Spellings are those that were seen.
var Spellings = []Spelling{
	{
		Name: "default namespace", Text: `<?xml version="1.0" encoding="utf-8"?>` + "\n" + `<s:Envelope xmlns:s=` + SOAPXMLNS +
			`><s:Header><credentials xmlns=` + SonosXMLNS + `><deviceId>00-0E</deviceId><deviceProvider>Sonos</deviceProvider>%[1]s</credentials>` +
			`<context xmlns=` + SonosXMLNS + `/></s:Header><s:Body>%[2]s</s:Body></s:Envelope>`,
	},
	{
		Name: "prefix at the envelope, account first", Prefix: "ns:", Text: `<soapenv:Envelope xmlns:soapenv=` + SOAPXMLNS + ` xmlns:ns=` + SonosXMLNS +
			`><soapenv:Header><ns:credentials><ns:deviceId>00-0E</ns:deviceId><ns:deviceProvider>Sonos</ns:deviceProvider>%[1]s</ns:credentials></soapenv:Header>` +
			`<soapenv:Body>%[2]s</soapenv:Body></soapenv:Envelope>`,
		Wrong: `<soapenv:Envelope xmlns:soapenv=` + SOAPXMLNS + ` xmlns:ns=` + SonosXMLNS +
			`><soapenv:Header><ns:credentials>%[1]s<ns:deviceId>00-0E</ns:deviceId><ns:deviceProvider>Sonos</ns:deviceProvider></ns:credentials></soapenv:Header>` +
			`<soapenv:Body>%[2]s</soapenv:Body></soapenv:Envelope>`,
	},
	{
		Name: "Sonos's namespace as the envelope's default, context inside", Text: `<e:Envelope xmlns:e=` + SOAPXMLNS + ` xmlns=` + SonosXMLNS +
			`><e:Header><credentials><deviceId>00-0E</deviceId>%[1]s` + zone + `</credentials></e:Header><e:Body>%[2]s</e:Body></e:Envelope>`,
		Wrong: `<e:Envelope xmlns:e=` + SOAPXMLNS + ` xmlns=` + SonosXMLNS +
			`><e:Header><credentials><deviceId>00-0E</deviceId>` + zone + `%[1]s</credentials></e:Header><e:Body>%[2]s</e:Body></e:Envelope>`,
	},
	{
		Name: "two prefixes, byte order mark, comments", Prefix: "b:", Text: "\ufeff<!-- a --><SOAP-ENV:Envelope xmlns:SOAP-ENV=" + SOAPXMLNS +
			" xmlns:ns0=" + SOAPXMLNS + " xmlns:a=" + SonosXMLNS + " SOAP-ENV:encodingStyle=''>\r\n <SOAP-ENV:Header>\r\n  <a:context/>\r\n" +
			"  <b:credentials xmlns:b=" + SonosXMLNS + ">\r\n   <!-- b --><a:zonePlayerId>R</a:zonePlayerId>\r\n   <a:deviceCert>&#x41;\u00e4</a:deviceCert>\r\n   %[1]s\r\n" +
			"  </b:credentials >\r\n </SOAP-ENV:Header>\r\n <ns0:Body>\r\n%[2]s\r\n</ns0:Body></SOAP-ENV:Envelope>\r\n",
	},
	{
		Name: "no device", Prefix: "n:", Text: `<s:Envelope xmlns:s=` + SOAPXMLNS + `><s:Header><n:credentials xmlns:n=` + SonosXMLNS +
			`>%[1]s</n:credentials></s:Header><s:Body>%[2]s</s:Body></s:Envelope>`,
	},
}

// Call is a call of a method, with its own xmlns, since a spelling may have none in force there.
func (s *Spelling) Call(text, method, account string) []byte {
	prefix := s.Prefix
	declaration := " xmlns=" + SonosXMLNS
	if prefix != "" {
		declaration = " xmlns:" + strings.TrimSuffix(prefix, ":") + "=" + SonosXMLNS
	}
	content := EveryMethod[method]
	if strings.Contains(content, "%") {
		content = fmt.Sprintf(content, prefix)
	}
	return fmt.Appendf(nil, text, account, "<"+prefix+method+declaration+">"+content+"</"+prefix+method+">")
}

// Element is one of Sonos's.
func (s *Spelling) Element(name string, content ...string) string {
	return "<" + s.Prefix + name + ">" + strings.Join(content, "") + "</" + s.Prefix + name + ">"
}

// Place is where a call has its token: in the header Authorization, in the loginToken, or in both.
type Place struct {
	Authorization string

	account string // what is in the loginToken, "-" for none at all
}

// Places are those in which a token comes, and its key.
func Places(token, key string) []Place {
	return []Place{
		{"", "<%[1]stoken>" + token + "</%[1]stoken><%[1]skey>" + key + "</%[1]skey><%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
		{"", "\n<%[1]stoken>" + token + "</%[1]stoken>\n<!-- --><%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>\n"},
		{"", fmt.Sprintf("<%%[1]stoken>%s<![CDATA[%s]]>&#%d;%s</%%[1]stoken>", token[:1], token[1:5], token[5], token[6:])},
		{"Bearer " + token, "<%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
		{token, "<%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
		{"bearer " + token, "<%[1]stoken>" + token + "</%[1]stoken><%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
		{token, "-"},
	}
}

// Account is the loginToken, blank where the token stands in Authorization alone.
func (p *Place) Account(s *Spelling) string {
	if p.account == "-" {
		return ""
	}
	return s.Element("loginToken", fmt.Sprintf(p.account, s.Prefix))
}
