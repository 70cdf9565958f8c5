package smapi

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestASessionIsAskedForAsPlayersDo(t *testing.T) {
	for _, account := range [][2]string{{"testuser", "12345"}, {`<&>"'`, " \r\n\t\u00df]]> "}} {
		r := httptest.NewRequest("POST", "/smapi?a=b", nil)
		r.Header.Set("Authorization", "Bearer secret")
		r.Header.Set("Accept-Encoding", "gzip")
		r.Header.Set("User-Agent", "Linux UPnP/1.0 Sonos/70.0")
		AskForSession(r, account[0], account[1])
		body, _ := io.ReadAll(r.Body)
		d, err := new(scanner).scan(body)
		if err != nil {
			t.Fatal(err)
		}
		_, content, err := d.envelope()
		if err != nil || string(d.local(int(d.elements[content].first))) != "getSessionId" {
			t.Fatalf("%v: %s", err, body)
		}
		var c Credentials
		if err := d.login(int(d.elements[content].first), &c); err != nil || c.Username != account[0] || c.Password != account[1] {
			t.Errorf("%v: %+v", err, c)
		}
		if r.ContentLength != int64(len(body)) || r.Header.Get("Authorization")+r.Header.Get("Accept-Encoding") != "" ||
			r.Header.Get("User-Agent") == "" || r.Header.Get("SOAPAction") != `"http://www.sonos.com/Services/1.1#getSessionId"` {
			t.Errorf("%+v", r.Header)
		}
	}
}

func TestTheCodeOfAFaultIsRead(t *testing.T) {
	fault := func(code string) string {
		return `<?xml version="1.0"?>` + "\n" + `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>` + code +
			`<faultstring>Client.Other</faultstring></s:Fault></s:Body></s:Envelope>` + "\n"
	}
	for answer, want := range map[string]string{
		fault(`<faultcode>Client.SessionIdInvalid</faultcode>`):                        SessionIDInvalid,
		fault(`<faultcode> s:Client.SessionIdInvalid </faultcode>`):                    SessionIDInvalid,
		fault(`<faultcode xmlns="http://a/">SOAP-ENV:Client.LoginInvalid</faultcode>`): LoginInvalid,
		string(ServiceUnavailable.Envelope("ref")):                                     "Server.ServiceUnavailable",
		fault(``): "",
		`<faultcode>Client.SessionIdInvalid</faultcode>`: "",
		"<html>faultcode": "",
		"":                "",
	} {
		if got := FaultCode([]byte(answer)); got != want {
			t.Errorf("%s: %q", answer, got)
		}
	}
}

func TestTheSessionOfAnAnswerIsRead(t *testing.T) {
	answer := func(result string) string {
		return `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><getSessionIdResponse xmlns="http://www.sonos.com/Services/1.1">` +
			result + `</getSessionIdResponse></s:Body></s:Envelope>`
	}
	for text, want := range map[string]string{
		answer(`<getSessionIdResult>abc&amp;d</getSessionIdResult>`): "abc&d",
		answer(`<getSessionIdResult/>`):                              "",
		answer(``):                                                   "",
		"<html>":                                                     "",
	} {
		if got := SessionIDOf([]byte(text)); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// An old service answers in an encoding of its own, and nobody else can have it say something else.
func TestAnAnswerIsReadInAnyUsualEncoding(t *testing.T) {
	const (
		session = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><r xmlns="http://www.sonos.com/Services/1.1"><getSessionIdResult>abc</getSessionIdResult>` +
			`<other>caf\u00e9</other></r></s:Body></s:Envelope>`
		fault = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>Client.SessionIdInvalid</faultcode><faultstring>caf\u00e9` +
			`</faultstring></s:Fault></s:Body></s:Envelope>`
	)
	latin := func(text string) string { return strings.ReplaceAll(text, "\u00e9", "\xe9") }
	for name, in := range map[string]func(text string) string{
		"UTF-8":              func(text string) string { return `<?xml version="1.0" encoding="utf8"?>` + text },
		"with a mark":        func(text string) string { return "\ufeff\n" + text },
		"XML 1.1":            func(text string) string { return `<?xml version="1.1"?>` + text },
		"an instruction":     func(text string) string { return `<?xml version="1.0"?><?xml-stylesheet href="a"?>` + "\n" + text },
		"Latin-1":            func(text string) string { return `<?xml version="1.0" encoding="ISO-8859-1"?>` + latin(text) },
		"Windows-1252":       func(text string) string { return `<?xml version="1.0" encoding="windows-1252"?>` + latin(text) },
		"Latin-1, not said":  latin,
		"UTF-16":             func(text string) string { return inUTF16(`<?xml version="1.0" encoding="utf-16"?>`+text, false, true) },
		"UTF-16, big-endian": func(text string) string { return inUTF16(text, true, true) },
	} {
		if got := SessionIDOf([]byte(in(session))); got != "abc" {
			t.Errorf("%s: the session %q", name, got)
		}
		if got := FaultCode([]byte(in(fault))); got != SessionIDInvalid {
			t.Errorf("%s: the fault %q", name, got)
		}
	}
}
