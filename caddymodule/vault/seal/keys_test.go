package seal

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestAKeyFileIsAJWKSetThatAnyJOSELibraryReads(t *testing.T) {
	text, err := GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("%v in %s", err, text)
	}
	if set.Keys[0].Algorithm != "A256GCM" || set.Keys[0].Use != "enc" || set.Keys[1].Algorithm != "HS256" || set.Keys[1].Use != "sig" {
		t.Errorf("got %s", text)
	}
	sealed, err := parseKeys(t, text).SealObject(map[string]string{"access_token": "a1"})
	if err != nil {
		t.Fatal(err)
	}
	jwe, err := jose.ParseEncrypted(string(sealed), []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := jwe.Decrypt(set); err != nil || !strings.Contains(string(plain), `"access_token":"a1"`) {
		t.Errorf("got %s, %v", plain, err)
	}
}

func TestANewKeyIsPutInFrontAndTheOthersStayAsTheyAre(t *testing.T) {
	const before = `{"keys":[{"kty":"oct","kid":"2026","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","more":1}]}`
	after, err := GenerateKeys([]byte(before))
	if err != nil || !strings.Contains(string(after), `"more": 1`) {
		t.Fatalf("got %s, %v", after, err)
	}
	old, now := parseKeys(t, []byte(before)), parseKeys(t, after)
	if now.Kid() == "2026" || now.opening["2026"] == nil || old.Namers()[0].Dir() != now.Namers()[0].Dir() {
		t.Error("the new key does not seal, the old one does not open, or names are others")
	}
	again, _ := GenerateKeys(after)
	if third := parseKeys(t, again); third.Namers()[0].Dir() != old.Namers()[0].Dir() || len(third.opening) != 3 {
		t.Error("the names are others after a second time")
	}
}

func TestWhatIsNoKeyFileIsSaidWithoutQuotingIt(t *testing.T) {
	const k = `"k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"`
	for text, want := range map[string]error{
		`secret`:        errNoSet,
		`{}`:            errNoSet,
		`{"keys":[]}`:   errNoSet,
		`{"kty":"oct"}`: errNoSet,
		`{"keys":[{"kty":"oct","kid":"a","alg":"HS256",` + k + `}]}`:                     errNoSealing,
		`{"keys":[{"kty":"oct","kid":"a","use":"sig",` + k + `}]}`:                       errNoSealing,
		`{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}`:                                  errNoSealing,
		`{"keys":[{"kty":"oct",` + k + `}]}`:                                             errKid,
		`{"keys":[{"kty":"oct","kid":"a",` + k + `},{"kty":"oct","kid":"a",` + k + `}]}`: errKid,
		`{"keys":[{"kty":"oct","kid":"n","alg":"HS256","k":"AAAA"}]}`:                    errShort,
	} {
		if _, err := ParseKeys([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := GenerateKeys([]byte(text)); err == nil {
			t.Errorf("%s: a key was added", text)
		}
	}
}

func TestTextsThatBearNothingAreTold(t *testing.T) {
	for text, want := range map[string]bool{
		"":                      false,
		"smv1":                  false,
		"smv1.":                 false,
		"smv1.0123456789abcde":  false,
		"smv1.0123456789abcdef": true,
		"smv10123456789abcdef":  false,
		"smv1smv1smv1smv10":     false,
		"x>" + "smv1" + strings.Repeat("-_aZ09", 8)[:43]: true,
		"smv1" + strings.Repeat("-_aZ09", 8)[:42]:        false,
		"/smv1" + strings.Repeat("a", 100):               true,
		"asmv1" + strings.Repeat("a", 100):               false, // base64
		"+smv1" + strings.Repeat("a", 100):               false,
		"asmv1.0123456789abcdef":                         false, // a JWT
		"smv1+smv1.0123456789abcdef":                     false,
		"smv1=smv1.0123456789abcdef":                     true,
		"smv1 smv1.0123456789abcdef ":                    true,
		"smv1..0123456789abcdef":                         false,
	} {
		if got := Bears([]byte(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func parseKeys(t testing.TB, text []byte) *Keys {
	t.Helper()
	keys, err := ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
