//go:build nobadger

package integration

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// runZitadel runs a server of zitadel/oidc's parts that knows the tokens of an old DeviceLink service, and takes them
// in exchange for its own (RFC 8693). Its client has a secret.
func runZitadel(t testing.TB) *server {
	t.Helper()
	return newZitadel(t, zitadelClient{auth: oidc.AuthMethodBasic})
}

// runZitadelForKey runs one whose client proves itself by a key. Assertions are for its issuer, not for its token
// endpoint.
func runZitadelForKey(t testing.TB, algorithm string, public crypto.PublicKey) *server {
	t.Helper()
	return newZitadel(t, zitadelClient{
		auth: oidc.AuthMethodPrivateKeyJWT,
		key:  &jose.JSONWebKey{Key: public, KeyID: keyID, Algorithm: algorithm, Use: "sig"},
	})
}

func newZitadel(t testing.TB, client zitadelClient) *server {
	t.Helper()
	s, _ := newZitadelWithStorage(t, client)
	return s
}

func newZitadelWithStorage(t testing.TB, client zitadelClient) (*server, *zitadelStorage) {
	t.Helper()
	store := &zitadelStorage{
		client: client, signing: newKey(t, "ES256"),
		old:    map[string]string{"old-token": "testuser"},
		access: map[string]string{}, refresh: map[string]*grant{}, devices: map[string]*op.DeviceAuthorizationState{},
		userCodes: map[string]string{},
	}
	build := func(address string) http.Handler {
		provider, err := op.NewProvider(
			&op.Config{
				GrantTypeRefreshToken: true, AuthMethodPrivateKeyJWT: true,
				DeviceAuthorization: op.DeviceAuthorizationConfig{
					Lifetime: client.codeLife, PollInterval: time.Second, UserFormPath: "/device", UserCode: op.UserCodeBase20,
				},
			},
			store, op.StaticIssuer(address), op.WithAllowInsecure())
		if err != nil {
			t.Fatal(err)
		}
		return op.RegisterLegacyServer(eddsaToo{op.NewLegacyServer(provider, *op.DefaultEndpoints), store}, http.NotFound)
	}
	var running atomic.Pointer[http.Handler]
	s := serve(t, "/oauth/token", func(address string) http.Handler {
		first := build(address)
		running.Store(&first)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*running.Load()).ServeHTTP(w, r) })
	})
	listen := s.restart
	s.restart = func() { // another one, that has the storage alone
		next := build(s.url)
		running.Store(&next)
		listen()
	}
	s.works = func(t testing.TB, accessToken string) bool {
		t.Helper()
		return userinfo(t, s.url, accessToken) == "testuser"
	}
	return s, store
}

// userinfo is the account that the server tells for an access token, if any.
func userinfo(t testing.TB, issuer, accessToken string) (account string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, issuer+"/userinfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+accessToken)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var info struct{ Sub string }
	if err := json.NewDecoder(response.Body).Decode(&info); err != nil {
		t.Fatal(err)
	}
	return info.Sub
}

// eddsaToo takes assertions by EdDSA, which zitadel verifies only where it is asked to by name, as here.
type eddsaToo struct {
	*op.LegacyServer
	store *zitadelStorage
}

func (s eddsaToo) VerifyClient(ctx context.Context, r *op.Request[op.ClientCredentials]) (op.Client, error) {
	if key := s.store.client.key; key == nil || key.Algorithm != string(jose.EdDSA) {
		return s.LegacyServer.VerifyClient(ctx, r)
	}
	claims := new(oidc.JWTTokenRequest)
	payload, err := oidc.ParseToken(r.Data.ClientAssertion, claims)
	if err == nil {
		err = errors.Join(
			oidc.CheckAudience(claims, op.IssuerFromContext(ctx)),
			oidc.CheckExpiration(claims, time.Second),
			oidc.CheckIssuedAt(claims, time.Hour, time.Second),
			op.SubjectIsIssuer(claims),
			oidc.CheckSignature(ctx, r.Data.ClientAssertion, payload, claims, []string{string(jose.EdDSA)}, s.store),
		)
	}
	if err != nil || claims.Issuer != clientID {
		return nil, oidc.ErrInvalidClient().WithParent(err)
	}
	return s.store.client, nil
}

// zitadelStorage is what the provider of tokens knows. The rest of the interface is for what is not played here.
type zitadelStorage struct {
	op.Storage
	client  zitadelClient
	signing crypto.Signer

	mu      sync.Mutex
	old     map[string]string // accounts by their tokens of the old service
	access  map[string]string // accounts by the ids of access tokens
	refresh map[string]*grant // by refresh token

	devices   map[string]*op.DeviceAuthorizationState // by device code
	userCodes map[string]string                       // device codes by user code
}

var (
	_          op.TokenExchangeStorage               = (*zitadelStorage)(nil)
	_          op.TokenExchangeTokensVerifierStorage = (*zitadelStorage)(nil)
	errUnknown                                       = errors.New("unknown")
)

func (s *zitadelStorage) VerifyExchangeSubjectToken(_ context.Context, token string, kind oidc.TokenType) (string, string, map[string]any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	account, known := s.old[token]
	if !known || kind != oidc.AccessTokenType {
		return "", "", nil, errUnknown
	}
	return token, account, nil, nil
}

