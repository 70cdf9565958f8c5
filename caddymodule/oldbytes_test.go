package caddymodule_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi/smapitest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// ofTheSchema are the operations of Sonos's WSDL, 1.19.6 and before.
var ofTheSchema = []string{
	"addToContainer", "createContainer", "createItem", "deleteContainer", "deleteItem", "getAppLink", "getContentKey", "getDeviceAuthToken",
	"getDeviceLinkCode", "getExtendedMetadata", "getExtendedMetadataText", "getLastUpdate", "getMediaMetadata", "getMediaURI", "getMetadata",
	"getScrollIndices", "getSessionId", "getStreamingMetadata", "getUserInfo", "rateItem", "refreshAuthToken", "removeFromContainer",
	"renameContainer", "reorderContainer", "reportAccountAction", "reportPlaySeconds", "reportPlayStatus", "reportStatus", "search",
	"setPlayedSeconds",
}

// neverTranslated are those that no upgraded home calls at the old service.
var neverTranslated = []string{
	"getSessionId",     // has the account in its body, and no credentials
	"refreshAuthToken", // is answered here
}

func TestTheMethodsThatAreTriedAreThoseOfTheSchema(t *testing.T) {
	for _, method := range ofTheSchema {
		if _, tried := smapitest.EveryMethod[method]; tried == slices.Contains(neverTranslated, method) {
			t.Errorf("%s: tried is %v", method, tried)
		}
	}
	if len(ofTheSchema) != len(smapitest.EveryMethod)+len(neverTranslated) {
		t.Error("a method is tried that is not in the schema")
	}
}

// rawOld is a strict old service that keeps what its last call was, byte for byte.
type rawOld struct {
	*caddytest.StrictService
	mu   sync.Mutex
	last []byte
}

type recordedConn struct {
	net.Conn
	mu  sync.Mutex
	raw []byte
}

func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, p[:n]...)
	return n, err
}

func (c *recordedConn) take() (raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, c.raw = c.raw, nil
	return raw
}

type recordingListener struct{ net.Listener }

func (l recordingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &recordedConn{Conn: conn}, nil
}

type connKey struct{}

func onTheWire(t *testing.T, kind string) *rawOld {
	w := &rawOld{StrictService: caddytest.Strict(t, kind)}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.Answer(rw, r) // which reads all of it
		if raw := r.Context().Value(connKey{}).(*recordedConn).take(); !strings.Contains(r.Header.Get("SOAPAction"), "#getSessionId") {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.last = raw
		}
	}))
	s.Listener = recordingListener{s.Listener}
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	s.Start()
	t.Cleanup(s.Close)
	w.Server.Close()
	w.Server = &caddytest.Server{Server: s}
	return w
}

func (w *rawOld) heard() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// native is the account as a home has it that was never upgraded.
var native = map[string]func(*smapitest.Spelling) string{
	"session_id": func(s *smapitest.Spelling) string { return s.Element("sessionId", "marker-session-1") },
	"login": func(s *smapitest.Spelling) string {
		return s.Element("login", s.Element("username", "testuser"), s.Element("password", "12345"))
	},
	"login_token": func(s *smapitest.Spelling) string {
		return s.Element("loginToken", s.Element("token", "old-token"), s.Element("key", "old-key"), s.Element("householdId", "Sonos_abc123"))
	},
	"anonymous": func(*smapitest.Spelling) string { return "" },
}

// What differs from a native call is named here: the account stands where the schema has it, wherever the player put it; there is no
// header Authorization; and a call in chunks has a length. Where it had no account, blanks around that may be elsewhere.
func TestTheOldServiceCannotTellACallOfAnUpgradedHomeFromANativeOne(t *testing.T) {
	for kind := range caddytest.UpgradeRequests {
		t.Run(kind, func(t *testing.T) {
			old := onTheWire(t, kind)
			s := caddytest.Run(t, withOld(caddytest.Rotate(t, 3600), old.Server, caddytest.VaultFile(t), kind))
			authToken, key := s.UpgradeOf(t, kind)
			checkServed(t, s.Browse(t, "getLastUpdate", authToken, key)) // so that there is a session
			heard := func(method, authorization string, body []byte, chunked bool) []byte {
				r := s.Request(t, body)
				r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+method+`"`)
				if authorization != "" {
					r.Header.Set("Authorization", authorization)
				}
				if chunked {
					r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
				}
				checkServed(t, s.Do(t, r))
				return old.heard()
			}
			calls := 0
			for _, spelling := range smapitest.Spellings {
				for method := range smapitest.EveryMethod {
					want := heard(method, "", spelling.Call(spelling.Text, method, native[kind](&spelling)), false)
					for _, place := range smapitest.Places(authToken, key) {
						for _, text := range []string{spelling.Text, spelling.Wrong} {
							if text == "" {
								continue
							}
							calls++
							got := heard(method, place.Authorization, spelling.Call(text, method, place.Account(&spelling)), calls%5 == 0)
							same := bytes.Equal(got, want)
							if place.Account(&spelling) == "" {
								same = bytes.Equal(bytes.Join(bytes.Fields(got), nil), bytes.Join(bytes.Fields(want), nil))
							}
							if !same {
								t.Fatalf("%s, %s, %+v: the old service got\n%s\nwant\n%s", method, spelling.Name, place, got, want)
							}
						}
					}
				}
			}
			if old.Begun > 1 {
				t.Errorf("%d sessions", old.Begun)
			}
			t.Log(calls, "calls")
		})
	}
}
