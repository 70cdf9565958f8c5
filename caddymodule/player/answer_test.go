package player

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

const answers = "../../testdata/answers"

func answerFile(t testing.TB, name string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(answers, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRecordedAnswersAreRead(t *testing.T) {
	for name, want := range map[string]Answer{
		"upgraded.xml":            {Outcome: Upgraded},
		"upgraded-escaped.xml":    {Outcome: Upgraded},
		"reauthorize.xml":         {Outcome: SignInAgain},
		"not-linked-failure.xml":  {Outcome: NotLinked, Reference: "REFERENC"},
		"auth-token-expired.xml":  {Outcome: SessionExpired, Reference: "REFERENC"},
		"service-unavailable.xml": {Outcome: TryAgain, Reference: "REFERENC"},
		"refreshed.xml":           {Outcome: NotAccepted, Reason: "an answer to another method"},
	} {
		body := answerFile(t, name)
		status := 200
		if strings.Contains(body, "Fault>") {
			status = 500
		}
		if got := Read(status, []byte(body)); got != want {
			t.Errorf("%s: read as %+v, want %+v", name, got, want)
		}
	}
}

func TestOtherSpellingsOfAnAnswerAreRead(t *testing.T) {
	upgraded := answerFile(t, "upgraded.xml")
	for name, body := range map[string]string{
		"no declaration":      strings.TrimPrefix(upgraded, `<?xml version="1.0" encoding="utf-8"?>`),
		"a byte order mark":   "\ufeff" + upgraded,
		"us-ascii":            strings.Replace(upgraded, "utf-8", "US-ASCII", 1),
		"a header":            strings.Replace(upgraded, "<soap:Body>", "<soap:Header/><soap:Body>", 1),
		"a comment":           strings.Replace(upgraded, "<authToken>", "<!-- here it is --><authToken>", 1),
		"CDATA":               strings.Replace(upgraded, "new-token", "<![CDATA[new-token]]>", 1),
		"lines":               strings.ReplaceAll(upgraded, "><", ">\n  <"),
		"a user":              strings.Replace(upgraded, "</privateKey>", "</privateKey><userInfo><userIdHashCode>x</userIdHashCode><accountTier>free</accountTier></userInfo>", 1),
		"a token of 2048":     strings.Replace(upgraded, "new-token", strings.Repeat("ü", smapi.MaxToken), 1),
		"prefixes everywhere": `<e:Envelope xmlns:e="` + soapNamespace + `"><e:Body><n:getDeviceAuthTokenResponse xmlns:n="` + sonosNamespace + `"><n:getDeviceAuthTokenResult><n:authToken>a</n:authToken><n:privateKey>b</n:privateKey></n:getDeviceAuthTokenResult></n:getDeviceAuthTokenResponse></e:Body></e:Envelope>`,
	} {
		if got := Read(200, []byte(body)); got != (Answer{Outcome: Upgraded}) {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func TestWhatNoPlayerHasToUnderstandIsToldByItsReason(t *testing.T) {
	upgraded, fault := answerFile(t, "upgraded.xml"), answerFile(t, "not-linked-failure.xml")
	const token, key = "<authToken>new-token</authToken>", "<privateKey>new-key</privateKey>"
	change := func(old, with string) string {
		t.Helper()
		changed := strings.ReplaceAll(upgraded, old, with)
		if changed == upgraded {
			if changed = strings.ReplaceAll(fault, old, with); changed == fault {
				t.Fatal("nothing changed by", old)
			}
		}
		return changed
	}
	for _, test := range []struct {
		body, want string
		status     int
	}{
		{change("new-key", ""), "a pair that is blank by half", 200},
		{change("new-token", " \n"), "a pair that is blank by half", 200},
		{change("new-token", strings.Repeat("x", smapi.MaxToken+1)), "authToken of more than 2048 characters", 200},
		{change("new-key", strings.Repeat("x", smapi.MaxToken+1)), "privateKey of more than 2048 characters", 200},
		{change(token+key, key+token), "elements of getDeviceAuthTokenResult out of order", 200},
		{change(key, ""), "getDeviceAuthTokenResult without privateKey", 200},
		{change(token, token+token), "authToken twice", 200},
		{change(token, "text"+token), "text between the elements of getDeviceAuthTokenResult", 200},
		{change(token, "<secret/>"+token), "an element that the schema does not have in getDeviceAuthTokenResult", 200},
		{change("new-token", "<b>new</b>"), "an element in authToken", 200},
		{change(key, key+"<userInfo><userIdHashCode>x</userIdHashCode><nickname>secret</nickname></userInfo>"), "userInfo with a nickname", 200},
		{change(key, key+"<userInfo><nickname>secret</nickname></userInfo>"), "userInfo without userIdHashCode", 200},
		{change(key, key+"<userInfo><accountTier>free</accountTier><userIdHashCode>x</userIdHashCode></userInfo>"), "elements of userInfo out of order", 200},
		{change("/Services/1.1", "/Services/1.0"), "getDeviceAuthTokenResponse in a wrong namespace", 200},
		{change(` xmlns="http://www.sonos.com/Services/1.1"`, ""), "getDeviceAuthTokenResponse in a wrong namespace", 200},
		{change(token, `<authToken xmlns="">new-token</authToken>`), "authToken in a wrong namespace", 200},
		{change("http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"), "an Envelope that is not of SOAP 1.1", 200},
		{change("<soap:Body>", "<soap:Body>text"), "a Body that is not one element", 200},
		{change("</soap:Body>", "</soap:Body><soap:Body/>"), "Body twice", 200},
		{change("getDeviceAuthToken", "getSessionId"), "an answer to another method", 200},
		{change("</soap:Envelope>", ""), "XML that is not well-formed", 200},
		{change("</soap:Envelope>", "</soap:Envelope>text"), "XML that is not well-formed", 200},
		{change("</soap:Envelope>", "</soap:Envelope><more/>"), "XML that is not well-formed", 200},
		{change("new-token", "&nbsp;"), "XML that is not well-formed", 200},
		{change("new-token", "\xff"), "XML that is not well-formed", 200},
		{change("</soap:Envelope>", `</soap:Envelope><?xml version="1.0"?>`), "XML that is not well-formed", 200},
		{change("new-token", "<?php secret ?>"), "XML that SOAP forbids: a document type or an instruction", 200},
		{change("utf-8", "iso-8859-1"), "an encoding other than UTF-8", 200},
		{change("new-token", strings.Repeat("<x/>", 2000)), "more XML than any answer has", 200},
		{change("new-token", strings.Repeat("<x>", 100)), "more XML than any answer has", 200},
		{change("new-token", strings.Repeat("x", maxAnswer)), "more XML than any answer has", 200},
		{upgraded, "a pair with status 500", 500},
		{upgraded, "a pair with status 201", 201},
		{fault, "a fault with status 200", 200},
		{fault, "a fault with status 503", 503},
		{change(">6<", ">5<"), "a SonosError that does not go with its faultcode", 500},
		{change("<faultcode>", `<faultcode xmlns="http://schemas.xmlsoap.org/soap/envelope/">`), "faultcode in a wrong namespace", 500},
		{change(`xmlns:ns="http://www.sonos.com/Services/1.1"`, `xmlns:ns="http://www.sonos.com/"`), "ExceptionInfo in a wrong namespace", 500},
		{change("<detail>", "<detail/><detail>"), "detail twice", 500},
	} {
		want := Answer{Outcome: NotAccepted, Reason: test.want}
		if got := Read(test.status, []byte(test.body)); got != want {
			t.Errorf("%.300s\n read as %+v\nwant %s", test.body, got, test.want)
		}
	}
}

func TestFaultsAreTold(t *testing.T) {
	fault := strings.NewReplacer("Server.ServiceUnavailable", "$code").Replace(answerFile(t, "service-unavailable.xml"))
	for code, want := range map[string]Answer{
		"Server.ServiceUnknownError":            {Outcome: AnotherFault, Reason: "Server.ServiceUnknownError"},
		"Client.NOT_LINKED_RETRY":               {Outcome: AnotherFault, Reason: "Client.NOT_LINKED_RETRY"},
		" Client.AuthTokenExpired\n":            {Outcome: SessionExpired},
		"soap:Server":                           {Outcome: AnotherFault, Reason: "a faultcode that Sonos does not document"},
		"Client.LoginFailedForUser.secret":      {Outcome: AnotherFault, Reason: "a faultcode that Sonos does not document"},
		"\x1b]0;secret\x07":                     {Outcome: NotAccepted, Reason: "XML that is not well-formed"},
		"":                                      {Outcome: AnotherFault, Reason: "a faultcode that Sonos does not document"},
		"Client.Auth<!-- -->TokenExpired":       {Outcome: SessionExpired},
		"<![CDATA[Client.NOT_LINKED_FAILURE]]>": {Outcome: NotLinked},
	} {
		if want.Outcome != NotAccepted {
			want.Reference = "REFERENC"
		}
		if got := Read(500, []byte(strings.Replace(fault, "$code", code, 1))); got != want {
			t.Errorf("%q: read as %+v, want %+v", code, got, want)
		}
	}
}

func TestWhatIsNoSOAPIsToldByItsStatus(t *testing.T) {
	for _, body := range []string{"", "the old service", `{"authToken":"x"}`, "<html><body>502</body></html>", "<html>", "\xfe\xff\x00<",
		"<!DOCTYPE html><html/>", "<" + strings.Repeat("x", 2*maxAnswer)} {
		want := Answer{Outcome: NotSMAPI, Reason: "status 502 Bad Gateway"}
		if got := Read(502, []byte(body)); got != want {
			t.Errorf("%.50q: read as %+v", body, got)
		}
	}
	if got := Read(799, nil); got.Reason != "status 799" {
		t.Errorf("read as %+v", got)
	}
}

// FuzzRead holds that nothing makes the reader panic, that an independent reader finds the pairs that it finds, and
// that it hands on nothing that the other side is free to choose.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(answers, "*.xml"))
	if err != nil || len(files) == 0 {
		f.Fatal("no answers", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(200, body)
		f.Add(500, body)
	}
	f.Add(502, []byte("<html>"))
	upgraded := answerFile(f, "upgraded.xml")
	for _, with := range []string{"", "<![CDATA[x]]>", "<!-- x -->", "<?x?>", "&#0;", "<x>", `<x xmlns:y=""/>`} {
		f.Add(200, []byte(strings.Replace(upgraded, "new-token", with, 1)))
	}
	reasons := regexp.MustCompile(`^[A-Za-z0-9:,.'_ -]*$`)
	references := regexp.MustCompile(`^([A-Z2-7]{8})?$`)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a := Read(status, body)
		if !reasons.MatchString(a.Reason) || len(a.Reason) > 100 || !references.MatchString(a.Reference) {
			t.Fatalf("read as %+v", a)
		}
		switch a.Outcome {
		case Upgraded, SignInAgain:
			authToken, privateKey := readIndependently(t, body)
			blank := strings.TrimSpace(authToken) == "" && strings.TrimSpace(privateKey) == ""
			if status != 200 || blank != (a.Outcome == SignInAgain) {
				t.Fatalf("%q, %q with status %d read as %+v", authToken, privateKey, status, a)
			}
		case NotLinked, SessionExpired, TryAgain, AnotherFault:
			if status != 500 {
				t.Fatalf("a fault with status %d", status)
			}
		case NotAccepted, NotSMAPI:
			if a.Reason == "" {
				t.Fatal("no reason")
			}
		default:
			t.Fatalf("read as %+v", a)
		}
	})
}

// readIndependently reads a pair by tags instead of a tree.
func readIndependently(t *testing.T, body []byte) (authToken, privateKey string) {
	t.Helper()
	var e struct {
		XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
		Body    []struct {
			Response []struct {
				Result []struct {
					AuthToken  []string `xml:"http://www.sonos.com/Services/1.1 authToken"`
					PrivateKey []string `xml:"http://www.sonos.com/Services/1.1 privateKey"`
				} `xml:"http://www.sonos.com/Services/1.1 getDeviceAuthTokenResult"`
			} `xml:"http://www.sonos.com/Services/1.1 getDeviceAuthTokenResponse"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
	}
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\ufeff"))))
	d.CharsetReader = (&parser{}).charset
	if err := d.Decode(&e); err != nil {
		t.Fatalf("no XML: %v", err)
	}
	if len(e.Body) != 1 || len(e.Body[0].Response) != 1 || len(e.Body[0].Response[0].Result) != 1 {
		t.Fatalf("no pair: %+v", e)
	}
	result := e.Body[0].Response[0].Result[0]
	if len(result.AuthToken) != 1 || len(result.PrivateKey) != 1 {
		t.Fatalf("no pair: %+v", e)
	}
	return result.AuthToken[0], result.PrivateKey[0]
}
