package vault

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestAKeyFileIsAJWKSetThatAnyJOSELibraryReads(t *testing.T) {
	text, err := GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("%v in %s", err, text)
	}
	if set.Keys[0].Algorithm != "A256GCM" || set.Keys[0].Use != "enc" || set.Keys[1].Algorithm != "HS256" || set.Keys[1].Use != "sig" {
		t.Errorf("got %s", text)
	}
	sealed := mustSeal(t, parseKeys(t, text), record{AccessToken: "a1"})
	jwe, err := jose.ParseEncrypted(string(sealed), []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := jwe.Decrypt(set); err != nil || !strings.Contains(string(plain), `"access_token":"a1"`) {
		t.Errorf("got %s, %v", plain, err)
	}
}

func TestANewKeyIsPutInFrontAndTheOthersStayAsTheyAre(t *testing.T) {
	const before = `{"keys":[{"kty":"oct","kid":"2026","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","more":1}]}`
	after, err := GenerateKeys([]byte(before))
	if err != nil || !strings.Contains(string(after), `"more": 1`) {
		t.Fatalf("got %s, %v", after, err)
	}
	old, now := parseKeys(t, []byte(before)), parseKeys(t, after)
	if now.kid == "2026" || now.opening["2026"] == nil || old.namers[0].dir != now.namers[0].dir {
		t.Error("the new key does not seal, the old one does not open, or names are others")
	}
	again, _ := GenerateKeys(after)
	if third := parseKeys(t, again); third.namers[0].dir != old.namers[0].dir || len(third.opening) != 3 {
		t.Error("the names are others after a second time")
	}
}

func TestAHandleOfAnyKeyInTheFileIsGood(t *testing.T) {
	const first = `{"kty":"oct","kid":"a","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`
	const second = `{"kty":"oct","kid":"b","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`
	s, oauth := newStorage(), newServer()
	pair := open(t, parseKeys(t, []byte(`{"keys":[`+first+`]}`)), s).Upgraded(call(t), home, account, oauth.login("a"))
	// Wrongly put behind instead of in front, so that names come from it.
	v := open(t, parseKeys(t, []byte(`{"keys":[`+first+`,`+second+`]}`)), s)
	if _, err := v.Refresh(call(t), home, pair.PrivateKey, pair.AuthToken, oauth.ask); err != nil {
		t.Error(err)
	}
	if n, err := v.ForgetHousehold(call(t), home); n != 1 || err != nil {
		t.Errorf("%d forgotten, %v", n, err)
	}
}

func TestWhatIsNoKeyFileIsSaidWithoutQuotingIt(t *testing.T) {
	const k = `"k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"`
	for text, want := range map[string]error{
		`secret`:        errNoSet,
		`{}`:            errNoSet,
		`{"keys":[]}`:   errNoSet,
		`{"kty":"oct"}`: errNoSet,
		`{"keys":[{"kty":"oct","kid":"a","alg":"HS256",` + k + `}]}`:                     errNoSealing,
		`{"keys":[{"kty":"oct","kid":"a","use":"sig",` + k + `}]}`:                       errNoSealing,
		`{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}`:                                  errNoSealing,
		`{"keys":[{"kty":"oct",` + k + `}]}`:                                             errKid,
		`{"keys":[{"kty":"oct","kid":"a",` + k + `},{"kty":"oct","kid":"a",` + k + `}]}`: errKid,
		`{"keys":[{"kty":"oct","kid":"n","alg":"HS256","k":"AAAA"}]}`:                    errShort,
	} {
		if _, err := ParseKeys([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := GenerateKeys([]byte(text)); err == nil {
			t.Errorf("%s: a key was added", text)
		}
	}
}

// Two instances read a new key file at different moments, while their homes refresh.
func TestKeysAreRotatedUnderLoad(t *testing.T) {
	s, oauth := newStorage(), newServer()
	oauth.life = time.Millisecond // each refresh asks
	text, _ := GenerateKeys(nil)
	var inForce [2]atomic.Pointer[Keys]
	var vaults [2]*Vault
	for i := range vaults {
		inForce[i].Store(parseKeys(t, text))
		vaults[i] = New(Config{Keys: inForce[i].Load, Storage: at(s)})
	}
	pair := vaults[0].Upgraded(call(t), home, account, oauth.login("a"))
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var refreshed atomic.Int64
	for i := range 4 {
		wait.Go(func() {
			held := pair.AuthToken
			for ctx.Err() == nil {
				got, err := vaults[i%2].Refresh(call(t), home, pair.PrivateKey, held, oauth.ask)
				if err != nil {
					t.Error(err)
					return
				}
				held = got.AuthToken
				refreshed.Add(1)
			}
		})
	}
	for range 3 {
		text, _ = GenerateKeys(text)
		keys := parseKeys(t, text)
		for i := range inForce {
			before := refreshed.Load()
			inForce[i].Store(keys)
			for deadline := time.Now().Add(20 * time.Second); refreshed.Load() < before+20 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		if done, err := vaults[0].Rotate(call(t)); err != nil || done.Unreadable != 0 {
			t.Errorf("rotated %+v, %v", done, err)
		}
	}
	cancel()
	wait.Wait()
	if len(oauth.revoked) != 0 || refreshed.Load() < 100 {
		t.Errorf("%d refreshes, revoked: %v", refreshed.Load(), oauth.revoked)
	}
}

func TestRotatingSealsEverythingAnew(t *testing.T) {
	s, oauth := newStorage(), newServer()
	text, _ := GenerateKeys(nil)
	v := open(t, parseKeys(t, text), s)
	pair := v.Upgraded(call(t), home, account, oauth.login("a"))
	old := oauth.login("b")
	if _, err := v.Refresh(call(t), home, old.Refresh, old.Access, oauth.ask); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Forget(call(t)); err != nil {
		t.Fatal(err)
	}
	damaged := keysOf(text).namers[0].record("damaged", ofAccount, account)
	s.objects[damaged.key()] = memoryObject{content: []byte("x")}
	rotated, _ := GenerateKeys(text)
	if done, err := open(t, parseKeys(t, rotated), s).Rotate(call(t)); err != nil || done != (Rotated{Seen: 3, Sealed: 2, Unreadable: 1}) {
		t.Fatalf("got %+v, %v", done, err)
	}
	// The old key is gone from the file, but for the one that makes names.
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(rotated, &set); err != nil {
		t.Fatal(err)
	}
	set.Keys = []json.RawMessage{set.Keys[0], set.Keys[2]}
	left, _ := json.Marshal(map[string]any{"keys": set.Keys})
	v = open(t, parseKeys(t, left), s)
	for _, key := range []string{pair.PrivateKey, old.Refresh} {
		if _, err := v.Refresh(call(t), home, key, "another", oauth.ask); err != nil {
			t.Error(err)
		}
	}
	if oauth.times() != 1 {
		t.Errorf("asked %d times", oauth.times())
	}
	if done, err := v.Rotate(call(t)); err != nil || done.Sealed != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
}

func keysOf(text []byte) *Keys {
	keys, err := ParseKeys(text)
	if err != nil {
		panic(err)
	}
	return keys
}
