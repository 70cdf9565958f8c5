package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// keys are one of each kind that can sign, by algorithm.
var keys = sync.OnceValue(func() map[jose.SignatureAlgorithm]crypto.Signer {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return map[jose.SignatureAlgorithm]crypto.Signer{jose.RS256: rsaKey, jose.ES256: ecKey(elliptic.P256()), jose.EdDSA: edKey()}
})

func ecKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func edKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func pemOf(t *testing.T, kind string, key any) []byte {
	t.Helper()
	var der []byte
	var err error
	switch kind {
	case "EC PRIVATE KEY":
		der, err = x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	case "RSA PRIVATE KEY":
		der = x509.MarshalPKCS1PrivateKey(key.(*rsa.PrivateKey))
	default:
		der, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func jwkOf(t *testing.T, jwk jose.JSONWebKey) []byte {
	t.Helper()
	text, err := json.Marshal(jwk)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAKeySignsByTheAlgorithmOfItsKind(t *testing.T) {
	for algorithm, key := range keys() {
		texts := map[string][]byte{
			"PKCS #8":     pemOf(t, "PRIVATE KEY", key),
			"JWK":         jwkOf(t, jose.JSONWebKey{Key: key, KeyID: "own"}),
			"JWK for sig": jwkOf(t, jose.JSONWebKey{Key: key, Algorithm: string(algorithm), Use: "sig"}),
		}
		switch algorithm {
		case jose.RS256:
			texts["PKCS #1"] = pemOf(t, "RSA PRIVATE KEY", key)
		case jose.ES256:
			texts["SEC 1"] = append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"),
				pemOf(t, "EC PRIVATE KEY", key)...)
		}
		for form, text := range texts {
			for _, id := range []string{"", "given"} {
				k, err := ParseKey(text, id)
				if err != nil {
					t.Errorf("%s, %s: %v", algorithm, form, err)
					continue
				}
				assertion, err := k.assertion("sonos", "https://auth.example.com/token")
				if err != nil {
					t.Fatal(err)
				}
				signed, err := jwt.ParseSigned(assertion, []jose.SignatureAlgorithm{algorithm})
				if err != nil {
					t.Errorf("%s, %s: %v", algorithm, form, err)
					continue
				}
				var claims jwt.Claims
				if err := signed.Claims(key.Public(), &claims); err != nil {
					t.Errorf("%s, %s: %v", algorithm, form, err)
				}
				want := id
				if id == "" && form == "JWK" {
					want = "own"
				}
				if got := signed.Headers[0].KeyID; got != want {
					t.Errorf("%s, %s: the kid is %q, want %q", algorithm, form, got, want)
				}
			}
		}
	}
}

func TestAnAssertionIsForOneRequestAndSoonOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := ParseKey(jwkOf(t, jose.JSONWebKey{Key: keys()[jose.ES256]}), "")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, audience := range []string{"", "https://auth.example.com"} {
			e := at(stub(func(form url.Values) (int, http.Header, string) {
				if form.Get("client_id") != "the id" || form.Get("client_secret") != "" ||
					form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
					t.Errorf("the form is %v", form)
				}
				signed, err := jwt.ParseSigned(form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.ES256})
				if err != nil {
					t.Fatal(err)
				}
				var claims jwt.Claims
				if err := signed.Claims(keys()[jose.ES256].Public(), &claims); err != nil {
					t.Fatal(err)
				}
				want := audience
				if want == "" {
					want = "https://auth.example.com"
				}
				if claims.Issuer != "the id" || claims.Subject != "the id" || len(claims.Audience) != 1 || claims.Audience[0] != want ||
					claims.IssuedAt.Time().Unix() != time.Now().Unix() || time.Until(claims.Expiry.Time()).Round(time.Second) != time.Minute {
					t.Errorf("the claims are %+v", claims)
				}
				if claims.ID == "" || seen[claims.ID] {
					t.Errorf("the jti %q is not fresh", claims.ID)
				}
				seen[claims.ID] = true
				return 200, nil, issued
			}), func(c *Config) {
				c.Client = Client{ID: "the id", Auth: PrivateKeyJWT, Key: func() *Key { return key }, Audience: audience}
			})
			for _, account := range []string{"ella", "django"} {
				if r := exchange(e, soon(), login(account, "p")); r.Class != Issued {
					t.Errorf("%+v", r)
				}
			}
		}
		if len(seen) != 4 {
			t.Errorf("%d assertions", len(seen))
		}
	})
}

func TestWhatIsNoKeyIsRefusedWithoutQuotingIt(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(keys()[jose.ES256].Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text []byte
		want error
	}{
		"nothing":         {nil, errNoKey},
		"no key":          {[]byte("marker"), errNoKey},
		"a broken PEM":    {[]byte("-----BEGIN PRIVATE KEY-----\nbWFya2Vy\n-----END PRIVATE KEY-----\n"), errNoKey},
		"a broken JWK":    {[]byte(`{"kty":"EC","d":"marker"}`), errNoKey},
		"a public key":    {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), errNoKey},
		"a public JWK":    {jwkOf(t, jose.JSONWebKey{Key: keys()[jose.ES256].Public()}), errNoKey},
		"a secret JWK":    {jwkOf(t, jose.JSONWebKey{Key: []byte("marker")}), errNoKey},
		"a JWK set":       {[]byte(`{"keys":[]}`), errNoKey},
		"a small RSA key": {pemOf(t, "PRIVATE KEY", small), errKeyKind},
		"another curve":   {pemOf(t, "PRIVATE KEY", ecKey(elliptic.P384())), errKeyKind},
		"another alg":     {jwkOf(t, jose.JSONWebKey{Key: keys()[jose.RS256], Algorithm: "PS256"}), errKeyPurpose},
		"another use":     {jwkOf(t, jose.JSONWebKey{Key: keys()[jose.RS256], Use: "enc"}), errKeyPurpose},
		"a passphrase":    {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("marker")}), errPassphrase},
		"an old passphrase": {pem.EncodeToMemory(&pem.Block{
			Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("marker"),
		}), errPassphrase},
	} {
		if _, err := ParseKey(test.text, ""); err != test.want {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
