package flow

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token/tokentest"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

const (
	home    = "Sonos_abc123"
	pending = `{"error":"authorization_pending"}`
	issued  = `{"access_token":"new","refresh_token":"key"}`
)

// authorizer is a stand-in for an authorization server with the device grant.
type authorizer struct {
	mu     sync.Mutex
	codes  int
	answer func(n int) string // to a device authorization, in the place of a usual one
	says   func(code string) (int, http.Header, string)
	asked  map[string][]time.Time // by code
	refuse bool                   // everything, by 503

	deviceStatus int           // of device authorizations, where it is another than 200
	deviceIn     chan struct{} // closed to let device authorizations go on
}

func (a *authorizer) RoundTrip(r *http.Request) (*http.Response, error) {
	return tokentest.Stub(func(form url.Values) (int, http.Header, string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.refuse {
			return 503, nil, ""
		}
		if !form.Has("grant_type") {
			if a.deviceIn != nil {
				a.mu.Unlock()
				<-a.deviceIn
				a.mu.Lock()
			}
			a.codes++
			if a.deviceStatus != 0 {
				return a.deviceStatus, http.Header{"Retry-After": {"60"}}, ""
			}
			if a.answer != nil {
				return 200, nil, a.answer(a.codes)
			}
			return 200, nil, fmt.Sprintf(`{"device_code":"device-%d","user_code":"USER-%d","verification_uri":"https://auth.example.com/device",`+
				`"verification_uri_complete":"https://auth.example.com/device?user_code=USER-%d","expires_in":300,"interval":5}`, a.codes, a.codes, a.codes)
		}
		if form.Get("grant_type") == "password" {
			return 200, nil, issued
		}
		code := form.Get("device_code")
		if a.asked == nil {
			a.asked = map[string][]time.Time{}
		}
		a.asked[code] = append(a.asked[code], time.Now())
		if a.says == nil {
			return 400, nil, pending
		}
		return a.says(code)
	}).RoundTrip(r)
}

func (a *authorizer) polls() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, times := range a.asked {
		n += len(times)
	}
	return n
}

func (a *authorizer) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// instance is one that listeners sign in by.
type instance struct {
	*exchange.Exchanger
	*Policy
	t *testing.T
}

func signingIn(t *testing.T, a *authorizer, clientSecret func() string, change ...func(*exchange.Exchanger)) *instance {
	t.Helper()
	fields := []string{"access_token", "refresh_token", IDToken}
	where := &url.URL{Scheme: "https", Host: "auth.example.com"}
	config := token.Config{
		URL: where, DeviceURL: where, Client: token.Client{ID: "the id", Auth: token.Basic, Secret: func() string { return "s" }},
		Fields: fields, Transport: a, Context: context.Background(),
	}
	x := &exchange.Exchanger{
		Name: where.String(), Endpoint: token.New(config), SignIn: token.New(config),
		State:  exchange.NewState(pacing.Watch{}, nil, time.Now),
		Places: 4, Fuse: 100, Replay: time.Minute, RememberRejected: 30 * time.Second, Budgets: pacing.NewBudgets(time.Now),
	}
	for _, f := range change {
		f(x)
	}
	s := &SignIn{AppURLStringID: "SIGN_IN", ShowLinkCode: true, Seals: secret.NewSeals(clientSecret)}
	s.Start, s.Poll = exchange.NewSignIn(nil, nil, nil, fields...)
	return &instance{x, &Policy{
		Mode: ModeUpgrade, Households: households.All, AuthToken: "access_token", PrivateKey: "refresh_token",
		Timeout: 15 * time.Second, SignIn: s,
	}, t}
}

func ofClient() string { return "a client's secret" }

func (i *instance) call(method smapi.Method, home, linkDeviceID string) *Decision {
	i.t.Helper()
	call := &smapi.Call{Method: method, Arrived: time.Now(), HouseholdID: home, LinkDeviceID: linkDeviceID, Credentials: smapi.Credentials{Kind: smapi.None}}
	d := *i.Decide(call)
	if d.Rule != nil {
		q := d.Rule.Request(call, nil)
		i.Ask(i.t.Context(), i.Exchanger, &d, &q)
		Learn(i.Exchanger, &q, &d)
	}
	return &d
}

