package smapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

const upgrade = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header>
<credentials xmlns="http://www.sonos.com/Services/1.1"><login><username>ella</username><password>12345</password></login></credentials>
</s:Header><s:Body>
<getDeviceAuthToken xmlns="http://www.sonos.com/Services/1.1"><householdId>Sonos_abc123</householdId></getDeviceAuthToken>
</s:Body></s:Envelope>`

// A handler that upgrades accounts, and leaves everything else to another one.
func ExampleCandidate() {
	old := http.NotFoundHandler()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		candidate := smapi.MayCall(r, []smapi.Method{smapi.GetDeviceAuthToken})
		if candidate == nil {
			old.ServeHTTP(w, r)
			return
		}
		_ = candidate.Serve(w, time.Now(), func(call *smapi.Call, _ int, _ error) error {
			if call == nil { // r is as if unread
				old.ServeHTTP(w, r)
				return nil
			}
			fmt.Println(call.Method, "of", call.Credentials.Username, "in", call.HouseholdID)
			w.Header().Set("Content-Type", "text/xml; charset=utf-8")
			_, err := w.Write(smapi.Pair(call.Method, "new-token", "new-key"))
			return err
		})
	})
	for _, body := range []string{upgrade, "<something-else/>"} {
		r := httptest.NewRequest(http.MethodPost, "/smapi", strings.NewReader(body))
		r.Header.Set("Content-Type", "text/xml; charset=utf-8")
		r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#getDeviceAuthToken"`)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.Contains(w.Body.String(), "<authToken>new-token</authToken>"))
	}
	// Output:
	// getDeviceAuthToken of ella in Sonos_abc123
	// 200 true
	// 404 false
}
