package caddymodule

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func soapRequest(envelope []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/smapi", bytes.NewReader(envelope))
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	return r
}

func TestAnotherMethodCostsNoAllocation(t *testing.T) {
	h := provisioned(t, roundTrip(issues))
	r := soapRequest(request(t, "upgrade.xml"))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#getMetadata"`)
	w := discard{http.Header{}}
	if n := testing.AllocsPerRun(100, func() { _ = h.ServeHTTP(w, r, drain) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAPeekedCallCostsAtMostThreeAllocations(t *testing.T) {
	h := provisioned(t, roundTrip(issues))
	envelope := bytes.ReplaceAll(request(t, "forward-get-metadata.xml"), []byte("getDeviceAuthToken"), []byte("root"))
	content := body{bytes.NewReader(envelope)}
	r := soapRequest(envelope)
	w := discard{http.Header{}}
	least := math.Inf(1) // of what others do to the pools meanwhile
	for range 10 {
		least = min(least, testing.AllocsPerRun(100, func() {
			content.Reset(envelope)
			r.Body = content
			_ = h.ServeHTTP(w, r, drain)
		}))
	}
	if least > 3 { // two, but the race detector has pools forget things
		t.Errorf("%v allocations", least)
	}
}

// A transport may read a body on after the handler has returned: when the upstream answers early, or is
// dialed again. It must never find another listener's password there.
func TestABodyThatIsReadLateIsStillItsOwn(t *testing.T) {
	h := provisioned(t, roundTrip(issues))
	var late []io.Reader
	var want [][]byte
	for _, name := range []string{"forward-poll.xml", "forward-two-logins.xml", "forward-truncated.xml", "upgrade.xml", "forward-poll-with-login.xml"} {
		envelope := request(t, name)
		if err := h.ServeHTTP(httptest.NewRecorder(), soapRequest(envelope), caddyhttp.HandlerFunc(
			func(_ http.ResponseWriter, r *http.Request) error {
				late, want = append(late, r.Body), append(want, envelope)
				return nil
			})); err != nil {
			t.Fatal(err)
		}
	}
	if len(late) != 4 {
		t.Fatalf("%d were forwarded", len(late))
	}
	for i, body := range late {
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want[i]) {
			t.Errorf("read late, with %v: %q", err, got)
		}
	}
}