func (i *instance) begin(home string) *smapi.Link {
	i.t.Helper()
	d := i.call(smapi.GetAppLink, home, "")
	if d.Outcome != LinkStarted {
		i.t.Fatalf("no link: %s, %+v", d.Outcome, d.Result)
	}
	return d.Link
}

func (i *instance) polls(want Outcome, l *smapi.Link) *Decision {
	i.t.Helper()
	d := i.call(smapi.Poll, home, l.DeviceID)
	if d.Outcome != want {
		i.t.Errorf("a poll is %s and not %s: %+v, %+v", d.Outcome, want, d.Result, d.Reason)
	}
	return d
}

func tokens(string) (int, http.Header, string) { return 200, nil, issued }

func TestAListenerSignsInAtWhicheverInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(authorizer)
		first, second := signingIn(t, a, ofClient), signingIn(t, a, ofClient)
		l := first.begin(home)
		if l.URL != "https://auth.example.com/device?user_code=USER-1" || l.Code != "USER-1" || !l.Show {
			t.Errorf("the link is %+v", l)
		}
		for range 3 {
			time.Sleep(5 * time.Second)
			second.polls(LinkPending, l)
		}
		a.set(func() { a.says = tokens })
		time.Sleep(5 * time.Second)
		d := first.polls(Linked, l)
		if d.AuthToken != "new" || d.PrivateKey != "key" || a.polls() != 4 {
			t.Errorf("%+v after %d polls", d, a.polls())
		}
	})
}

func TestAPollThatIsTooEarlyAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(authorizer)
		i := signingIn(t, a, ofClient)
		l := i.begin(home)
		for range 5 { // at 0 s to 4 s
			i.polls(LinkPending, l)
			time.Sleep(time.Second)
		}
		if a.polls() != 1 {
			t.Errorf("%d polls in one interval", a.polls())
		}
		a.set(func() { a.says = func(string) (int, http.Header, string) { return 429, nil, `{"error":"slow_down"}` } })
		i.polls(LinkPending, l) // at 5 s
		time.Sleep(9 * time.Second)
		i.polls(LinkPending, l)
		if a.polls() != 2 {
			t.Errorf("%d polls though the server wanted fewer", a.polls())
		}
		time.Sleep(time.Second)
		i.polls(LinkPending, l)
		if a.polls() != 3 {
			t.Errorf("%d polls, and the last was not too early", a.polls())
		}
	})
}

// At the other instance the server says that the code is used up, and the vault has what it brought.
func TestALostAnswerIsGivenAgainForAMinuteAtAnotherInstanceToo(t *testing.T) {
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, storage := keysOf(t, text), &certmagic.FileStorage{Path: t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		a := givesOnce()
		withVault := func(x *exchange.Exchanger) {
			x.Vault, x.Now = vault.New(vault.Config{Keys: keys, Storage: func() certmagic.Storage { return storage }}), time.Now
		}
		first, second := signingIn(t, a, ofClient, withVault), signingIn(t, a, ofClient, withVault)
		l := first.begin(home)
		first.polls(Linked, l)
		time.Sleep(50 * time.Second)
		if d := second.polls(Linked, l); d.AuthToken != "new" || !d.Result.Replayed {
			t.Errorf("%+v", d)
		}
		time.Sleep(20 * time.Second)
		second.polls(LinkFailed, l)
		time.Sleep(time.Minute) // certmagic looks a last time whether it has the lock
	})
}

func TestAnIntervalIsNeverCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authorizer{answer: func(int) string {
			return `{"device_code":"d","user_code":"U","verification_uri":"https://a.example","interval":4.5}`
		}}
		i := signingIn(t, a, ofClient)
		l := i.begin(home)
		i.polls(LinkPending, l)
		time.Sleep(4400 * time.Millisecond)
		if i.polls(LinkPending, l); a.polls() != 1 {
			t.Errorf("%d polls in one interval", a.polls())
		}
		time.Sleep(600 * time.Millisecond) // a link has whole seconds
		if i.polls(LinkPending, l); a.polls() != 2 {
			t.Errorf("%d polls, and the last was not too early", a.polls())
		}
	})
}

