package flow

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// SignIn is how listeners sign in by the device grant.
type SignIn struct {
	// Start asks where to sign in, and Poll whether a listener has. exchange.NewSignIn makes them.
	Start, Poll *exchange.Rule

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

var errNotOurs = errors.New("it was not sealed here")

// of reports whether a link is one of a home.
func (l *link) of(home string) bool { return bytes.Equal(l.Home, homeDigest(home)) }

func (l *link) over(now time.Time) bool { return now.Unix() >= l.End }

func (l *link) interval() time.Duration { return time.Duration(l.Interval) * time.Second }

// VaultSeals seal by the keys of a vault. What was sealed by Before, while there was no vault, is still opened; nil is nobody.
type VaultSeals struct {
	Keys   func() *seal.Keys
	Before *secret.Seals
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
