//go:build nobadger

package integration

import (
	"context"
	"crypto"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"testing"
)

const (
	tokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

	keepSignedIn = "scope offline_access\n\t\trefresh_auth_tokens"

	exchangeLoginToken = "exchange login_token " + tokenExchange + ` {
			param subject_token {smapi.token}
			param subject_token_type urn:ietf:params:oauth:token-type:access_token
			param requested_token_type urn:ietf:params:oauth:token-type:refresh_token
		}`
)

var (
	testuser = login("testuser", "12345")
	oldToken = loginToken(pair{"old-token", "old-key"})
)

func TestADeviceLinkAccountIsUpgradedByTokenExchange(t *testing.T) {
	oauth := runZitadel(t)
	s := caddyRun(t, oauth.tokenEndpoint, bySecret, keepSignedIn, exchangeLoginToken)
	first := signedIn(t, s.upgrade(t, oldToken))
	if !oauth.works(t, first.authToken) {
		t.Error("the server does not know the token")
	}
	second := signedIn(t, s.refresh(t, first))
	if second.privateKey == first.privateKey || !oauth.works(t, second.authToken) {
		t.Errorf("refreshed to %+v", second)
	}
	oauth.checkPosts(t, tokenExchange, 1)
	oauth.checkPosts(t, "refresh_token", 1)
}

func TestATokenThatTheServerDoesNotKnowSignsInAgain(t *testing.T) {
	oauth := runZitadel(t)
	s := caddyRun(t, oauth.tokenEndpoint, bySecret, exchangeLoginToken)
	check(t, s.upgrade(t, loginToken(pair{"another-token", "old-key"})), blank)
	oauth.checkPosts(t, tokenExchange, 1)
}

func TestOnlyTheExchangesThatAreConfiguredAreMade(t *testing.T) {
	oauth := runZitadel(t)
	s := caddyRun(t, oauth.tokenEndpoint, bySecret, exchangeLoginToken)
	check(t, s.upgrade(t, testuser), blank)
	oauth.checkPosts(t, "password", 0)
}

func TestTheIssuerLeadsToItsTokenEndpoint(t *testing.T) {
	oauth := runZitadel(t)
	s := caddyRun(t, "", "issuer "+oauth.url, bySecret, keepSignedIn, exchangeLoginToken)
	first := signedIn(t, s.upgrade(t, oldToken))
	if second := signedIn(t, s.refresh(t, first)); !oauth.works(t, second.authToken) {
		t.Errorf("refreshed to %+v", second)
	}
}

func TestPlayersThatRefreshAtOnceGetTheSamePair(t *testing.T) {
	oauth := runFosite(t)
	s := caddyRun(t, oauth.tokenEndpoint, bySecret, keepSignedIn, "replay off") // which is for upgrades
	first := signedIn(t, s.upgrade(t, testuser))

	const players = 8
	var sent, answered sync.WaitGroup
	sent.Add(players)
	oauth.before(sent.Wait)
	answers := make([]answer, players)
	for i := range answers {
		r := s.refreshRequest(t, first)
		answered.Go(func() {
			answers[i] = do(t, "refreshAuthToken", r.WithContext(httptrace.WithClientTrace(r.Context(),
				&httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { sent.Done() }})))
		})
	}
	answered.Wait()

	second := signedIn(t, answers[0])
	for _, got := range answers {
		check(t, got, answers[0])
	}
	oauth.checkPosts(t, "refresh_token", 1)
	third := signedIn(t, s.refresh(t, second))
	if second == first || third == second || !oauth.works(t, third.authToken) {
		t.Errorf("refreshed to %+v and %+v", second, third)
	}
}

// The server has given the new tokens, the player has not got them, and the old ones are used.
func TestAPlayerThatLostItsAnswerStaysSignedIn(t *testing.T) {
	oauth := runFosite(t)
	s := caddyRun(t, oauth.tokenEndpoint, bySecret, keepSignedIn, "replay off") // which is for upgrades
	first := signedIn(t, s.upgrade(t, testuser))

	arrived, proceed := make(chan struct{}), make(chan struct{})
	oauth.before(sync.OnceFunc(func() {
		close(arrived)
		<-proceed
	}))
	ctx, hangUp := context.WithCancel(t.Context())
	go func() {
		<-arrived
		hangUp()
	}()
	if response, err := http.DefaultTransport.RoundTrip(s.refreshRequest(t, first).WithContext(ctx)); err == nil {
		response.Body.Close()
		t.Fatal("the answer is not lost")
	}
	close(proceed)

	second := signedIn(t, s.refresh(t, first))
	check(t, s.refresh(t, first), answer{status: http.StatusOK, pair: second})
	oauth.checkPosts(t, "refresh_token", 1)
	if third := signedIn(t, s.refresh(t, second)); third == second || !oauth.works(t, third.authToken) {
		t.Errorf("refreshed to %+v", third)
	}
	oauth.checkPosts(t, "refresh_token", 2)
}

func TestADeadRefreshTokenSignsInAgain(t *testing.T) {
	oauth := runFosite(t)
	s := caddyRun(t, oauth.tokenEndpoint, bySecret, keepSignedIn)
	used := signedIn(t, s.upgrade(t, testuser))
	oauth.ask(t, byRefresh(used.privateKey))
	check(t, s.refresh(t, used), expired)
	check(t, s.refresh(t, pair{"a token", "of another server"}), expired)
}

