package seal

import (
	"bytes"
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

// Name is that of a record.
type Name struct {
	namer *Namer

	// Home and Account are digests of them.
	Home, Account [partSize]byte
}

// strict has one text for each name: more could not be told from made-up ones.
var strict = base64.RawURLEncoding.Strict()

// Record is the name of the record of an account, of a kind, in a home.
func (n *Namer) Record(home, accountKind, account string) Name {
	m := Name{namer: n}
	homeDigest, accountDigest := n.Digest("home", home), n.Digest(accountKind, account)
	copy(m.Home[:], homeDigest[:])
	copy(m.Account[:], accountDigest[:])
	return m
}

// The kinds of accounts: one that was upgraded, and one of which no more is known than a token that it once had.
const (
	OfAccount = "account"
	OfToken   = "token"
)

func (m *Name) tag(kind string) (tag [tagSize]byte) {
	name := m.Fixed()
	digest := m.namer.Digest(kind, string(name[:]))
	copy(tag[:], digest[:])
	return tag
}

// Claim is what a reference says, whoever made it: the name of a record, and the tag.
type Claim [2*partSize + tagSize]byte

// ClaimOf reads a reference. What has not the form of one is none.
func ClaimOf(reference string) (c Claim, ok bool) {
	text, ok := strings.CutPrefix(reference, referencePrefix)
	if !ok || len(reference) != referenceSize {
		return c, false
	}
	return decode(text)
}

func decode(text string) (c Claim, ok bool) {
	var raw [len(c) + 1]byte // one more, so that what is too long is seen
	n, err := strict.Decode(raw[:], []byte(text))
	return Claim(raw[:]), err == nil && n == len(c)
}

// Name is that of the record that it is about.
func (c *Claim) Name() NameBytes { return NameBytes(c[:]) }

// Equal compares two of them in a time that does not say how far they agree.
func (c *Claim) Equal(other *Claim) bool { return hmac.Equal(c[:], other[:]) }

// Claim is that of the reference to the record.
func (m *Name) Claim() Claim { return m.claim(ofReference) }

func (m *Name) claim(kind string) (c Claim) {
	name, tag := m.Fixed(), m.tag(kind)
	copy(c[copy(c[:], name[:]):], tag[:])
	return c
}

// Handle is what a player has as its privateKey.
func (m *Name) Handle() string { return m.as(handlePrefix, ofHandle) }

// Reference is what a player has as its authToken where the real one stays here. It never changes either, and is no handle.
func (m *Name) Reference() string { return m.as(referencePrefix, ofReference) }

func (m *Name) as(prefix, kind string) string {
	c := m.claim(kind)
	return prefix + base64.RawURLEncoding.EncodeToString(c[:])
}

// Text is the name as one word.
func (m *Name) Text() string {
	return lower.EncodeToString(m.Home[:]) + m.AccountText()
}

// AccountText is the account's part of the name as one word.
func (m *Name) AccountText() string { return lower.EncodeToString(m.Account[:]) }

// Namer is what made the name.
func (m *Name) Namer() *Namer { return m.namer }

// NameBytes are a name without the key that made it.
type NameBytes [2 * partSize]byte

// Fixed is the name in a form that can be compared and be the key of a map.
func (m *Name) Fixed() (b NameBytes) {
	copy(b[:], m.Home[:])
	copy(b[partSize:], m.Account[:])
	return b
}

// Key is where the record is in the storage.
func (m *Name) Key() string { return m.namer.Shard(Records, m.Home[0]) + "/" + m.Text() + Extension }

// Alias is where the name of a record is that was made of an old token.
func (m *Name) Alias() string {
	return m.namer.Shard(tokens, m.Account[0]) + "/" + m.AccountText() + Extension
}

// The folders of a vault, each with its shards.
const (
	prefix  = "smapi_upgrade"
	Records = "records"
	tokens  = "tokens"
	Failed  = "failed"

	// Extension is how the name of an object ends.
	Extension = ".jwe"

	// Shards is how many there are of a folder.
	Shards = 256
)

// Shard is the folder of a shard, of Shards, in a folder of the vault.
func (n *Namer) Shard(folder string, shard byte) string {
	return n.dir + "/" + folder + "/" + hex.EncodeToString([]byte{shard})
}

// Parse returns the name in a text of a record.
func (n *Namer) Parse(text string) (m Name, ok bool) {
	raw, err := lower.DecodeString(text)
	if err != nil || len(raw) != 2*partSize {
		return m, false
	}
	return n.of(raw), true
}

func (n *Namer) of(raw []byte) Name {
	m := Name{namer: n}
	copy(m.Home[:], raw)
	copy(m.Account[:], raw[partSize:])
	return m
}

// OpenHandle returns the name of the record that a handle stands for. What has not the form of a handle is none, and one
// that these keys have not made is ErrMadeUp.
func (k *Keys) OpenHandle(key string) (m Name, handle bool, err error) {
	text, ok := strings.CutPrefix(key, handlePrefix)
	if !ok || len(key) != handleSize {
		return m, false, nil
	}
	return k.openAs(text, ofHandle)
}

// OpenReference is OpenHandle for a reference.
func (k *Keys) OpenReference(token string) (m Name, reference bool, err error) {
	text, ok := strings.CutPrefix(token, referencePrefix)
	if !ok || len(token) != referenceSize {
		return m, false, nil
	}
	return k.openAs(text, ofReference)
}

func (k *Keys) openAs(text, kind string) (m Name, formed bool, err error) {
	claimed, ok := decode(text)
	if !ok {
		return m, false, nil
	}
	for i := range k.namers {
		m := k.namers[i].of(claimed[:])
		if c := m.claim(kind); c.Equal(&claimed) {
			return m, true, nil
		}
	}
	return m, false, ErrMadeUp
}

// Made reports whether a name was made by one of these keys, and not by those of an older key file.
func (k *Keys) Made(m *Name) bool {
	for i := range k.namers {
		if m.namer == &k.namers[i] {
			return true
		}
	}
	return false
}

// IsHandle tells whether a key has the form of a handle, whoever made it.
func IsHandle(key string) bool {
	text, ok := strings.CutPrefix(key, handlePrefix)
	if !ok || len(key) != handleSize {
		return false
	}
	_, err := strict.DecodeString(text)
	return err == nil
}

// Failures is the folder of the failed logins of an account. All there is to say of one is in its name, so that instances add theirs at
// once and none is lost, and one look finds them all.
func (n *Namer) Failures(account string) string {
	d := n.Digest(OfAccount, account)
	return n.Shard(Failed, d[0]) + "/" + lower.EncodeToString(d[:partSize])
}

// Bears reports whether a text has a reference or a handle in it, or something that looks like one. What only goes on in base64,
// as a certificate does, is none.
func Bears(text []byte) bool {
	// Its first letter is in every tenth byte of a call, where a search for all of the prefix would stop each time.
	others := []byte(handlePrefix[1:])
	for from := 0; ; {
		at := bytes.Index(text[from:], others)
		if at < 0 {
			return false
		}
		at += from
		from = at + len(others)
		if at == 0 || text[at-1] != handlePrefix[0] || at > 1 && (isBase64URL(text[at-2]) || text[at-2] == '+') {
			continue
		}
		rest, enough := text[from:], textSize
		if len(rest) > 0 && rest[0] == '.' {
			rest, enough = rest[1:], 16 // base64 has no dot
		}
		n := 0
		for n < min(len(rest), enough) && isBase64URL(rest[n]) {
			n++
		}
		if n == enough {
			return true
		}
	}
}

func isBase64URL(b byte) bool {
	return b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '-' || b == '_'
}
