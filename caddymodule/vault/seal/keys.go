// Package seal has the keys of a vault: what seals and opens its objects, and what makes the names and handles that say
// nothing without the key. It does no I/O.
package seal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash"
	"slices"
	"strings"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// Keys are those of one key file. ParseKeys makes them. They are secrets.
type Keys struct {
	sealing jose.Encrypter
	kid     string
	opening map[string][]byte // by kid
	namers  []Namer           // the first makes names and handles, all know them
}

const (
	sealingAlgorithm = string(jose.A256GCM)
	namingAlgorithm  = string(jose.HS256)
	keySize          = 32 // in bytes
)

// What keeps a text from being a key file. None quotes the text.
var (
	errNoSet     = errors.New("is no JWK set; make one by caddy smapi-upgrade vault keygen")
	errNoSealing = errors.New("has no key that seals: one of 32 bytes with kty oct, use enc and alg A256GCM; add one by caddy smapi-upgrade vault keygen")
	errKid       = errors.New("has a key without a kid, or two keys with the same; every key needs one of its own")
	errShort     = errors.New("has a key with alg HS256 of less than 32 bytes")
)

// ParseKeys reads a JWK set (RFC 7517). The first key for A256GCM seals, and all of them open. The first for HS256 makes
// names and handles. Without one these come from the last key of the set by HKDF. Keys of other kinds are left alone.
func ParseKeys(text []byte) (*Keys, error) {
	var set jose.JSONWebKeySet
	if json.Unmarshal(text, &set) != nil || len(set.Keys) == 0 {
		return nil, errNoSet
	}
	k := &Keys{opening: make(map[string][]byte)}
	var derived []Namer
	for _, jwk := range set.Keys {
		secret, ok := jwk.Key.([]byte)
		switch {
		case !ok:
		case jwk.Algorithm == namingAlgorithm && jwk.Use != "enc":
			if len(secret) < keySize {
				return nil, errShort
			}
			k.namers = append(k.namers, newNamer(secret))
		case len(secret) == keySize && (jwk.Algorithm == "" || jwk.Algorithm == sealingAlgorithm) && jwk.Use != "sig":
			if _, twice := k.opening[jwk.KeyID]; twice || jwk.KeyID == "" {
				return nil, errKid
			}
			if err := k.add(jwk.KeyID, secret); err != nil {
				return nil, err
			}
			naming, err := hkdf.Key(sha256.New, secret, nil, "smapi_upgrade vault names", keySize)
			if err != nil {
				return nil, err
			}
			derived = append(derived, newNamer(naming))
		}
	}
	if k.sealing == nil {
		return nil, errNoSealing
	}
	slices.Reverse(derived) // a new key is put in front, so that the last one stays
	k.namers = append(k.namers, derived...)
	return k, nil
}

func (k *Keys) add(kid string, secret []byte) (err error) {
	k.opening[kid] = secret
	if k.sealing != nil {
		return nil
	}
	k.kid = kid
	k.sealing, err = jose.NewEncrypter(jose.A256GCM,
		jose.Recipient{Algorithm: jose.DIRECT, Key: secret, KeyID: kid},
		(&jose.EncrypterOptions{}).WithContentType("json"))
	return err
}

// GenerateKeys returns the text of a new key file: a key that seals and one that makes names. Of a file that there is, it
// returns the same with a new key that seals in front. The key that makes names has to stay for ever, and one that has
// sealed as long as there are records of it.
func GenerateKeys(existing []byte) ([]byte, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if existing != nil {
		if _, err := ParseKeys(existing); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(existing, &set); err != nil {
			return nil, errNoSet
		}
	} else {
		set.Keys = append(set.Keys, newKey("names", "sig", namingAlgorithm))
	}
	set.Keys = slices.Insert(set.Keys, 0, newKey("seal", "enc", sealingAlgorithm))
	text, err := json.MarshalIndent(set, "", "  ")
	return append(text, '\n'), err
}

func newKey(kind, use, algorithm string) json.RawMessage {
	secret := make([]byte, keySize)
	_, _ = rand.Read(secret) // which never fails
	text, err := json.Marshal(jose.JSONWebKey{
		Key: secret, KeyID: kind + "-" + strings.ToLower(rand.Text()[:10]), Use: use, Algorithm: algorithm,
	})
	if err != nil {
		panic(err) // no key of bytes fails to be written
	}
	return text
}