func TestWhoWaitsIsNoFailureAndHoldsNobody(t *testing.T) {
	for _, status := range []int{400, 401, 403, 429, 500, 503} {
		for _, body := range []string{pending, `{"error":"slow_down"}`} {
			synctest.Test(t, func(t *testing.T) {
				a := &authorizer{says: func(string) (int, http.Header, string) {
					return status, http.Header{"Retry-After": {"300"}}, body
				}}
				i := signingIn(t, a, ofClient)
				for n := range 3 * 20 {
					l := i.begin(fmt.Sprint("home ", n))
					if d := i.call(smapi.Poll, fmt.Sprint("home ", n), l.DeviceID); d.Outcome != LinkPending || d.Result.Status != status {
						t.Fatalf("%d %s: %s, %+v", status, body, d.Outcome, d.Result)
					}
				}
				if s := i.State.Polls.Status(); s.Breaker != "closed" || !s.Hold.IsZero() || a.polls() != 3*20 {
					t.Errorf("%d %s: %+v after %d polls", status, body, s, a.polls())
				}
				if n := i.State.UpgradeAccounts.Count(); n != [len(n)]int{} {
					t.Errorf("%d %s: who signs in is counted as an account: %v", status, body, n)
				}
			})
		}
	}
}

func TestAnOutageIsPendingUntilTheCodeHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(authorizer)
		i := signingIn(t, a, ofClient)
		l := i.begin(home)
		a.set(func() { a.refuse = true })
		for range 59 {
			time.Sleep(5 * time.Second)
			i.polls(LinkPending, l)
		}
		if d := i.call(smapi.GetAppLink, home, ""); d.Outcome != Unavailable {
			t.Errorf("a link in an outage: %s", d.Outcome)
		}
		time.Sleep(5 * time.Second)
		a.set(func() { a.refuse, a.says = false, tokens })
		i.polls(LinkFailed, l)
		if a.polls() != 0 {
			t.Error("a code was asked for that has expired")
		}
	})
}

// Nobody is told to stop asking because the server is busy with others.
func TestAPollForWhichThereIsNoPlaceIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(authorizer)
		i := signingIn(t, a, ofClient, func(x *exchange.Exchanger) { x.Places = 1 })
		i.Timeout = 5 * time.Second
		a.says = func(string) (int, http.Header, string) {
			a.mu.Unlock()
			defer a.mu.Lock()
			time.Sleep(4 * time.Second)
			return 400, nil, pending
		}
		const homes = 10
		links := make([]*smapi.Link, homes)
		for n := range homes {
			links[n] = i.begin(fmt.Sprint("home ", n))
		}
		var wait sync.WaitGroup
		for n, l := range links {
			wait.Go(func() {
				if d := i.call(smapi.Poll, fmt.Sprint("home ", n), l.DeviceID); d.Outcome != LinkPending {
					t.Errorf("%s, %+v", d.Outcome, d.Result)
				}
			})
		}
		synctest.Wait()
		ella := exchange.Request{Grant: token.Grant{Type: "password"}, Identity: []string{home, "ella"}, Account: "ella"}
		ella.Deadline = time.Now().Add(10 * time.Second)
		if r := i.Exchange(t.Context(), &ella); r.Class != token.Issued || r.Waited != 0 {
			t.Errorf("a login meanwhile: %+v", r)
		}
		wait.Wait()
		if a.polls() > homes/2 {
			t.Errorf("there was a place for %d of %d", a.polls(), homes)
		}
	})
}

func TestARefusalEndsASignInAndWeighsOnNoFuse(t *testing.T) {
	for _, code := range []string{"access_denied", "authorization_declined", "expired_token", "invalid_grant", "bad_verification_code"} {
		synctest.Test(t, func(t *testing.T) {
			a := &authorizer{says: func(string) (int, http.Header, string) { return 403, nil, `{"error":"` + code + `"}` }}
			i := signingIn(t, a, ofClient, func(x *exchange.Exchanger) { x.Fuse = 50 })
			for n := range 100 {
				h := fmt.Sprint("home ", n)
				l := i.begin(h)
				if d := i.call(smapi.Poll, h, l.DeviceID); d.Outcome != LinkFailed {
					t.Errorf("%s: %s, %+v", code, d.Outcome, d.Result)
				}
			}
			if i.State.LoginFuse.Blown() || i.State.RefreshFuse.Blown() {
				t.Error("a fuse is blown by who did not sign in")
			}
		})
	}
}

