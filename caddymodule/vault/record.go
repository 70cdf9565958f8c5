package vault

import (
	"maps"
	"slices"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/census"
)

const version = 1 // of records

// record is what is kept of an account of a home. It is written as JSON and sealed. Members are added and never taken
// away, since instances of two versions share a storage while a fleet is updated.
type record struct {
	absent bool // none is there, and nobody has its handle

	Version int `json:"version"`

	// Name is that of the record, so that nobody can put one in the place of another. Alias tells that it is also found
	// by the token that it was made of.
	Name  string `json:"name"`
	Alias bool   `json:"alias,omitempty"`

	// Generation counts the writes. Who writes the next one holds the lock of this one.
	Generation int64 `json:"generation"`

	Household    string `json:"household"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`

	// Expires is when the access token ends, zero where the server did not say.
	Expires time.Time `json:"expires_at,omitzero"`

	Created   time.Time `json:"created_at"`
	Refreshed time.Time `json:"refreshed_at"` // when the tokens were issued
	Used      time.Time `json:"used_at"`

	// Source is what the record was made by.
	Source census.Source `json:"source,omitempty"`

	// Fields are what calls to the old service are made of, nil where there was none when the tokens were issued. Dead tells that
	// the account has to sign in again: neither its tokens nor these are good any more.
	Fields map[string]string `json:"fields,omitempty"`
	Dead   bool              `json:"dead,omitempty"`

	// UserIDHash stands for who has signed in, until the tokens are refreshed.
	UserIDHash string `json:"user_id_hash,omitempty"`
}

const (
	// assumedLife is how long an access token is taken for good of which the server did not say.
	assumedLife = 5 * time.Minute
	maxMargin   = time.Minute
)

// serves tells whether a player that presents an access token can have that of the record without a refresh: it is
// another one, and has life left. A player that presents none may have this one, unless it is from just now.
func (r *record) serves(presented string, now time.Time) bool {
	switch presented {
	case r.AccessToken:
		return false
	case "":
		return now.Sub(r.Refreshed) < maxMargin && r.alive(now)
	}
	return r.alive(now)
}

func (r *record) hasFields(fields []string) bool {
	return !slices.ContainsFunc(fields, func(name string) bool { return r.Fields[name] == "" })
}

func (r *record) alive(now time.Time) bool {
	ends, margin := r.ends()
	return ends.Sub(now) > margin
}

// ends is when the access token ends, and how long before that it is refreshed.
func (r *record) ends() (at time.Time, margin time.Duration) {
	at = r.Expires
	if at.IsZero() {
		at = r.Refreshed.Add(assumedLife)
	}
	return at, min(maxMargin, at.Sub(r.Refreshed)/10)
}

// unusedSince is when the record was last known to be needed. A token that lives for years is in use all along.
func (r *record) unusedSince() time.Time {
	if r.Expires.After(r.Used) {
		return r.Expires
	}
	return r.Used
}

// has tells whether the record has these tokens, or newer ones. One from the future is of an instance whose clock is ahead, and
// says nothing; a dead one has none.
func (r *record) has(t *Tokens, now time.Time) bool {
	if r.Dead {
		return false
	}
	newer := r.Refreshed.After(t.Obtained) && !r.Refreshed.After(now)
	return newer || r.Refreshed.Equal(t.Obtained) && r.AccessToken == t.Access
}

// take puts new tokens into the record.
func (r *record) take(t *Tokens, now time.Time) {
	r.Version, r.Generation = version, r.Generation+1
	r.AccessToken = t.Access
	if t.Refresh != "" {
		r.RefreshToken = t.Refresh // RFC 6749 section 6: else the old one stays good
	}
	r.Expires = time.Time{}
	if t.Life > 0 {
		r.Expires = t.Obtained.Add(min(t.Life, maxLife)).UTC()
	}
	r.Refreshed, r.Used, r.Dead, r.UserIDHash = t.Obtained.UTC(), now.UTC(), false, t.UserIDHash
	if t.Fields != nil {
		fields := maps.Clone(r.Fields) // which others may be reading
		if fields == nil {
			fields = make(map[string]string, len(t.Fields))
		}
		maps.Copy(fields, t.Fields)
		r.Fields = fields
	}
}

// maxLife bounds what a server can say of its tokens.
const maxLife = 10 * 365 * 24 * time.Hour

// alias is what the name of a token leads to.
type alias struct {
	Version int    `json:"version"`
	Alias   string `json:"alias"` // where it is, so that nobody can put one in the place of another
	Name    string `json:"name"`
}
