package caddytest

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// StrictService is an old service that reads by the schema's order, as strict stacks do, and knows nothing of OAuth. It has
// one account, sessions of getSessionId, and the token old-token of the home Sonos_abc123.
type StrictService struct {
	*Server
	kind string

	mu       sync.Mutex
	Sessions map[string]bool
	Begun    int
	User     string
	Password string
	Faults   map[string]string // by method: what it says instead

	Calls atomic.Int64 // that were answered well
}

// Strict runs an old service whose accounts are of this kind. Its account is testuser with 12345.
func Strict(t testing.TB, kind string) *StrictService {
	o := &StrictService{kind: kind, Sessions: map[string]bool{}, User: "testuser", Password: "12345", Faults: map[string]string{}}
	o.Server = Serve(t, o.Answer)
	return o
}

// With changes the old service.
func (o *StrictService) With(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

type oldOrder struct {
	Header struct {
		Credentials struct {
			Order []struct {
				XMLName xml.Name
			} `xml:",any"`
		} `xml:"credentials"`
	} `xml:"Header"`
}

type oldEnvelope struct {
	Parts struct {
		SessionID string `xml:"sessionId"`
		Login     *struct {
			Username string `xml:"username"`
			Password string `xml:"password"`
		} `xml:"login"`
		LoginToken *struct {
			Token       string `xml:"token"`
			Key         string `xml:"key"`
			HouseholdID string `xml:"householdId"`
		} `xml:"loginToken"`
	} `xml:"Header>credentials"`
	Body struct {
		Call struct {
			XMLName  xml.Name
			Username string `xml:"username"`
			Password string `xml:"password"`
		} `xml:",any"`
	} `xml:"Body"`
}

var schemaOrder = []string{"zonePlayerId", "deviceId", "deviceProvider", "deviceCert", "account", "context"}

const ofSonos = ` xmlns="http://www.sonos.com/Services/1.1"`

func soap(body string) string {
	return `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>` + body + `</s:Body></s:Envelope>`
}

// Fault is an answer that says nothing but this code.
func Fault(code string) string {
	return soap("<s:Fault><faultcode>" + code + "</faultcode><faultstring>of the old service</faultstring></s:Fault>")
}

// Answer says what it says to a request.
func (o *StrictService) Answer(w http.ResponseWriter, r *http.Request) {
	status, body := o.says(r)
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("X-Old", "1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (o *StrictService) says(r *http.Request) (int, string) {
	body, _ := io.ReadAll(r.Body)
	o.mu.Lock()
	defer o.mu.Unlock()
	var e oldEnvelope
	var order oldOrder
	if xml.Unmarshal(body, &e) != nil || xml.Unmarshal(body, &order) != nil {
		return 400, "malformed"
	}
	method := e.Body.Call.XMLName.Local
	if f := o.Faults[method]; f != "" {
		return 500, f
	}
	if action := r.Header.Get("SOAPAction"); !strings.Contains(action, "#"+method) {
		return 400, "the SOAPAction is " + action
	}
	if method == "getSessionId" {
		if e.Body.Call.Username != o.User || e.Body.Call.Password != o.Password {
			return 500, Fault("Client.LoginInvalid")
		}
		o.Begun++
		id := fmt.Sprintf("marker-session-%d", o.Begun)
		o.Sessions[id] = true
		return 200, soap("<getSessionIdResponse" + ofSonos + "><getSessionIdResult>" + id + "</getSessionIdResult></getSessionIdResponse>")
	}
	at, kind := 0, "anonymous"
	for _, el := range order.Header.Credentials.Order {
		name := el.XMLName.Local
		if name == "login" || name == "loginToken" || name == "sessionId" {
			kind, name = name, "account"
		}
		i := slices.Index(schemaOrder, name)
		if el.XMLName.Space != "http://www.sonos.com/Services/1.1" || i < at {
			return 400, name + " is out of order"
		}
		at = i
	}
	p := e.Parts
	switch {
	case map[string]string{"anonymous": "anonymous", "login": "login", "loginToken": "login_token", "sessionId": "session_id"}[kind] != o.kind:
		return 500, Fault("Client.LoginUnsupported")
	case kind == "sessionId" && !o.Sessions[p.SessionID]:
		return 500, Fault("s:Client.SessionIdInvalid")
	case kind == "login" && (p.Login.Username != o.User || p.Login.Password != o.Password):
		return 500, Fault("Client.LoginInvalid")
	case kind == "loginToken" && (p.LoginToken.Token != "old-token" || p.LoginToken.Key != "old-key" || p.LoginToken.HouseholdID != "Sonos_abc123"):
		return 500, Fault("Client.LoginUnauthorized")
	}
	o.Calls.Add(1)
	return 200, soap("<" + method + "Response" + ofSonos + ">of the old service</" + method + "Response>")
}

// Check tells whether the old service has heard of what is none of its business.
func (o *StrictService) Check(t testing.TB) (heard []Received) {
	t.Helper()
	heard = o.Asked()
	for _, r := range heard {
		var header strings.Builder
		_ = r.Header.Write(&header)
		if all := header.String() + r.Text; strings.Contains(all, "smv1") || strings.Contains(all, "marker-access") || strings.Contains(all, "marker-refresh") ||
			r.Header.Get("Authorization") != "" {
			t.Errorf("the old service was told\n%s", all)
		}
	}
	return heard
}
