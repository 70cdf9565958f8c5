package smapi

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRead holds three rules: nothing makes the reader panic, what it calls an upgrade an independent reader
// calls one too, with the same credentials, and what it forwards is as it came.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(requests, "*.xml"))
	if err != nil || len(files) == 0 {
		f.Fatal("no requests", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	for _, body := range worstBodies() {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := post(body)
		r.Header.Del("SOAPAction")
		call, _, err := Read(r, allMethods)
		if call == nil {
			if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
				t.Fatalf("forwarded with %v as %q", err, got)
			}
			return
		}
		if err != nil {
			t.Fatalf("a call and an error: %v", err)
		}
		want, err := readIndependently(body)
		if err != nil {
			t.Fatalf("no call: %v", err)
		}
		if want.Arrived = call.Arrived; *call != want {
			t.Fatalf("read as %+v, want %+v", call, want)
		}
	})
}

type texts []string

func (t texts) one() string { return strings.Join(t, "|two|") }

type strictEnvelope struct {
	XMLName xml.Name       `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
	Header  []strictHeader `xml:"http://schemas.xmlsoap.org/soap/envelope/ Header"`
	Body    []strictBody   `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
}

type strictHeader struct {
	Credentials []struct {
		DeviceID       texts `xml:"http://www.sonos.com/Services/1.1 deviceId"`
		DeviceProvider texts `xml:"http://www.sonos.com/Services/1.1 deviceProvider"`
		SessionID      texts `xml:"http://www.sonos.com/Services/1.1 sessionId"`
		Login          []struct {
			Username texts `xml:"http://www.sonos.com/Services/1.1 username"`
			Password texts `xml:"http://www.sonos.com/Services/1.1 password"`
		} `xml:"http://www.sonos.com/Services/1.1 login"`
		LoginToken []struct {
			Token       texts `xml:"http://www.sonos.com/Services/1.1 token"`
			Key         texts `xml:"http://www.sonos.com/Services/1.1 key"`
			HouseholdID texts `xml:"http://www.sonos.com/Services/1.1 householdId"`
		} `xml:"http://www.sonos.com/Services/1.1 loginToken"`
	} `xml:"http://www.sonos.com/Services/1.1 credentials"`
}

type strictBody struct {
	Calls []struct {
		HouseholdID texts      `xml:"http://www.sonos.com/Services/1.1 householdId"`
		LinkCode    []struct{} `xml:"linkCode"`
	} `xml:"http://www.sonos.com/Services/1.1 getDeviceAuthToken"`
	Sessions []struct {
		Username texts `xml:"http://www.sonos.com/Services/1.1 username"`
		Password texts `xml:"http://www.sonos.com/Services/1.1 password"`
	} `xml:"http://www.sonos.com/Services/1.1 getSessionId"`
	Refreshes []struct{} `xml:"http://www.sonos.com/Services/1.1 refreshAuthToken"`
	Others    []struct{} `xml:",any"`
}

// readIndependently reads with the standard library alone.
func readIndependently(body []byte) (call Call, err error) {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, byteOrderMark)))
	d.CharsetReader = func(charset string, input io.Reader) (io.Reader, error) {
		if !strings.EqualFold(charset, "us-ascii") {
			return nil, errors.New("charset")
		}
		return input, nil
	}
	var e strictEnvelope
	if err := d.Decode(&e); err != nil {
		return call, err
	}
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return call, err
		}
		switch t := token.(type) {
		case xml.Comment:
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return call, errors.New("text behind the envelope")
			}
		default:
			return call, fmt.Errorf("%T behind the envelope", t)
		}
	}
	if len(e.Header) > 1 || len(e.Body) != 1 || len(e.Body[0].Others) != 0 {
		return call, errors.New("the envelope")
	}
	content := e.Body[0]
	if len(content.Calls)+len(content.Sessions)+len(content.Refreshes) != 1 {
		return call, errors.New("the body")
	}
	if len(content.Sessions) == 1 {
		s := content.Sessions[0]
		if len(s.Username) != 1 || s.Username[0] == "" || len(s.Password) != 1 || s.Password[0] == "" ||
			tooLong(2048, s.Username[0], s.Password[0]) {
			return call, errors.New("the session")
		}
		return Call{Method: GetSessionID, Credentials: Credentials{Kind: Login}}, nil
	}
	if len(e.Header) != 1 || len(e.Header[0].Credentials) != 1 {
		return call, errors.New("the header")
	}
	c := e.Header[0].Credentials[0]
	if len(c.Login)+len(c.LoginToken)+len(c.SessionID) > 1 {
		return call, errors.New("the credentials")
	}
	if call.Method = RefreshAuthToken; len(content.Calls) == 1 {
		call.Method, call.HouseholdID = GetDeviceAuthToken, content.Calls[0].HouseholdID.one()
		if len(content.Calls[0].LinkCode) != 0 {
			return call, errors.New("a poll")
		}
	} else if len(c.LoginToken) == 1 && len(c.LoginToken[0].Key) == 1 && c.LoginToken[0].Key[0] != "" {
		if call.HouseholdID = c.LoginToken[0].HouseholdID.one(); strings.TrimSpace(call.HouseholdID) == "" {
			call.HouseholdID = ""
		}
	} else {
		return call, errors.New("no key")
	}
	call.Credentials = Credentials{Kind: Anonymous, DeviceID: c.DeviceID.one(), DeviceProvider: c.DeviceProvider.one()}
	switch to := &call.Credentials; {
	case len(c.Login) == 1:
		to.Kind, to.Username, to.Password = Login, c.Login[0].Username.one(), c.Login[0].Password.one()
	case len(c.LoginToken) == 1:
		to.Kind, to.Token, to.Key = LoginToken, c.LoginToken[0].Token.one(), c.LoginToken[0].Key.one()
	case len(c.SessionID) == 1:
		to.Kind, to.SessionID = SessionID, c.SessionID.one()
	}
	to := call.Credentials
	if tooLong(2048, to.Username, to.Password, to.SessionID, to.Token, to.Key) ||
		tooLong(255, to.DeviceID, to.DeviceProvider, call.HouseholdID) {
		return call, errors.New("the length")
	}
	return call, nil
}

func tooLong(most int, values ...string) bool {
	return slices.ContainsFunc(values, func(value string) bool { return utf8.RuneCountInString(value) > most })
}