// givesOnce gives the tokens once, as Keycloak and oidc-provider do.
func givesOnce() *authorizer {
	given := false
	return &authorizer{says: func(string) (int, http.Header, string) {
		if given {
			return 400, nil, `{"error":"invalid_grant"}`
		}
		given = true
		return 200, nil, issued
	}}
}

func TestALostAnswerIsGivenAgainForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := givesOnce()
		i := signingIn(t, a, ofClient)
		l := i.begin(home)
		i.polls(Linked, l)
		for n := range 12 {
			if n > 0 { // and at once, though that is too early to ask
				time.Sleep(5 * time.Second)
			}
			if d := i.polls(Linked, l); d.AuthToken != "new" || !d.Result.Replayed {
				t.Errorf("%+v", d)
			}
		}
		time.Sleep(6 * time.Second)
		i.polls(LinkFailed, l)
		if a.polls() != 2 {
			t.Errorf("%d polls", a.polls())
		}
	})
}

// An app gives up on a pair without a privateKey.
func TestNobodySignsInWithoutAKey(t *testing.T) {
	for _, answer := range []string{`{"access_token":"new"}`, `{"access_token":"new","refresh_token":""}`, `{"access_token":"","refresh_token":"key"}`} {
		synctest.Test(t, func(t *testing.T) {
			a := &authorizer{says: func(string) (int, http.Header, string) { return 200, nil, answer }}
			i := signingIn(t, a, ofClient)
			if d := i.polls(Misconfigured, i.begin(home)); d.AuthToken != "" || d.PrivateKey != "" || d.Result.Fix == "" {
				t.Errorf("%s: %+v", answer, d)
			}
		})
	}
}

func TestPollsAtOnceAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authorizer{says: func(string) (int, http.Header, string) { time.Sleep(8 * time.Second); return tokens("") }}
		i := signingIn(t, a, ofClient)
		l := i.begin(home)
		var wait sync.WaitGroup
		for n := range 4 {
			wait.Go(func() {
				time.Sleep(time.Duration(n) * 2 * time.Second)
				want := Linked // one asks, and the one at 6 s has its answer
				if n == 1 || n == 2 {
					want = LinkPending
				}
				i.polls(want, l)
			})
		}
		wait.Wait()
		if a.polls() != 1 {
			t.Errorf("%d polls", a.polls())
		}
	})
}

func TestALinkIsOfItsHomeAndOfOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(authorizer)
		now := "first"
		i := signingIn(t, a, func() string { return now })
		l := i.begin(home)
		if d := i.call(smapi.Poll, home+"_1", l.DeviceID); d.Outcome != LinkFailed || d.Rule != nil {
			t.Errorf("another home: %s", d.Outcome)
		}
		others := signingIn(t, a, func() string { return "another's" }).begin(home)
		for name, id := range map[string]string{
			"another's": others.DeviceID, "no text of ours": "old-service-7", "damaged": l.DeviceID[:len(l.DeviceID)-3] + "abc",
			"not encrypted": "eyJhbGciOiJub25lIn0.e30.", "blank": "",
		} {
			if d := i.call(smapi.Poll, home, id); d.Outcome != Forwarded {
				t.Errorf("%s: %s", name, d.Outcome)
			}
		}
		now = "second"
		i.polls(LinkPending, l) // the secret was changed in between
		if i.begin(home); a.polls() != 1 {
			t.Errorf("%d polls", a.polls())
		}
		if strings.Contains(l.DeviceID, "device-1") || strings.Contains(l.DeviceID, base64.RawURLEncoding.EncodeToString([]byte("device-1"))) {
			t.Error("the device_code can be read")
		}
	})
}

