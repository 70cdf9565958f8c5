package capture

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// FuzzRead holds that nothing that is captured ends in a panic, or shows a secret.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("../../../testdata/requests/*.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no requests", err)
	}
	for _, file := range files {
		envelope, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(envelope)
		f.Add(append([]byte("POST /smapi HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nAuthorization: Bearer 12345\r\n\r\n"), envelope...))
	}
	f.Add([]byte("POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n3\r\n<a/\r\n1\r\n>\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := parse(content)
		if err != nil {
			return
		}
		request, _ := c.Make()
		call, _, _ := smapi.Read(request, flow.AllMethods())
		if call == nil {
			return
		}
		for _, secret := range []string{"12345", "testuser"} {
			if strings.Contains(string(content), ">"+secret+"<") && (shows(c.Facts, secret) || shows(FactsOf(call), secret)) {
				t.Errorf("it shows %s of %q", secret, content)
			}
		}
	})
}

func shows(x any, text string) bool {
	out, err := json.Marshal(x)
	return err != nil || strings.Contains(string(out), text)
}
