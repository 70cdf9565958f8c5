// Package legacy is a stand-in for the old music service: a SMAPI service of the Session ID kind that has
// never heard of upgrades.
package legacy

import (
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Service answers getSessionId, getMetadata, getLastUpdate, and the getDeviceAuthToken that polls with a linkCode.
type Service struct {
	accounts map[string]string // passwords by user name

	mu       sync.Mutex
	sessions map[string]string // user names by session id
}

// New returns a service with these accounts: passwords by user name.
func New(accounts map[string]string) *Service {
	return &Service{accounts: accounts, sessions: make(map[string]string)}
}

type envelope struct {
	SessionID string `xml:"Header>credentials>sessionId"`
	Body      struct {
		GetSessionID *struct {
			Username string `xml:"username"`
			Password string `xml:"password"`
		} `xml:"getSessionId"`
		GetMetadata        *struct{} `xml:"getMetadata"`
		GetLastUpdate      *struct{} `xml:"getLastUpdate"`
		GetDeviceAuthToken *struct {
			LinkCode *string `xml:"linkCode"`
		} `xml:"getDeviceAuthToken"`
	}
}

// ServeHTTP answers one call.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call envelope
	if err := xml.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&call); err != nil {
		fault(w, "Client", "the request is no SOAP envelope")
		return
	}
	switch body := call.Body; {
	case body.GetSessionID != nil:
		s.getSessionID(w, body.GetSessionID.Username, body.GetSessionID.Password)
	case body.GetMetadata != nil:
		s.browse(w, call.SessionID, "getMetadata", "<index>0</index><count>1</count><total>1</total>"+
			"<mediaCollection><id>new</id><itemType>container</itemType><title>New releases</title></mediaCollection>")
	case body.GetLastUpdate != nil:
		s.browse(w, call.SessionID, "getLastUpdate", "<catalog>1</catalog><favorites>1</favorites><pollInterval>60</pollInterval>")
	case body.GetDeviceAuthToken != nil && body.GetDeviceAuthToken.LinkCode != nil:
		fault(w, "Client.NOT_LINKED_RETRY", "the listener has not signed in yet")
	case body.GetDeviceAuthToken != nil:
		fault(w, "Server.ServiceUnknownError", "Object reference not set: linkCode")
	default:
		fault(w, "Client", "no such method")
	}
}

func (s *Service) getSessionID(w http.ResponseWriter, username, password string) {
	if want, ok := s.accounts[username]; !ok || want != password {
		fault(w, "Client.LoginInvalid", "wrong user name or password")
		return
	}
	id := rand.Text()
	s.mu.Lock()
	s.sessions[id] = username
	s.mu.Unlock()
	answer(w, http.StatusOK, "<getSessionIdResponse xmlns=%q><getSessionIdResult>%s</getSessionIdResult></getSessionIdResponse>",
		namespace, id)
}

// browse accepts a session id of its own, and nothing else.
func (s *Service) browse(w http.ResponseWriter, sessionID, method, result string) {
	s.mu.Lock()
	_, known := s.sessions[sessionID]
	s.mu.Unlock()
	if !known {
		fault(w, "Client.SessionIdInvalid", "no such session")
		return
	}
	answer(w, http.StatusOK, "<%[1]sResponse xmlns=%[2]q><%[1]sResult>%[3]s</%[1]sResult></%[1]sResponse>", method, namespace, result)
}

const namespace = "http://www.sonos.com/Services/1.1"

func fault(w http.ResponseWriter, code, text string) {
	answer(w, http.StatusInternalServerError,
		"<s:Fault><faultcode>%s</faultcode><faultstring>%s</faultstring></s:Fault>", code, text)
}

func answer(w http.ResponseWriter, status int, format string, args ...any) {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`)
	fmt.Fprintf(&b, format, args...)
	b.WriteString(`</s:Body></s:Envelope>`)
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, b.String())
}