// A stranger makes up whatever is an ID by its form.
func TestWhatIsMadeOfALinkIsNone(t *testing.T) {
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, seals := range map[string]Seals{"a client's secret": secret.NewSeals(ofClient), "a vault": VaultSeals{Keys: keysOf(t, text)}} {
		synctest.Test(t, func(t *testing.T) {
			a := new(authorizer)
			i := signingIn(t, a, ofClient)
			i.Policy.SignIn.Seals = seals
			id := i.begin(home).DeviceID
			parts := strings.Split(id, ".")
			for n := range id {
				if d := i.call(smapi.Poll, home, id[:n]); d.Outcome != Forwarded {
					t.Errorf("%s: cut after %d: %s", name, n, d.Outcome)
				}
			}
			for n, part := range parts {
				if n == 1 { // an encrypted key, of which there is none, so that nobody looks at it
					continue
				}
				for _, other := range []string{"", "A", part + "A", part[:len(part)/2], strings.Repeat("A", 900), strings.ToUpper(part)} {
					made := slices.Clone(parts)
					if made[n] = other; other == part {
						continue
					}
					if d := i.call(smapi.Poll, home, strings.Join(made, ".")); d.Outcome != Forwarded {
						t.Errorf("%s: part %d as %q: %s", name, n, other, d.Outcome)
					}
				}
			}
			if d := i.call(smapi.Poll, "another home", id); d.Outcome != LinkFailed {
				t.Errorf("%s: another home: %s", name, d.Outcome)
			}
			if other, err := seals.Seal(map[string]string{"another": "content"}); err != nil {
				t.Fatal(err)
			} else if d := i.call(smapi.Poll, home, other); d.Outcome != Forwarded {
				t.Errorf("%s: what was sealed for something else: %s", name, d.Outcome)
			}
			if a.polls() != 0 {
				t.Errorf("%s: the server was asked %d times", name, a.polls())
			}
			i.call(smapi.Poll, home, id)
			if a.polls() != 1 {
				t.Errorf("%s: the link itself is not good", name)
			}
		})
	}
}

func keysOf(t *testing.T, text []byte) func() *seal.Keys {
	t.Helper()
	keys, err := seal.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return func() *seal.Keys { return keys }
}

// Of a key that only another instance has read, and of the client's secret from before there was a vault.
func TestAVaultsKeysAreChangedWhileListenersSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, err := seal.GenerateKeys(nil)
		if err != nil {
			t.Fatal(err)
		}
		second, err := seal.GenerateKeys(first)
		if err != nil {
			t.Fatal(err)
		}
		a := new(authorizer)
		sealsBy := func(seals Seals) *instance {
			i := signingIn(t, a, ofClient)
			i.Policy.SignIn.Seals = seals
			return i
		}
		bySecret := secret.NewSeals(ofClient)
		before, old := sealsBy(bySecret), sealsBy(VaultSeals{keysOf(t, first), bySecret})
		changed := sealsBy(VaultSeals{keysOf(t, second), bySecret})
		for name, l := range map[string]*smapi.Link{"the secret": before.begin(home), "the first key": old.begin(home), "the second": changed.begin(home)} {
			asked := a.polls()
			if d := changed.call(smapi.Poll, home, l.DeviceID); d.Outcome != LinkPending || a.polls() != asked+1 {
				t.Errorf("%s: %s, %+v", name, d.Outcome, d.Result)
			}
		}
		asked := a.polls()
		if d := old.call(smapi.Poll, home, changed.begin(home).DeviceID); d.Outcome != LinkPending || d.Rule != nil || a.polls() != asked {
			t.Errorf("a key that only the other has: %s, %+v", d.Outcome, d.Reason)
		}
	})
}

// Entra's device codes have 420 characters, and it has no complete address.
func TestTheLongestCodesFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		code := strings.Repeat("x", 420)
		a := &authorizer{answer: func(int) string {
			return `{"device_code":"` + code + `","user_code":"ABC","verification_uri":"https://auth.example.com/device","expires_in":900}`
		}}
		i := signingIn(t, a, ofClient)
		i.Policy.SignIn.ShowLinkCode = false
		longest := strings.Repeat("Ü", 255)
		d := i.call(smapi.GetDeviceLinkCode, longest, "")
		if d.Outcome != LinkStarted || len(d.Link.DeviceID) > smapi.MaxLinkDeviceID || d.Link.URL != "https://auth.example.com/device" || !d.Link.Show {
			t.Fatalf("%s, %d characters: %+v", d.Outcome, len(d.Link.DeviceID), d.Result)
		}
		t.Logf("a device_code of 420 characters is sealed in %d", len(d.Link.DeviceID))
		if d := i.call(smapi.Poll, longest, d.Link.DeviceID); d.Outcome != LinkPending || len(a.asked[code]) != 1 {
			t.Errorf("%s, %+v", d.Outcome, d.Result)
		}
		for name, answer := range map[string]string{
			"a long user_code":   `{"device_code":"d","user_code":"` + strings.Repeat("x", 33) + `","verification_uri":"https://a.example"}`,
			"a long device_code": `{"device_code":"` + strings.Repeat("x", 800) + `","user_code":"ABC","verification_uri":"https://a.example"}`,
		} {
			a.set(func() { a.answer = func(int) string { return answer } })
			if d := i.call(smapi.GetAppLink, home, ""); d.Outcome != Misconfigured || d.Result.Fix == "" || d.Link != nil {
				t.Errorf("%s: %s, %+v", name, d.Outcome, d.Result)
			}
		}
	})
}

