package flow

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// SignIn is how listeners sign in by the device grant.
type SignIn struct {
	// Start asks where to sign in, and Poll whether a listener has. NewSignIn makes them.
	Start, Poll *Exchange

	// AppURLStringID names the text of the link in the service's localization resources.
	AppURLStringID string

	// ShowLinkCode has the app show the code even where the address has it.
	ShowLinkCode bool

	// UserID is the field of the answer, or the claim of its id_token, that stands for a user for ever. HashUser makes of it
	// what a player may know. Blank and nil are none.
	UserID   string
	HashUser func(string) string

	// Seals seals what a poll needs. Nil is where nobody polls, as in mode observe.
	Seals Seals
}

// Seals keep a text from everybody else, and tell whether it is ours.
type Seals interface {
	// Seal returns the JSON of content, sealed and of characters that XML can carry.
	Seal(content any) (string, error)

	// Open reads what Seal has made, at whichever instance.
	Open(sealed string, content any) error
}

// link is all that a poll needs, so that any instance answers it and none keeps anything. It goes through the player, sealed.
type link struct {
	Code     string `json:"c"` // the device_code
	Home     []byte `json:"h"` // a digest, which is shorter than the longest home
	End      int64  `json:"e"` // when the code is over, in seconds of the epoch
	Interval int    `json:"i"` // least seconds between two questions
}

func newLink(home string, a *token.Authorization, now time.Time) *link {
	return &link{a.DeviceCode, homeDigest(home), now.Add(a.Life).Unix(), int((a.Interval + time.Second - 1) / time.Second)}
}

func homeDigest(home string) []byte {
	sum := sha256.Sum256([]byte(home))
	return sum[:16]
}

// openLink returns the link that a poll is about. An error of vault.ErrKey is a key that is not known here, any other a
// link that was not made here.
func (s *SignIn) openLink(call *smapi.Call) (*link, error) {
	l := new(link)
	if err := s.Seals.Open(call.LinkDeviceID, l); err != nil {
		return nil, err
	}
	if l.Code == "" {
		return nil, errNotOurs
	}
	return l, nil
}

// of reports whether a link is one of a home.
func (l *link) of(home string) bool { return bytes.Equal(l.Home, homeDigest(home)) }

func (l *link) over(now time.Time) bool { return now.Unix() >= l.End }

func (l *link) interval() time.Duration { return time.Duration(l.Interval) * time.Second }

// VaultSeals seal by the keys of a vault. What was sealed by Before, while there was no vault, is still opened; nil is nobody.
type VaultSeals struct {
	Keys   func() *seal.Keys
	Before *SecretSeals
}

// Seal returns a JWE in its compact form.
func (s VaultSeals) Seal(content any) (string, error) { return s.Keys().Seal(content) }

// Open opens it.
func (s VaultSeals) Open(sealed string, content any) error {
	err := s.Keys().Open(sealed, content)
	if err != nil && s.Before != nil && s.Before.Open(sealed, content) == nil {
		return nil
	}
	return err
}

// SecretSeals seal by a key that is derived from a client's secret, which all instances have. When it changes, what was
// sealed by the one before is still opened.
type SecretSeals struct {
	secret func() string

	mu   sync.Mutex
	keys [2]sealKey // the one in force first
}

type sealKey struct {
	secret string
	key    []byte
}

// NewSecretSeals returns Seals by the secret that a function returns, which must not be blank.
func NewSecretSeals(secret func() string) *SecretSeals { return &SecretSeals{secret: secret} }

func (s *SecretSeals) inForce() ([2]sealKey, error) {
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
func (s *SecretSeals) Seal(content any) (string, error) {
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
func (s *SecretSeals) Open(sealed string, content any) error {
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
