package smapi

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnswersAreAsRecorded(t *testing.T) {
	link := Link{URL: "https://auth.example.com/device?user_code=ABCD-EFGH", Code: "ABCD-EFGH", Show: true, DeviceID: "sealed"}
	for file, got := range map[string][]byte{
		"upgraded.xml":             Pair(GetDeviceAuthToken, "new-token", "new-key"),
		"upgraded-escaped.xml":     Pair(GetDeviceAuthToken, `<&>"'`, "音楽 ]]>"),
		"reauthorize.xml":          Pair(GetDeviceAuthToken, "", ""),
		"refreshed.xml":            Pair(RefreshAuthToken, "new-token", "new-key"),
		"get-app-link.xml":         AppLink(&link, "SIGN_IN"),
		"get-device-link-code.xml": DeviceLinkCode(&link),
		"signed-in.xml":            SignedIn("new-token", "new-key", "0123456789abcdef"),
		"not-linked-retry.xml":     NotLinkedRetry.Envelope("REFERENC"),
		"link-failed.xml":          LinkFailed.Envelope("REFERENC"),
		"auth-token-expired.xml":   AuthTokenExpired.Envelope("REFERENC"),
		"not-linked-failure.xml":   NotLinkedFailure.Envelope("REFERENC"),
		"service-unavailable.xml":  ServiceUnavailable.Envelope("REFERENC"),
	} {
		want, err := os.ReadFile(filepath.Join("../../testdata/answers", file))
		if err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got, bytes.TrimSuffix(want, []byte("\n"))) {
			t.Errorf("%s:\n got %s\nwant %s", file, got, want)
		}
	}
}

// elements lists the elements of a document in order, each with its namespace.
func elements(t *testing.T, doc []byte) (names []string) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(doc)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			names = append(names, strings.TrimSpace(start.Name.Space+" "+start.Name.Local))
		}
	}
}

func TestThePairIsInTheOrderOfTheSchemaWithoutUserInfo(t *testing.T) {
	for token, method := range map[string]Method{"": GetDeviceAuthToken, "token": GetDeviceAuthToken, "new": RefreshAuthToken} {
		got := strings.Join(elements(t, Pair(method, token, token)), "\n")
		want := strings.Join([]string{
			soapNamespace + " Envelope",
			soapNamespace + " Body",
			sonosNamespace + " " + string(method) + "Response",
			sonosNamespace + " " + string(method) + "Result",
			sonosNamespace + " authToken",
			sonosNamespace + " privateKey",
		}, "\n")
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestFaultsHaveUnqualifiedPartsAndSonosDetails(t *testing.T) {
	got := strings.Join(elements(t, NotLinkedFailure.Envelope("x")), "\n")
	want := strings.Join([]string{
		soapNamespace + " Envelope",
		soapNamespace + " Body",
		soapNamespace + " Fault",
		"faultcode",
		"faultstring",
		"detail",
		sonosNamespace + " ExceptionInfo",
		sonosNamespace + " SonosError",
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestOnlyTokensThatPlayersCanTakeAreFit(t *testing.T) {
	for token, want := range map[string]error{
		"t":                             nil,
		"<&> \t\n 音楽 🎵 ]]>":             nil,
		strings.Repeat("ü", MaxToken):   nil,
		strings.Repeat("ü", MaxToken+1): ErrTokenLong,
		"":                              ErrTokenBlank,
		" \n":                           ErrTokenBlank,
		"nul\x00":                       ErrTokenNotText,
		"bell\a":                        ErrTokenNotText,
		"carriage\rreturn":              ErrTokenNotText,
		"\xff":                          ErrTokenNotText,
		"replaced \uFFFD":               ErrTokenNotText,
		"\uFFFE":                        ErrTokenNotText,
		"\uFFFF":                        ErrTokenNotText,
	} {
		if got := CheckToken(token); got != want {
			t.Errorf("%.20q: %v, want %v", token, got, want)
		}
		if want != nil {
			continue
		}
		var answer struct {
			AuthToken string `xml:"Body>getDeviceAuthTokenResponse>getDeviceAuthTokenResult>authToken"`
		}
		if err := xml.Unmarshal(Pair(GetDeviceAuthToken, token, "key"), &answer); err != nil || answer.AuthToken != token {
			t.Errorf("%.20q arrives as %.20q, %v", token, answer.AuthToken, err)
		}
	}
}

func TestEveryFaultBearsItsReference(t *testing.T) {
	for _, f := range []Fault{AuthTokenExpired, NotLinkedFailure, NotLinkedRetry, LinkFailed, ServiceUnavailable, {Code: "Server.Own", Text: "$reference"}} {
		for _, reference := range []string{"ABCDEFGH", "", "<&>", "$reference"} {
			if got, want := f.Envelope(reference), f.write(reference); !bytes.Equal(got, want) {
				t.Errorf("%s, %q:\n got %s\nwant %s", f.Code, reference, got, want)
			}
		}
	}
}