func (*zitadelStorage) VerifyExchangeActorToken(context.Context, string, oidc.TokenType) (string, string, map[string]any, error) {
	return "", "", nil, errUnknown
}

func (*zitadelStorage) ValidateTokenExchangeRequest(context.Context, op.TokenExchangeRequest) error {
	return nil
}

func (*zitadelStorage) CreateTokenExchangeRequest(context.Context, op.TokenExchangeRequest) error {
	return nil
}

func (*zitadelStorage) GetPrivateClaimsFromTokenExchangeRequest(context.Context, op.TokenExchangeRequest) (map[string]any, error) {
	return nil, nil
}

func (*zitadelStorage) SetUserinfoFromTokenExchangeRequest(context.Context, *oidc.UserInfo, op.TokenExchangeRequest) error {
	return nil
}

func (s *zitadelStorage) CreateAccessAndRefreshTokens(_ context.Context, r op.TokenRequest, last string) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, next := rand.Text(), rand.Text()
	s.access[id] = r.GetSubject()
	delete(s.refresh, last)
	s.refresh[next] = &grant{account: r.GetSubject(), scopes: r.GetScopes()}
	return id, next, time.Now().Add(time.Hour), nil
}

func (s *zitadelStorage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.refresh[token]
	if g == nil {
		return nil, errUnknown
	}
	return g, nil
}

func (s *zitadelStorage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, _, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	account, known := s.access[id]
	if !known {
		return errUnknown
	}
	info.Subject = account
	return nil
}

func (*zitadelStorage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

func (s *zitadelStorage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != clientID {
		return nil, errUnknown
	}
	return s.client, nil
}

func (*zitadelStorage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != clientID || secret != clientSecret {
		return errUnknown
	}
	return nil
}

func (s *zitadelStorage) GetKeyByIDAndClientID(_ context.Context, id, client string) (*jose.JSONWebKey, error) {
	if id != keyID || client != clientID {
		return nil, errUnknown
	}
	return s.client.key, nil
}

// VerifySignature makes the storage a set of keys.
func (s *zitadelStorage) VerifySignature(ctx context.Context, signed *jose.JSONWebSignature) ([]byte, error) {
	id, _ := oidc.GetKeyIDAndAlg(signed)
	key, err := s.GetKeyByIDAndClientID(ctx, id, clientID)
	if err != nil {
		return nil, err
	}
	return signed.Verify(key)
}

func (s *zitadelStorage) SigningKey(context.Context) (op.SigningKey, error) {
	return signingKey{s.signing}, nil
}

func (*zitadelStorage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

type signingKey struct{ key crypto.Signer }

func (signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k signingKey) Key() any                                  { return k.key }
func (signingKey) ID() string                                  { return "server" }

// grant is what a refresh token stands for.
type grant struct {
	account string
	scopes  []string
}

func (*grant) GetAMR() []string                   { return nil }
func (*grant) GetAudience() []string              { return nil }
func (*grant) GetAuthTime() time.Time             { return time.Time{} }
func (*grant) GetClientID() string                { return clientID }
func (g *grant) GetScopes() []string              { return g.scopes }
func (g *grant) GetSubject() string               { return g.account }
func (g *grant) SetCurrentScopes(scopes []string) { g.scopes = scopes }

// zitadelClient is the client. The rest of the interface is for browsers.
type zitadelClient struct {
	op.Client
	auth     oidc.AuthMethod
	key      *jose.JSONWebKey
	codeLife time.Duration // of device codes
}

func (zitadelClient) GetID() string                        { return clientID }
func (c zitadelClient) AuthMethod() oidc.AuthMethod        { return c.auth }
func (zitadelClient) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (zitadelClient) IDTokenLifetime() time.Duration       { return time.Hour }
func (zitadelClient) ClockSkew() time.Duration             { return 0 }
func (zitadelClient) IDTokenUserinfoClaimsAssertion() bool { return false }

func (zitadelClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeTokenExchange, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

//lint:ignore ST1003 it is called so in op.Client
func (zitadelClient) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func byExchange(token string) url.Values {
	return url.Values{
		"grant_type":           {string(oidc.GrantTypeTokenExchange)},
		"subject_token":        {token},
		"subject_token_type":   {string(oidc.AccessTokenType)},
		"requested_token_type": {string(oidc.RefreshTokenType)},
	}
}

// Without this the tests of exchanging would prove nothing.
func TestZitadelExchangesTheTokensThatItKnows(t *testing.T) {
	oauth := runZitadel(t)
	first := oauth.ask(t, byExchange("old-token"))
	if first.status != http.StatusOK || first.Refresh == "" || !oauth.works(t, first.Access) {
		t.Errorf("exchanged for %+v", first)
	}
	if second := oauth.ask(t, byRefresh(first.Refresh)); second.status != http.StatusOK || second.Refresh == "" || !oauth.works(t, second.Access) {
		t.Errorf("refreshed to %+v", second)
	}
	if again := oauth.ask(t, byRefresh(first.Refresh)); again.status != http.StatusBadRequest || again.Error != "invalid_grant" {
		t.Errorf("the old refresh token again gets %+v", again)
	}
	if got := oauth.ask(t, byExchange("another-token")); got.status != http.StatusBadRequest || got.Access != "" {
		t.Errorf("a token that it does not know gets %+v", got)
	}
	if oauth.works(t, "old-token") {
		t.Error("the old token is one of its own")
	}
}
