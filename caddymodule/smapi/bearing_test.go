package smapi

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// What stands for tokens of ours in these tests.
const (
	ourToken  = "smv1.0123456789abcdefghij"
	ourHandle = "smv1_0123456789abcdefghij"
)

var ours Ours = func(text []byte) bool { return bytes.Contains(text, []byte("smv1")) }

// everyMethod are the methods of Sonos's schema that an upgraded home calls with its credentials, each with a body of some
// kind. getSessionId has none.
var everyMethod = map[string]string{
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

// spelling is a way in which players write a call. The account stands where %[1]s is, in Sonos's namespace by prefix, and
// the call where %[2]s is.
type spelling struct {
	name, prefix, text string
	wrong              string // the same with the account where players put it that is not the schema's place
}

const (
	soapXMLNS  = `"http://schemas.xmlsoap.org/soap/envelope/"`
	sonosXMLNS = `"http://www.sonos.com/Services/1.1"`
	zone       = `<context><timezone>+01:00</timezone></context>`
)

var spellings = []spelling{
	{
		name: "default namespace", text: `<?xml version="1.0" encoding="utf-8"?>` + "\n" + `<s:Envelope xmlns:s=` + soapXMLNS +
			`><s:Header><credentials xmlns=` + sonosXMLNS + `><deviceId>00-0E</deviceId><deviceProvider>Sonos</deviceProvider>%[1]s</credentials>` +
			`<context xmlns=` + sonosXMLNS + `/></s:Header><s:Body>%[2]s</s:Body></s:Envelope>`,
	},
	{
		name: "prefix at the envelope, account first", prefix: "ns:", text: `<soapenv:Envelope xmlns:soapenv=` + soapXMLNS + ` xmlns:ns=` + sonosXMLNS +
			`><soapenv:Header><ns:credentials><ns:deviceId>00-0E</ns:deviceId><ns:deviceProvider>Sonos</ns:deviceProvider>%[1]s</ns:credentials></soapenv:Header>` +
			`<soapenv:Body>%[2]s</soapenv:Body></soapenv:Envelope>`,
		wrong: `<soapenv:Envelope xmlns:soapenv=` + soapXMLNS + ` xmlns:ns=` + sonosXMLNS +
			`><soapenv:Header><ns:credentials>%[1]s<ns:deviceId>00-0E</ns:deviceId><ns:deviceProvider>Sonos</ns:deviceProvider></ns:credentials></soapenv:Header>` +
			`<soapenv:Body>%[2]s</soapenv:Body></soapenv:Envelope>`,
	},
	{
		name: "Sonos's namespace as the envelope's default, context inside", text: `<e:Envelope xmlns:e=` + soapXMLNS + ` xmlns=` + sonosXMLNS +
			`><e:Header><credentials><deviceId>00-0E</deviceId>%[1]s` + zone + `</credentials></e:Header><e:Body>%[2]s</e:Body></e:Envelope>`,
		wrong: `<e:Envelope xmlns:e=` + soapXMLNS + ` xmlns=` + sonosXMLNS +
			`><e:Header><credentials><deviceId>00-0E</deviceId>` + zone + `%[1]s</credentials></e:Header><e:Body>%[2]s</e:Body></e:Envelope>`,
	},
	{
		name: "two prefixes, byte order mark, comments", prefix: "b:", text: "\ufeff<!-- a --><SOAP-ENV:Envelope xmlns:SOAP-ENV=" + soapXMLNS +
			" xmlns:ns0=" + soapXMLNS + " xmlns:a=" + sonosXMLNS + " SOAP-ENV:encodingStyle=''>\r\n <SOAP-ENV:Header>\r\n  <a:context/>\r\n" +
			"  <b:credentials xmlns:b=" + sonosXMLNS + ">\r\n   <!-- b --><a:zonePlayerId>R</a:zonePlayerId>\r\n   <a:deviceCert>&#x41;\u00e4</a:deviceCert>\r\n   %[1]s\r\n" +
			"  </b:credentials >\r\n </SOAP-ENV:Header>\r\n <ns0:Body>\r\n%[2]s\r\n</ns0:Body></SOAP-ENV:Envelope>\r\n",
	},
	{
		name: "no device", prefix: "n:", text: `<s:Envelope xmlns:s=` + soapXMLNS + `><s:Header><n:credentials xmlns:n=` + sonosXMLNS +
			`>%[1]s</n:credentials></s:Header><s:Body>%[2]s</s:Body></s:Envelope>`,
	},
}

// call is a call of a method, with its own xmlns, since a spelling may have none in force there.
func (s *spelling) call(text, method, account string) []byte {
	prefix := s.prefix
	declaration := " xmlns=" + sonosXMLNS
	if prefix != "" {
		declaration = " xmlns:" + strings.TrimSuffix(prefix, ":") + "=" + sonosXMLNS
	}
	content := everyMethod[method]
	if strings.Contains(content, "%") {
		content = fmt.Sprintf(content, prefix)
	}
	return fmt.Appendf(nil, text, account, "<"+prefix+method+declaration+">"+content+"</"+prefix+method+">")
}

func (s *spelling) element(name string, content ...string) string {
	return "<" + s.prefix + name + ">" + strings.Join(content, "") + "</" + s.prefix + name + ">"
}

// oldAccount is what an upgraded home becomes, and how a native call has it.
type oldAccount struct {
	Credentials
	native func(*spelling) string
}

var oldAccounts = []oldAccount{
	{Credentials{Kind: Login, Username: `a&b`, Password: " <>\"'\u00df "}, func(s *spelling) string {
		return s.element("login", s.element("username", "a&amp;b"), s.element("password", " &lt;&gt;\"'\u00df "))
	}},
	{Credentials{Kind: SessionID, SessionID: "session-1"}, func(s *spelling) string { return s.element("sessionId", "session-1") }},
	{Credentials{Kind: LoginToken, Token: "old", Key: "key"}, func(s *spelling) string {
		return s.element("loginToken", s.element("token", "old"), s.element("key", "key"), s.element("householdId", "Sonos_old"))
	}},
	{Credentials{Kind: LoginToken, Token: "old"}, func(s *spelling) string {
		return s.element("loginToken", s.element("token", "old"), s.element("householdId", "Sonos_old"))
	}},
	{Credentials{Kind: Anonymous}, func(*spelling) string { return "" }},
}

func everydayPost(method, authorization string, body []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/smapi", bytes.NewReader(body))
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+method+`"`)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

func readOurs(r *http.Request, methods []Method) (call *Call, why error) {
	_ = ours.Serve(httptest.NewRecorder(), r, methods, func(c *Call, _ int, err error) error {
		call, why = c, err
		return nil
	})
	return call, why
}

// The places of a token, by how the header Authorization and the loginToken have it.
var places = []struct{ authorization, loginToken string }{
	{"", "<%[1]stoken>" + ourToken + "</%[1]stoken><%[1]skey>" + ourHandle + "</%[1]skey><%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
	{"", "\n<%[1]stoken>" + ourToken + "</%[1]stoken>\n<!-- --><%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>\n"},
	{"", "<%[1]stoken>s<![CDATA[mv1.]]>&#48;123456789abcdefghij</%[1]stoken>"},
	{"Bearer " + ourToken, "<%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
	{ourToken, "<%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
	{"bearer " + ourToken, "<%[1]stoken>" + ourToken + "</%[1]stoken><%[1]shouseholdId>Sonos_new_1</%[1]shouseholdId>"},
	{ourToken, "-"}, // no loginToken at all
}

func TestACallOfAnUpgradedHomeBecomesTheNativeOneByteForByte(t *testing.T) {
	calls := 0
	for method := range everyMethod {
		for _, s := range spellings {
			for _, place := range places {
				account := ""
				if place.loginToken != "-" {
					account = s.element("loginToken", fmt.Sprintf(place.loginToken, s.prefix))
				}
				for _, text := range []string{s.text, s.wrong} {
					if text == "" {
						continue
					}
					r := everydayPost(method, place.authorization, s.call(text, method, account))
					call, why := readOurs(r, upgrades)
					if call == nil || call.Bearing == nil || string(call.Method) != method || call.Credentials.Token != ourToken {
						t.Fatalf("%s, %s, %q: read as %+v, %v", method, s.name, place, call, why)
					}
					for _, old := range oldAccounts {
						calls++
						want := s.call(s.text, method, old.native(&s))
						to := r.Clone(t.Context())
						if err := call.Bearing.Translate(to, &old.Credentials, "Sonos_old"); err != nil {
							t.Fatal(err)
						}
						got, err := io.ReadAll(to.Body)
						// Where a comment stood in front of the account there is no telling where that belongs.
						if account == "" && s.name == "two prefixes, byte order mark, comments" {
							got, want = squeezed(got), squeezed(want)
						}
						if err != nil || !bytes.Equal(got, want) {
							t.Fatalf("%s, %s, %q, %s:\n got %s\nwant %s", method, s.name, place, old.Kind, got, want)
						}
						if len(to.Header["Authorization"]) != 0 || account != "" && to.ContentLength != int64(len(want)) ||
							account != "" && to.Header.Get("Content-Length") != fmt.Sprint(len(want)) {
							t.Fatalf("%s: the headers are %v, the length %d", method, to.Header, to.ContentLength)
						}
					}
				}
			}
		}
	}
	t.Log(calls, "calls")
}

func squeezed(text []byte) []byte { return bytes.Join(bytes.Fields(text), nil) }

func TestAnEmptyCredentialsElementTakesTheOldOnes(t *testing.T) {
	text := `<s:Envelope xmlns:s=` + soapXMLNS + ` xmlns:n=` + sonosXMLNS + `><s:Header><n:credentials a="b" />%s</s:Header><s:Body><n:getLastUpdate/></s:Body></s:Envelope>`
	call, why := readOurs(everydayPost("getLastUpdate", ourToken, fmt.Appendf(nil, text, "")), upgrades)
	if call == nil {
		t.Fatal(why)
	}
	for want, old := range map[string]Credentials{
		`<n:credentials a="b" ><n:sessionId>1</n:sessionId></n:credentials>`: {Kind: SessionID, SessionID: "1"},
		`<n:credentials a="b" />`: {Kind: Anonymous},
	} {
		got, err := call.Bearing.with(&old, "")
		if err != nil || !bytes.Contains(got, []byte(want)) {
			t.Errorf("%v: %s", err, got)
		}
	}
}

func TestOldCredentialsAreEscapedAsTheBodyIsEncoded(t *testing.T) {
	s := spellings[4]
	body := s.call(s.text, "getLastUpdate", s.element("loginToken", s.element("token", ourToken)))
	for _, c := range []struct{ declaration, contentType, password, want string }{
		{"", "text/xml", "a\r\n\tb", "a&#13;\n\tb"},
		{"", "text/xml", "\u00df\U0001f600\ufffd]]>", "\u00df\U0001f600\ufffd]]&gt;"},
		{`<?xml version="1.0" encoding="US-ASCII"?>`, "text/xml", "\u00df\ufffd", "&#223;&#65533;"},
		{"", "text/xml; charset=us-ascii", "\u00df", "&#223;"},
		{"", "text/xml", "\x00", ""},
		{"", "text/xml", "\xff", ""},
		{"", "text/xml", "\uffff", ""},
	} {
		r := everydayPost("getLastUpdate", "", append([]byte(c.declaration), body...))
		r.Header.Set("Content-Type", c.contentType)
		call, why := readOurs(r, upgrades)
		if call == nil {
			t.Fatal(why)
		}
		got, err := call.Bearing.with(&Credentials{Kind: Login, Username: "u", Password: c.password}, "")
		if c.want == "" {
			if err != ErrNotWritable {
				t.Errorf("%q: %v, %s", c.password, err, got)
			}
		} else if err != nil || !bytes.Contains(got, []byte("<n:password>"+c.want+"</n:password>")) {
			t.Errorf("%q: %v, %s", c.password, err, got)
		}
	}
}

func TestWhatIsAmbiguousWithATokenOfOursIsRefused(t *testing.T) {
	s := spellings[4]
	token := s.element("loginToken", s.element("token", ourToken))
	foreign := s.element("loginToken", s.element("token", "other"))
	call := func(account string) string { return string(s.call(s.text, "getLastUpdate", account)) }
	for name, c := range map[string]struct{ method, authorization, body string }{
		"malformed":                      {"getLastUpdate", "", call(token) + "<"},
		"malformed beside Authorization": {"getLastUpdate", ourToken, call("") + "<"},
		"a DTD":                          {"getLastUpdate", "", "<!DOCTYPE a>" + call(token)},
		"two loginTokens":                {"getLastUpdate", "", call(token + token)},
		"a session beside it":            {"getLastUpdate", "", call(token + s.element("sessionId", "1"))},
		"a login beside Authorization":   {"getLastUpdate", ourToken, call(s.element("login", s.element("username", "a"), s.element("password", "b")))},
		"a foreign token":                {"getLastUpdate", ourToken, call(foreign)},
		"a foreign Authorization":        {"getLastUpdate", "Bearer other", call(token)},
		"Basic":                          {"getLastUpdate", "Basic b3RoZXI=", call(token)},
		"another one in Authorization":   {"getLastUpdate", ourToken + "x", call(token)},
		"a user name in the call":        {"getLastUpdate", "", strings.Replace(call(token), "</n:getLastUpdate>", "<n:username>a</n:username></n:getLastUpdate>", 1)},
		"two credentials":                {"getLastUpdate", "", strings.Replace(call(token), "</s:Header>", "<credentials/></s:Header>", 1)},
		"one in the call":                {"getLastUpdate", "", strings.Replace(call(token), "</n:getLastUpdate>", "<n:id>"+ourToken+"</n:id></n:getLastUpdate>", 1)},
		"one in the call alone":          {"getLastUpdate", "", strings.Replace(call(foreign), "</n:getLastUpdate>", "<n:id>"+ourToken+"</n:id></n:getLastUpdate>", 1)},
		"one in the call by references":  {"getLastUpdate", "", strings.Replace(call(token), "</n:getLastUpdate>", "<n:id>&#115;mv1.0123456789abcdefghij</n:id></n:getLastUpdate>", 1)},
		"one in a comment":               {"getLastUpdate", "", call(token) + "<!--" + ourToken + "-->"},
		"one in an attribute":            {"getLastUpdate", "", strings.Replace(call(token), "<n:getLastUpdate", "<n:getLastUpdate a='"+ourToken+"'", 1)},
		"no header":                      {"getLastUpdate", ourToken, `<s:Envelope xmlns:s=` + soapXMLNS + `><s:Body><n:getLastUpdate xmlns:n=` + sonosXMLNS + `/></s:Body></s:Envelope>`},
		"two calls":                      {"getLastUpdate", "", strings.Replace(call(token), "</s:Body>", "<n/></s:Body>", 1)},
		"a method that is answered":      {"getMetadata", "", string(s.call(s.text, "getDeviceAuthToken", token))},
		"an action that is answered":     {"getDeviceAuthToken", "", call(token)},
		"not ASCII as declared":          {"getLastUpdate", "", `<?xml version="1.0" encoding="us-ascii"?>` + strings.Replace(call(token), "other", "\u00df", 1) + "<!--\u00df-->"},
	} {
		got, why := readOurs(everydayPost(c.method, c.authorization, []byte(c.body)), upgrades)
		if _, refused := why.(Refuse); got != nil || !refused {
			t.Errorf("%s: %+v, %v", name, got, why)
		} else if strings.Contains(why.Error(), "smv1") {
			t.Errorf("%s: the error shows the token: %v", name, why)
		}
	}
}

func TestATokenOfOursIsFoundInWhatIsNoCall(t *testing.T) {
	body := []byte("<a>" + ourToken + "</a>")
	for name, change := range map[string]func(*http.Request){
		"GET":            func(r *http.Request) { r.Method = http.MethodGet },
		"JSON":           func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"a coding":       func(r *http.Request) { r.Header.Set("Content-Encoding", "br") },
		"trailers":       func(r *http.Request) { r.Trailer = http.Header{"A": nil} },
		"no XML":         func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("no XML " + ourToken)) },
		"more than fits": func(r *http.Request) { r.ContentLength = MaxBody + 1 },
		"more than fits, no length": func(r *http.Request) {
			r.ContentLength = -1
			r.Body = io.NopCloser(strings.NewReader("<a>" + strings.Repeat(" ", MaxBody) + ourToken))
		},
	} {
		r := everydayPost("getLastUpdate", "", body)
		change(r)
		if call, why := readOurs(r, upgrades); call != nil || !isNoCall(why) {
			t.Errorf("%s: %+v, %v", name, call, why)
		}
		got, err := io.ReadAll(r.Body)
		if err != ErrTokenInBody || bytes.Contains(got, []byte("smv1.0")) || !Met(r.Body) {
			t.Errorf("%s: forwarded with %v: %s", name, err, got[max(0, len(got)-50):])
		}

		r = everydayPost("getLastUpdate", "Bearer "+ourToken, body)
		change(r)
		if _, why := readOurs(r, upgrades); why != refuseBody {
			t.Errorf("%s with Authorization: %v", name, why)
		}
	}
}

func TestATokenOfOursThatComesInPiecesIsFound(t *testing.T) {
	for size := 1; size < 200; size++ {
		r := everydayPost("getLastUpdate", "", nil)
		r.Header.Set("Content-Type", "text/plain")
		pad := strings.Repeat("x", 300+size)
		r.ContentLength = -1
		r.Body = io.NopCloser(&pieces{[]byte(pad + ourToken + pad), size})
		_, _ = readOurs(r, upgrades)
		got, err := io.ReadAll(r.Body)
		if err != ErrTokenInBody || !strings.HasPrefix(pad+ourToken[:4], string(got)) || bytes.Contains(got, []byte("smv1")) {
			t.Fatalf("in pieces of %d: %v, %q", size, err, got)
		}
	}
}

type pieces struct {
	rest []byte
	size int
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(to[:min(len(to), p.size)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func TestCallsWithoutATokenOfOursAreAsWithoutOne(t *testing.T) {
	for _, file := range []string{"upgrade.xml", "forward-get-metadata.xml", "forward-cdata-end.xml", "login-token.xml"} {
		body := requestFile(t, file)
		r := post(body)
		call, why := readOurs(r, upgrades)
		want, _, wantWhy := Read(post(body), upgrades)
		if wantWhy != why || (call == nil) != (want == nil) || call != nil && (call.Bearing != nil || call.Credentials != want.Credentials) {
			t.Errorf("%s: %+v, %v, want %+v, %v", file, call, why, want, wantWhy)
		}
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: forwarded with %v as %q", file, err, got)
		}
	}
}

func TestACallThatIsAnsweredHereTellsOfItsTokenToo(t *testing.T) {
	s := spellings[4]
	for _, method := range []Method{GetDeviceAuthToken, RefreshAuthToken} {
		content := ""
		if method == GetDeviceAuthToken {
			content = s.element("householdId", "Sonos_abc123")
		}
		account := s.element("loginToken", s.element("token", ourToken), s.element("key", ourHandle), s.element("householdId", "Sonos_abc123"))
		body := fmt.Appendf(nil, s.text, account, "<n:"+string(method)+" xmlns:n="+sonosXMLNS+">"+content+"</n:"+string(method)+">")
		call, why := readOurs(everydayPost(string(method), "", body), allMethods)
		if call == nil || call.Bearing == nil || call.Method != method || call.HouseholdID != "Sonos_abc123" {
			t.Errorf("%s: %+v, %v", method, call, why)
		}
	}
}

// FuzzOurs holds that no token of ours gets on, and that nothing else changes.
func FuzzOurs(f *testing.F) {
	for _, s := range spellings {
		for i, place := range places {
			account := ""
			if place.loginToken != "-" {
				account = s.element("loginToken", fmt.Sprintf(place.loginToken, s.prefix))
			}
			for n, text := range []string{s.text, s.wrong} {
				if text != "" {
					f.Add(s.call(text, []string{"search", "getMetadata"}[(i+n)%2], account), place.authorization)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, authorization string) {
		r := everydayPost("getMetadata", authorization, body)
		r.Header.Del("SOAPAction")
		call, why := readOurs(r, allMethods)
		if call == nil || call.Bearing == nil {
			if _, refused := why.(Refuse); refused || call != nil {
				return
			}
			got, err := io.ReadAll(r.Body)
			if ours(got) || ours([]byte(r.Header.Get("Authorization"))) {
				t.Fatalf("forwarded with %v", why)
			}
			if err == nil && !bytes.Equal(got, body) {
				t.Fatalf("forwarded as %q", got)
			}
			if texts, ok := textsOf(got); ok && slices.ContainsFunc(texts, func(e element) bool { return ours(e.text) }) {
				t.Fatal("forwarded a token by references")
			}
			return
		}
		for _, old := range oldAccounts {
			to := r.Clone(t.Context())
			if err := call.Bearing.Translate(to, &old.Credentials, "Sonos_old"); err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(to.Body)
			if ours(got) || len(to.Header["Authorization"]) > 0 || int64(len(got)) != to.ContentLength {
				t.Fatalf("became %q", got)
			}
			s := scanners.Get().(*scanner)
			d, err := s.scan(got)
			if err != nil || slices.ContainsFunc(d, func(e element) bool { return ours(e.text) }) {
				t.Fatalf("became %q with %v", got, err)
			}
			header, content, err := d.envelope()
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := d.credentials(header)
			if c.DeviceID, c.DeviceProvider = "", ""; err != nil || c != old.Credentials || string(d[d[content].first].local) != string(call.Method) {
				t.Fatalf("reads as %+v, %v", c, err)
			}
			s.release()
			// What is before and behind both places is as it came.
			b := call.Bearing
			first, last := b.at, b.at
			if b.to > b.from {
				first, last = min(b.from, b.at), max(b.to, b.at)
			}
			if !bytes.HasPrefix(got, body[:first]) || !bytes.HasSuffix(got, body[min(len(body), last+2*btoi(b.empty)):]) {
				t.Fatalf("changed elsewhere: %q", got)
			}
		}
	})
}

func textsOf(body []byte) (document, bool) {
	d, err := new(scanner).scan(body)
	return d, err == nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