// SealObject returns the JSON of a content, sealed by the first key: a JWE in its compact form, for the storage.
func (k *Keys) SealObject(content any) ([]byte, error) {
	text, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	sealed, err := k.sealing.Encrypt(text)
	if err != nil {
		return nil, err
	}
	compact, err := sealed.CompactSerialize()
	return []byte(compact), err
}

// Kid is the id of the key that seals.
func (k *Keys) Kid() string { return k.kid }

// Namers are what makes names: the first makes all new ones, and the others know those that they made before. There is
// at least one.
func (k *Keys) Namers() []Namer { return k.namers }

// MaxObject is how many bytes an object in the storage has at most.
const MaxObject = 1 << 18

// Why an object or a handle does not open.
var (
	// ErrMadeUp is a key in the form of a handle that none of the keys has made.
	ErrMadeUp = errors.New("the handle is none of ours")

	// ErrKey is a record that was sealed by a key that is not in the key file.
	ErrKey = errors.New("the record was sealed by a key that is not in the key file")

	// ErrSealed is what is no JWE, or larger than MaxObject.
	ErrSealed = errors.New("it is no JWE by dir and A256GCM")

	// ErrBroken is what the key does not open, or is not of the form that was asked for.
	ErrBroken = errors.New("it is damaged")
)

// OpenObject opens what SealObject has made, by whichever key, and says which one. What is damaged is ErrSealed or
// ErrBroken, and a key that is not in the key file ErrKey.
func (k *Keys) OpenObject(sealed []byte, content any) (kid string, err error) {
	if len(sealed) > MaxObject {
		return "", ErrSealed
	}
	jwe, err := jose.ParseEncryptedCompact(string(sealed), []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return "", ErrSealed
	}
	kid = jwe.Header.KeyID
	secret := k.opening[kid]
	if secret == nil {
		return kid, ErrKey
	}
	text, err := jwe.Decrypt(secret)
	if err != nil || json.Unmarshal(text, content) != nil {
		return kid, ErrBroken
	}
	return kid, nil
}

// Seal returns the JSON of a content, sealed by the first key: a JWE in its compact form, for what goes through the hands of
// others.
func (k *Keys) Seal(content any) (string, error) {
	sealed, err := k.SealObject(content)
	return string(sealed), err
}

// Open opens what Seal has made, by whichever key. ErrKey is a key that is not in the key file.
func (k *Keys) Open(sealed string, content any) error {
	_, err := k.OpenObject([]byte(sealed), content)
	return err
}

// Namer makes names that say nothing, by a key. What it makes is the same at every instance and for ever.
type Namer struct {
	macs *sync.Pool // of *mac
	dir  string     // in the storage, of all that it names
}

func newNamer(key []byte) Namer {
	n := Namer{macs: &sync.Pool{New: func() any { return &mac{keyed: hmac.New(sha256.New, key)} }}}
	vault := n.Digest("vault")
	n.dir = prefix + "/" + lower.EncodeToString(vault[:10])
	return n
}

// Dir is the folder in the storage of all that it names.
func (n *Namer) Dir() string { return n.dir }

// lower is for names in the storage: file systems and locks do not all tell upper case from lower.
var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Digest is keyed, so that nobody without the key can try out what it is of.
func (n *Namer) Digest(kind string, parts ...string) [sha256.Size]byte {
	m := n.macs.Get().(*mac)
	defer n.macs.Put(m)
	m.write(kind)
	for _, part := range parts {
		m.write(part)
	}
	return m.sum()
}

// mac is a keyed digest of what is written, with the room that this takes.
type mac struct {
	keyed   hash.Hash
	written []byte
}

func (m *mac) write(part string) {
	m.written = binary.LittleEndian.AppendUint64(m.written, uint64(len(part)))
	m.written = append(m.written, part...)
}

// sum is the digest. Nothing of what was written, which may be secrets, stays.
func (m *mac) sum() (digest [sha256.Size]byte) {
	m.keyed.Reset()
	m.keyed.Write(m.written)
	m.written = m.keyed.Sum(m.written[:0])
	copy(digest[:], m.written)
	clear(m.written[:cap(m.written)])
	m.written = m.written[:0]
	return digest
}
