package secret

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// Seals seal by a key that is derived from a client's secret, which all instances have. When it changes, what was
// sealed by the one before is still opened.
type Seals struct {
	secret func() string

	mu   sync.Mutex
	keys [2]sealKey // the one in force first
}

type sealKey struct {
	secret string
	key    []byte
}

// NewSeals returns Seals by the secret that a function returns, which must not be blank.
func NewSeals(secret func() string) *Seals { return &Seals{secret: secret} }

func (s *Seals) inForce() ([2]sealKey, error) {
	secret := s.secret()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys[0].key == nil || s.keys[0].secret != secret {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, "smapi_upgrade sign_in", 32)
		if err != nil {
			return s.keys, err
		}
		s.keys = [2]sealKey{{secret, key}, s.keys[0]}
	}
	return s.keys, nil
}

// Seal returns a JWE in its compact form.
func (s *Seals) Seal(content any) (string, error) {
	text, err := json.Marshal(content)
	if err != nil {
		return "", err
	}
	keys, err := s.inForce()
	if err != nil {
		return "", err
	}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: keys[0].key}, nil)
	if err != nil {
		return "", err
	}
	jwe, err := encrypter.Encrypt(text)
	if err != nil {
		return "", err
	}
	return jwe.CompactSerialize()
}

var errNotOurs = errors.New("it was not sealed here")

// Open opens it.
func (s *Seals) Open(sealed string, content any) error {
	jwe, err := jose.ParseEncryptedCompact(sealed, []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return errNotOurs
	}
	keys, err := s.inForce()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.key == nil {
			continue
		}
		if text, err := jwe.Decrypt(k.key); err == nil {
			return json.Unmarshal(text, content)
		}
	}
	return errNotOurs
}
