package smapi

import (
	"bytes"
	"encoding/xml"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var signIns = append(slices.Clone(allMethods), Poll, GetAppLink, GetDeviceLinkCode)

func TestTheCallsOfAListenerWhoSignsInAreReadOnDemand(t *testing.T) {
	nobody := Credentials{Kind: None}
	for file, want := range map[string]Call{
		"sign-in-get-app-link.xml":         {Method: GetAppLink, HouseholdID: "Sonos_abc123", Credentials: nobody},
		"sign-in-get-app-link-bare.xml":    {Method: GetAppLink, HouseholdID: "Sonos_abc123", Credentials: nobody},
		"sign-in-get-device-link-code.xml": {Method: GetDeviceLinkCode, HouseholdID: "Sonos_abc123", Credentials: nobody},
		"sign-in-poll.xml":                 {Method: Poll, HouseholdID: "Sonos_abc123", LinkDeviceID: "sealed", Credentials: nobody},

		// Of a client that node-soap makes of Sonos's WSDL, and of one that sends its linkDeviceId as its deviceId, too.
		"sign-in-get-app-link-node-soap.xml":         {Method: GetAppLink, HouseholdID: "Sonos_abc123", Credentials: nobody},
		"sign-in-get-device-link-code-node-soap.xml": {Method: GetDeviceLinkCode, HouseholdID: "Sonos_abc123", Credentials: nobody},
		"sign-in-poll-node-soap.xml":                 {Method: Poll, HouseholdID: "Sonos_abc123", LinkDeviceID: "sealed", Credentials: nobody},

		// Of zeep, which gives every element of Sonos a prefix.
		"sign-in-get-app-link-zeep.xml":         {Method: GetAppLink, HouseholdID: "Sonos_abc123", Credentials: nobody},
		"sign-in-get-device-link-code-zeep.xml": {Method: GetDeviceLinkCode, HouseholdID: "Sonos_abc123", Credentials: nobody},
		"sign-in-poll-zeep.xml":                 {Method: Poll, HouseholdID: "Sonos_abc123", LinkDeviceID: "sealed", Credentials: nobody},

		"sign-in-poll-third-party.xml": {Method: Poll, HouseholdID: "Sonos_abc123", LinkDeviceID: "sealed", Credentials: nobody},
	} {
		body := requestFile(t, file)
		for _, action := range []Method{want.Method.element(), Method(strings.ToLower(string(want.Method.element()))), ""} {
			got, _, err := Read(call(action, body), signIns)
			if got == nil {
				t.Errorf("%s as %q: not read: %v", file, action, err)
				continue
			}
			if want.Arrived = got.Arrived; *got != want {
				t.Errorf("%s: read as %+v, want %+v", file, *got, want)
			}
		}
		if got, _, err := Read(call(want.Method.element(), body), allMethods); got != nil || !isNoCall(err) {
			t.Errorf("%s: read though nobody asked for it: %+v, %v", file, got, err)
		}
	}
	// Whoever signs in may be upgraded all the same.
	if got, _, err := Read(post(requestFile(t, "upgrade.xml")), signIns); got == nil || got.Method != GetDeviceAuthToken {
		t.Errorf("an upgrade: %+v, %v", got, err)
	}
}

func TestAPollThatMayBeAnothersIsForwardedAsItCame(t *testing.T) {
	poll := string(requestFile(t, "sign-in-poll.xml"))
	link := string(requestFile(t, "sign-in-get-app-link.xml"))
	long := strings.Repeat("x", MaxLinkDeviceID+1)
	for name, test := range map[string]struct {
		body  string
		clear bool
	}{
		"no linkDeviceId":          {strings.Replace(poll, "<linkDeviceId>sealed</linkDeviceId>", "", 1), true},
		"a blank linkDeviceId":     {strings.Replace(poll, "sealed", " ", 1), true},
		"a long linkDeviceId":      {strings.Replace(poll, "sealed", long, 1), true},
		"a long linkCode":          {strings.Replace(poll, "ABC-123", long[:MaxLinkCode+1], 1), true},
		"a linkCode of no Sonos's": {strings.Replace(poll, "<linkCode>", `<linkCode xmlns="">`, 1), true},
		"a linkCode elsewhere":     {strings.Replace(poll, "<linkCode>ABC-123</linkCode>", "<x><linkCode>ABC-123</linkCode></x>", 1), true},
		"a getAppLink with one":    {strings.Replace(link, "<hardware>", "<linkCode>ABC-123</linkCode><hardware>", 1), true},
		"a blank linkCode":         {strings.Replace(poll, "ABC-123", "", 1), false},
		"two linkCodes":            {strings.Replace(poll, "<linkCode>", "<linkCode>ABC</linkCode><linkCode>", 1), false},
		"two linkDeviceIds":        {strings.Replace(poll, "<linkDeviceId>", "<linkDeviceId>x</linkDeviceId><linkDeviceId>", 1), false},
		"an element in it":         {strings.Replace(poll, "sealed", "<b>sealed</b>", 1), false},
		"no household":             {strings.Replace(poll, "<householdId>Sonos_abc123</householdId>", "", 1), false},
		"two households":           {strings.Replace(poll, "<householdId>", "<householdId>x</householdId><householdId>", 1), false},
		"a link without household": {strings.Replace(link, "Sonos_abc123", "", 1), false},
		"a link of two households": {strings.Replace(link, "<householdId>", "<householdId>x</householdId><householdId>", 1), false},
		"two calls":                {strings.Replace(link, "</getAppLink>", "</getAppLink><getAppLink/>", 1), false},
	} {
		r := post([]byte(test.body))
		r.Header.Del("SOAPAction")
		if got, _, err := Read(r, signIns); got != nil || isNoCall(err) != test.clear {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != test.body {
			t.Errorf("%s: forwarded with %v as %q", name, err, got)
		}
	}
}

// Without signing in, a poll is forwarded before it is parsed.
func TestAPollThatNobodyAnswersIsToldWithoutParsing(t *testing.T) {
	body := requestFile(t, "sign-in-poll.xml")
	malformed := append(bytes.Clone(body), "<"...)
	if _, _, err := Read(post(malformed), upgrades); err != poll {
		t.Errorf("it was parsed: %v", err)
	}
	if _, _, err := Read(post(malformed), signIns); err == poll || err == nil {
		t.Errorf("it was not parsed: %v", err)
	}
}

// The elements and their order are those of Sonos's schema, from 1.19.4 on.
func TestLinksAreInTheOrderOfTheSchema(t *testing.T) {
	link := Link{URL: "https://auth.example.com/device?user_code=ABCD&x=<>", Code: "ABCD-EFGH", Show: true, DeviceID: "sealed"}
	for _, test := range []struct {
		doc  []byte
		want string
	}{
		{AppLink(&link, "LINK"), "getAppLinkResponse getAppLinkResult authorizeAccount appUrlStringId deviceLink regUrl linkCode showLinkCode linkDeviceId"},
		{DeviceLinkCode(&link), "getDeviceLinkCodeResponse getDeviceLinkCodeResult regUrl linkCode showLinkCode linkDeviceId"},
		{SignedIn("a", "b", "hash"), "getDeviceAuthTokenResponse getDeviceAuthTokenResult authToken privateKey userInfo userIdHashCode"},
		{SignedIn("a", "b", ""), "getDeviceAuthTokenResponse getDeviceAuthTokenResult authToken privateKey"},
	} {
		names := elements(t, test.doc)
		for i, name := range names[2:] {
			names[i] = strings.TrimPrefix(name, sonosNamespace+" ")
		}
		if got := strings.Join(names[:len(names)-2], " "); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
	var got struct {
		URL  string `xml:"Body>getAppLinkResponse>getAppLinkResult>authorizeAccount>deviceLink>regUrl"`
		Show bool   `xml:"Body>getAppLinkResponse>getAppLinkResult>authorizeAccount>deviceLink>showLinkCode"`
	}
	if err := xml.Unmarshal(AppLink(&link, "LINK"), &got); err != nil || got.URL != link.URL || !got.Show {
		t.Errorf("arrives as %+v, %v", got, err)
	}
}

func TestOnlyLinksThatAppsCanTakeAreFit(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Link)
		want   error
	}{
		"fit":               {func(*Link) {}, nil},
		"32 characters":     {func(l *Link) { l.Code = strings.Repeat("ü", 32) }, nil},
		"33 characters":     {func(l *Link) { l.Code = strings.Repeat("x", 33) }, ErrLinkCode},
		"blank":             {func(l *Link) { l.Code = " " }, ErrLinkCode},
		"no text":           {func(l *Link) { l.Code = "a\x00" }, ErrLinkCode},
		"a long id":         {func(l *Link) { l.DeviceID = strings.Repeat("x", 1025) }, ErrLinkID},
		"the longest id":    {func(l *Link) { l.DeviceID = strings.Repeat("x", 1024) }, nil},
		"an URL not a text": {func(l *Link) { l.URL += "\a" }, ErrLinkURL},
	} {
		l := Link{URL: "https://a.example", Code: "ABC", DeviceID: "sealed"}
		if test.change(&l); CheckLink(&l) != test.want {
			t.Errorf("%s: %v", name, CheckLink(&l))
		}
	}
}

// FuzzReadSignIn holds that nothing makes the reader panic, that what it forwards is as it came, and that another reader
// finds the same in what it reads.
func FuzzReadSignIn(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(requests, "sign-in-*.xml"))
	if err != nil || len(files) == 0 {
		f.Fatal("no requests", err)
	}
	for _, file := range files {
		f.Add(requestFile(f, filepath.Base(file)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := post(body)
		r.Header.Del("SOAPAction")
		call, _, _ := Read(r, signIns)
		if call == nil {
			if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
				t.Fatalf("forwarded with %v as %q", err, got)
			}
			return
		}
		if call.Method.element() == GetDeviceAuthToken && call.Method != Poll || call.Credentials.Kind != None {
			return // as in FuzzRead
		}
		type parts struct {
			HouseholdID  string `xml:"http://www.sonos.com/Services/1.1 householdId"`
			LinkDeviceID string `xml:"http://www.sonos.com/Services/1.1 linkDeviceId"`
		}
		var want struct {
			Poll parts `xml:"Body>getDeviceAuthToken"`
			App  parts `xml:"Body>getAppLink"`
			Code parts `xml:"Body>getDeviceLinkCode"`
		}
		d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, byteOrderMark)))
		d.CharsetReader = func(_ string, input io.Reader) (io.Reader, error) { return input, nil }
		if err := d.Decode(&want); err != nil {
			t.Fatalf("no document: %v", err)
		}
		p := map[Method]parts{Poll: want.Poll, GetAppLink: want.App, GetDeviceLinkCode: want.Code}[call.Method]
		if p.HouseholdID != call.HouseholdID || call.Method == Poll && strings.TrimSpace(p.LinkDeviceID) != call.LinkDeviceID {
			t.Fatalf("read as %+v, want %+v", call, p)
		}
	})
}