func TestAnOutageSignsNobodyOut(t *testing.T) {
	oauth := runFosite(t)
	s := caddyRun(t, oauth.tokenEndpoint, bySecret, keepSignedIn)
	first := signedIn(t, s.upgrade(t, testuser))
	oauth.stop()
	check(t, s.refresh(t, first), unavailable)
}

// keyServers are the servers that take assertions, with what their players and Caddy need.
var keyServers = []struct {
	name        string
	run         func(t testing.TB, algorithm string, key crypto.PublicKey) *server
	algorithms  []string
	audience    func(*server) string
	grant       url.Values
	credentials string
	exchange    string
}{
	{
		"fosite", runFositeForKey, []string{"ES256", "RS256"},
		func(s *server) string { return s.tokenEndpoint },
		byPassword, testuser, "exchange login password",
	},
	{
		"zitadel", runZitadelForKey, []string{"ES256", "RS256", "EdDSA"},
		func(s *server) string { return s.url },
		byExchange("old-token"), oldToken, exchangeLoginToken,
	},
}

var keyFiles = map[string][]string{
	"ES256": {"PRIVATE KEY", "EC PRIVATE KEY", "JWK"},
	"RS256": {"PRIVATE KEY", "RSA PRIVATE KEY", "JWK"},
	"EdDSA": {"PRIVATE KEY", "JWK"},
}

// Without this the tests of keys would prove nothing.
func TestServersTakeNoOtherKeyThanTheirClients(t *testing.T) {
	for _, at := range keyServers {
		for _, algorithm := range at.algorithms {
			key := newKey(t, algorithm)
			oauth := at.run(t, algorithm, key.Public())
			if got := oauth.ask(t, withAssertion(at.grant, assertion(t, algorithm, key, at.audience(oauth)))); !oauth.works(t, got.Access) {
				t.Errorf("%s, %s: the client's key gets %+v", at.name, algorithm, got)
			}
			for what, wrong := range map[string]string{
				"another key":      assertion(t, algorithm, newKey(t, algorithm), at.audience(oauth)),
				"another audience": assertion(t, algorithm, key, "https://auth.example.com"),
			} {
				if got := oauth.ask(t, withAssertion(at.grant, wrong)); got.status == http.StatusOK || got.Access != "" {
					t.Errorf("%s, %s: %s gets %+v", at.name, algorithm, what, got)
				}
			}
		}
	}
}

// Each assertion is another one: fosite takes none twice.
func TestAClientProvesItselfByItsKey(t *testing.T) {
	for _, at := range keyServers {
		for _, algorithm := range at.algorithms {
			key := newKey(t, algorithm)
			oauth := at.run(t, algorithm, key.Public())
			for _, kind := range keyFiles[algorithm] {
				t.Run(at.name+", "+algorithm+", "+kind, func(t *testing.T) {
					options := []string{keepSignedIn, at.exchange, "replay off", byKey(keyFile(t, key, kind))}
					if audience := at.audience(oauth); audience != oauth.tokenEndpoint { // which is the default
						options = append(options, "assertion_audience "+audience)
					}
					if kind != "JWK" { // which has it
						options = append(options, "key_id "+keyID)
					}
					s := caddyRun(t, oauth.tokenEndpoint, options...)
					first := signedIn(t, s.upgrade(t, at.credentials))
					if again := signedIn(t, s.upgrade(t, at.credentials)); again == first {
						t.Error("the second exchange was none")
					}
					if second := signedIn(t, s.refresh(t, first)); second == first || !oauth.works(t, second.authToken) {
						t.Errorf("refreshed to %+v", second)
					}
				})
			}
		}
	}
}

func TestAWrongKeyIsNoRejection(t *testing.T) {
	oauth := runFositeForKey(t, "ES256", newKey(t, "ES256").Public())
	s := caddyRun(t, oauth.tokenEndpoint, keepSignedIn, byKey(keyFile(t, newKey(t, "ES256"), "JWK")))
	check(t, s.upgrade(t, testuser), unavailable)
	check(t, s.refresh(t, pair{"a token", "a key"}), unavailable)
	oauth.checkPosts(t, "password", 1)
	oauth.checkPosts(t, "refresh_token", 1)
}

// fosite says invalid_request of a key id that it does not know, which for a refresh is what others say of a
// dead token.
func TestAWrongKeyIDIsNoRejection(t *testing.T) {
	key := newKey(t, "ES256")
	oauth := runFositeForKey(t, "ES256", key.Public())
	s := caddyRun(t, oauth.tokenEndpoint, keepSignedIn, byKey(keyFile(t, key, "PRIVATE KEY"), "key_id another"))
	check(t, s.upgrade(t, testuser), unavailable)
	check(t, s.refresh(t, pair{"a token", "a key"}), unavailable)
}

// zitadel says invalid_grant of a wrong key of the client, and invalid_request of an old token.
func TestOnErrorTellsAWrongKeyFromARejection(t *testing.T) {
	oauth := runZitadelForKey(t, "ES256", newKey(t, "ES256").Public())
	exchange := strings.TrimSuffix(exchangeLoginToken, "}") + "on_error invalid_grant misconfigured\n\t\t}"
	s := caddyRun(t, oauth.tokenEndpoint, exchange, byKey(keyFile(t, newKey(t, "ES256"), "JWK")), "assertion_audience "+oauth.url)
	check(t, s.upgrade(t, oldToken), unavailable)
	oauth.checkPosts(t, tokenExchange, 1)
}
