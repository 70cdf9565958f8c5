package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// assertionLife is for how long an assertion is good. It is made for one request.
const assertionLife = time.Minute

// Key signs the assertions of a client that authenticates by PrivateKeyJWT.
type Key struct{ signer jose.Signer }

// What keeps a text from being a key that can sign. None quotes the text.
var (
	errNoKey      = errors.New("is no private key in PEM or as a JWK")
	errKeyKind    = errors.New("is none of an RSA key of at least 2048 bits, an EC key on P-256 and an Ed25519 key")
	errKeyPurpose = errors.New("is a JWK whose alg or use is not for what it would sign here")
	errPassphrase = errors.New("is a private key with a passphrase, which cannot be asked for")
)

// ParseKey reads a private key, PEM (PKCS #8, PKCS #1 or SEC 1) or a JWK (RFC 7517). An RSA key signs by RS256,
// an EC key on P-256 by ES256, an Ed25519 key by EdDSA. The id goes into the assertions' header; blank, it is
// that of the JWK, if that has one.
func ParseKey(text []byte, id string) (*Key, error) {
	jwk, err := readKey(text)
	if err != nil {
		return nil, err
	}
	algorithm := algorithmOf(jwk.Key)
	if algorithm == "" {
		return nil, errKeyKind
	}
	if jwk.Algorithm != "" && jwk.Algorithm != string(algorithm) || jwk.Use != "" && jwk.Use != "sig" {
		return nil, errKeyPurpose
	}
	if id == "" {
		id = jwk.KeyID
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: jwk.Key, KeyID: id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, errKeyKind
	}
	return &Key{signer}, nil
}

func readKey(text []byte) (jwk jose.JSONWebKey, err error) {
	if text = bytes.TrimSpace(text); bytes.HasPrefix(text, []byte("{")) {
		if json.Unmarshal(text, &jwk) != nil || !jwk.Valid() || jwk.IsPublic() {
			return jwk, errNoKey
		}
		return jwk, nil
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return jwk, errNoKey
		}
		switch block.Type {
		case "PRIVATE KEY":
			jwk.Key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			jwk.Key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			jwk.Key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return jwk, errPassphrase
		default: // such as EC PARAMETERS, which openssl writes before the key
			continue
		}
		if block.Headers["DEK-Info"] != "" {
			return jwk, errPassphrase
		}
		if err != nil {
			return jwk, errNoKey
		}
		return jwk, nil
	}
}

func algorithmOf(key any) jose.SignatureAlgorithm {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() >= 2048 {
			return jose.RS256
		}
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P256() {
			return jose.ES256
		}
	case ed25519.PrivateKey:
		return jose.EdDSA
	}
	return ""
}

// assertion is a JWT by which the client authenticates once (RFC 7523 section 3).
func (k *Key) assertion(clientID, audience string) (string, error) {
	now := time.Now()
	return jwt.Signed(k.signer).Claims(jwt.Claims{
		Issuer:   clientID,
		Subject:  clientID,
		Audience: jwt.Audience{audience},
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(assertionLife)),
		ID:       rand.Text(),
	}).Serialize()
}