// unsealed are Seals for who counts, and not for what is told.
type unsealed struct{}

func (unsealed) Seal(content any) (string, error) {
	text, err := json.Marshal(content)
	return base64.StdEncoding.EncodeToString(text), err
}

func (unsealed) Open(text string, content any) error {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, content)
}

func TestAThousandHomesAskOnceInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const homes, interval = 1000, 5 * time.Second
		a := new(authorizer)
		a.answer = func(n int) string {
			return fmt.Sprintf(`{"device_code":"device-%d","user_code":"U","verification_uri":"https://a.example","expires_in":600}`, n)
		}
		i := signingIn(t, a, ofClient, func(x *exchange.Exchanger) { x.Places = 64 })
		i.Policy.SignIn.Seals = unsealed{}
		links := make([]*smapi.Link, homes)
		for n := range homes {
			links[n] = i.begin(fmt.Sprint("home ", n))
		}
		end := time.Now().Add(7 * time.Minute)
		var wait sync.WaitGroup
		for n, l := range links {
			random := mathrand.New(mathrand.NewPCG(1, uint64(n)))
			wait.Go(func() {
				for time.Now().Before(end) {
					if d := i.call(smapi.Poll, fmt.Sprint("home ", n), l.DeviceID); d.Outcome != LinkPending {
						t.Errorf("%s, %+v", d.Outcome, d.Result)
					}
					time.Sleep(interval - 500*time.Millisecond + time.Duration(random.Int64N(int64(time.Second)))) // players are not exact
				}
			})
		}
		wait.Wait()
		asked := 0
		for code, times := range a.asked {
			asked += len(times)
			for k := 1; k < len(times); k++ {
				if gap := times[k].Sub(times[k-1]); gap < interval {
					t.Errorf("%s was asked for again after %v", code, gap)
				}
			}
		}
		t.Logf("%d POSTs for %d homes in 84 intervals", asked, homes)
		if len(a.asked) != homes || asked > homes*84 || asked < homes*40 {
			t.Errorf("%d codes were asked for %d times", len(a.asked), asked)
		}
	})
}

// Nobody has to be anybody to ask for a link.
func TestAStrangerWhoAsksWithoutEndDelaysSignInsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authorizer{deviceIn: make(chan struct{})}
		i := signingIn(t, a, ofClient, func(x *exchange.Exchanger) { x.Places = 8 })
		var wait sync.WaitGroup
		for n := range 100 {
			wait.Go(func() { i.call(smapi.GetAppLink, fmt.Sprint("made up ", n), "") })
		}
		synctest.Wait()
		if s := i.State.Links.Status(); s.InFlight != 2 || s.Waiting != 98 {
			t.Errorf("%+v", s)
		}
		ella := exchange.Request{Grant: token.Grant{Type: "password"}, Identity: []string{home, "ella"}, Account: "ella"}
		ella.Deadline = time.Now().Add(10 * time.Second)
		if r := i.Exchange(t.Context(), &ella); r.Class != token.Issued || r.Waited != 0 {
			t.Errorf("a login meanwhile: %+v", r)
		}
		close(a.deviceIn)
		wait.Wait()

		const ofHome, within = 20, 10 * time.Minute
		before := a.codes
		for n := range ofHome + 10 {
			if d := i.call(smapi.GetAppLink, home, ""); (d.Outcome == LinkStarted) != (n < ofHome) {
				t.Errorf("link %d of a home: %s", n, d.Outcome)
			}
		}
		if a.codes != before+ofHome {
			t.Errorf("%d codes for one home", a.codes-before)
		}
		i.begin("another home")
		time.Sleep(within)
		i.begin(home)
	})
}

