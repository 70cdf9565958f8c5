package smapi

import (
	"bytes"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// BenchmarkBearing reads a call of an upgraded home, and puts other credentials in.
func BenchmarkBearing(b *testing.B) {
	envelope, err := os.ReadFile("../../testdata/requests/login-token.xml")
	if err != nil {
		b.Fatal(err)
	}
	envelope = bytes.Replace(envelope, []byte("old-token"), []byte("smv1."+strings.Repeat("x", 43)), 1)
	envelope = bytes.Replace(envelope, []byte("old-key"), []byte("smv1"+strings.Repeat("x", 43)), 1)
	envelope = bytes.ReplaceAll(envelope, []byte("getDeviceAuthToken"), []byte("getMetadata"))
	ours := Ours(func(text []byte) bool { return bytes.Contains(text, []byte("smv1")) })
	r := httptest.NewRequest("POST", "/smapi", nil)
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	other := Credentials{Kind: SessionID, SessionID: "session"}
	b.ReportAllocs()
	for b.Loop() {
		call, err := ours.find(r, envelope, true)
		if err != nil {
			b.Fatal(err)
		}
		if err := call.Bearing.Translate(r, &other, ""); err != nil {
			b.Fatal(err)
		}
	}
}
