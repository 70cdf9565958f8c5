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
	handleSize   = len(handlePrefix) + (2*partSize+tagSize)*4/3 + 1
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

func (m *name) tag() []byte { return m.namer.digest("handle", string(m.bytes()))[:tagSize] }

func (m *name) handle() string {
	return handlePrefix + base64.RawURLEncoding.EncodeToString(append(m.bytes(), m.tag()...))
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
	raw, ok := decodeHandle(key)
	if !ok {
		return m, false, nil
	}
	for i := range k.namers {
		m := k.namers[i].of(raw)
		if hmac.Equal(m.tag(), raw[2*partSize:]) {
			return m, true, nil
		}
	}
	return m, false, ErrMadeUp
}

// IsHandle tells whether a key has the form of a handle, whoever made it.
func IsHandle(key string) bool {
	_, ok := decodeHandle(key)
	return ok
}

func decodeHandle(key string) (raw []byte, ok bool) {
	text, ok := strings.CutPrefix(key, handlePrefix)
	if !ok || len(key) != handleSize {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return raw, err == nil && len(raw) == 2*partSize+tagSize
}