// What the server does to those who begin is no matter of those who are upgraded, or have begun.
func TestATroubleOfLinksIsNoneOfLoginsAndPolls(t *testing.T) {
	for _, status := range []int{429, 500, 503} {
		synctest.Test(t, func(t *testing.T) {
			a := new(authorizer)
			i := signingIn(t, a, ofClient)
			l := i.begin(home)
			a.set(func() { a.deviceStatus = status })
			for n := range 100 {
				if d := i.call(smapi.GetAppLink, fmt.Sprint("made up ", n), ""); d.Outcome != Unavailable {
					t.Fatalf("%d: a link is %s", status, d.Outcome)
				}
			}
			if a.codes > 50 {
				t.Errorf("%d: the server was asked for %d codes", status, a.codes)
			}
			ella := exchange.Request{Grant: token.Grant{Type: "password"}, Identity: []string{home, "ella"}, Account: "ella"}
			ella.Deadline = time.Now().Add(10 * time.Second)
			if r := i.Exchange(t.Context(), &ella); r.Class != token.Issued || r.Waited != 0 {
				t.Errorf("%d: a login meanwhile: %+v", status, r)
			}
			a.set(func() { a.says = tokens })
			i.polls(Linked, l)
		})
	}
}

func TestWhoHasSignedInIsHashed(t *testing.T) {
	jwt := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"ella"}`)) + ".c2ln"
	for name, test := range map[string]struct{ field, more, want string }{
		"a claim":        {"sub", `,"id_token":"` + jwt + `"`, "hash of ella"},
		"no field":       {"sub", ``, ""},
		"no such claim":  {"name", `,"id_token":"` + jwt + `"`, ""},
		"nobody asks":    {"", `,"id_token":"` + jwt + `"`, ""},
		"a field itself": {"refresh_token", ``, "hash of key"},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &authorizer{says: func(string) (int, http.Header, string) {
				return 200, nil, strings.TrimSuffix(issued, "}") + test.more + "}"
			}}
			i := signingIn(t, a, ofClient)
			i.Policy.SignIn.UserID, i.Policy.SignIn.HashUser = test.field, func(user string) string { return "hash of " + user }
			if d := i.polls(Linked, i.begin(home)); d.UserIDHash != test.want {
				t.Errorf("%s: %q", name, d.UserIDHash)
			}
		})
	}
}

func TestLinksAreOfTheHomesThatAreChosen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(authorizer)
		i := signingIn(t, a, ofClient)
		l := i.begin(home)
		i.Households = 0
		if d := i.call(smapi.GetAppLink, home, ""); d.Outcome != Forwarded {
			t.Errorf("a link: %s", d.Outcome)
		}
		i.polls(LinkPending, l) // what has begun goes on
		i.Policy.SignIn = nil
		for _, method := range []smapi.Method{smapi.GetAppLink, smapi.GetDeviceLinkCode, smapi.Poll} {
			if d := i.call(method, home, l.DeviceID); d.Outcome != Forwarded || i.Hint(method) == "" {
				t.Errorf("%s without sign_in: %s", method, d.Outcome)
			}
		}
	})
}

// FuzzLinkDeviceID holds that nobody makes a link but us.
func FuzzLinkDeviceID(f *testing.F) {
	ours, err := secret.NewSeals(ofClient).Seal(link{Code: "device", End: 1})
	if err != nil {
		f.Fatal(err)
	}
	others, err := secret.NewSeals(func() string { return "another's" }).Seal(link{Code: "device"})
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{ours, others, "", "a.b.c.d.e", "eyJhbGciOiJub25lIn0.e30.", `{"c":"device"}`} {
		f.Add(text)
	}
	ofNobody := rand.Text() // so that nothing is ours
	f.Fuzz(func(t *testing.T, text string) {
		if err := secret.NewSeals(func() string { return ofNobody }).Open(text, new(link)); err == nil {
			t.Errorf("%q was opened", text)
		}
	})
}
