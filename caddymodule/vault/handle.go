package vault

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// A handle is what a player has as its privateKey: handlePrefix and, in base64url, the parts of the record's name and a
// tag that only the key can make. It never changes, and a made-up one is told without a look into the storage.
const (
	handlePrefix = "smv1"
	partSize     = 10 // bytes of a digest that make a name: a million homes share one by a chance of 1 in 10^12
	tagSize      = 12
	handleSize   = len(handlePrefix) + textSize
	textSize     = (2*partSize+tagSize)*4/3 + 1

	referencePrefix = handlePrefix + "." // which no base64url has
	referenceSize   = len(referencePrefix) + textSize

	// What the tags are of.
	ofHandle    = "handle"
	ofReference = "reference"
)

// name is that of a record.
type name struct {
	namer         *namer
	home, account [partSize]byte
}

func (n *namer) record(home, accountKind, account string) name {
	m := name{namer: n}
	copy(m.home[:], n.digest("home", home))
	copy(m.account[:], n.digest(accountKind, account))
	return m
}

// The kinds of accounts: one that was upgraded, and one of which no more is known than a token that it once had.
const (
	ofAccount = "account"
	ofToken   = "token"
)

func (m *name) bytes() []byte { return append(m.home[:len(m.home):len(m.home)], m.account[:]...) }

func (m *name) tag(kind string) []byte { return m.namer.digest(kind, string(m.bytes()))[:tagSize] }

func (m *name) handle() string { return m.as(handlePrefix, ofHandle) }

// reference is what a player has as its authToken where the real one stays here. It never changes either, and is no handle.
func (m *name) reference() string { return m.as(referencePrefix, ofReference) }

func (m *name) as(prefix, kind string) string {
	return prefix + base64.RawURLEncoding.EncodeToString(append(m.bytes(), m.tag(kind)...))
}

// text is the name as one word.
func (m *name) text() string {
	return lower.EncodeToString(m.home[:]) + lower.EncodeToString(m.account[:])
}

// key is where the record is in the storage.
func (m *name) key() string { return m.namer.shard(records, m.home[0]) + "/" + m.text() + extension }

// alias is where the name of a record is that was made of an old token.
func (m *name) alias() string {
	return m.namer.shard(tokens, m.account[0]) + "/" + lower.EncodeToString(m.account[:]) + extension
}

// The folders of a vault, each with its shards.
const (
	prefix    = "smapi_upgrade"
	records   = "records"
	tokens    = "tokens"
	failed    = "failed"
	extension = ".jwe"
	shards    = 256
)

func (n *namer) shard(folder string, shard byte) string {
	return n.dir + "/" + folder + "/" + hex.EncodeToString([]byte{shard})
}

// parse returns the name in a text of a record.
func (n *namer) parse(text string) (m name, ok bool) {
	raw, err := lower.DecodeString(text)
	if err != nil || len(raw) != 2*partSize {
		return m, false
	}
	return n.of(raw), true
}

func (n *namer) of(raw []byte) name {
	m := name{namer: n}
	copy(m.home[:], raw)
	copy(m.account[:], raw[partSize:])
	return m
}

// openHandle returns the name of the record that a handle stands for. What has not the form of a handle is none, and one
// that these keys have not made is ErrMadeUp.
func (k *Keys) openHandle(key string) (m name, handle bool, err error) {
	text, ok := strings.CutPrefix(key, handlePrefix)
	if !ok || len(key) != handleSize {
		return m, false, nil
	}
	return k.openAs(text, ofHandle)
}

// openReference is openHandle for a reference.
func (k *Keys) openReference(token string) (m name, reference bool, err error) {
	text, ok := strings.CutPrefix(token, referencePrefix)
	if !ok || len(token) != referenceSize {
		return m, false, nil
	}
	return k.openAs(text, ofReference)
}

func (k *Keys) openAs(text, kind string) (m name, formed bool, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != 2*partSize+tagSize {
		return m, false, nil
	}
	for i := range k.namers {
		m := k.namers[i].of(raw)
		if hmac.Equal(m.tag(kind), raw[2*partSize:]) {
			return m, true, nil
		}
	}
	return m, false, ErrMadeUp
}

// IsHandle tells whether a key has the form of a handle, whoever made it.
func IsHandle(key string) bool {
	text, ok := strings.CutPrefix(key, handlePrefix)
	if !ok || len(key) != handleSize {
		return false
	}
	_, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil
}
