//go:build nobadger

package integration

import (
	"context"
	"crypto"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"
	"golang.org/x/crypto/bcrypt"
)

// fositeServer is made of ory/fosite's parts and has accounts with passwords. It rotates refresh tokens, takes one
// that comes again for stolen, and takes an assertion of its client once.
type fositeServer struct {
	provider fosite.OAuth2Provider
	request  sync.Mutex
}

// runFosite runs a fositeServer whose client has a secret.
func runFosite(t testing.TB) *server {
	t.Helper()
	return runFositeFor(t, time.Hour)
}

// runFositeFor is runFosite with access tokens that are good for so long.
func runFositeFor(t testing.TB, life time.Duration) *server {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(clientSecret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return newFosite(t, &fosite.DefaultOpenIDConnectClient{
		DefaultClient:           &fosite.DefaultClient{Secret: hash},
		TokenEndpointAuthMethod: "client_secret_basic",
	}, life)
}

// runFositeForKey runs one whose client proves itself by a key.
func runFositeForKey(t testing.TB, algorithm string, public crypto.PublicKey) *server {
	t.Helper()
	return newFosite(t, &fosite.DefaultOpenIDConnectClient{
		DefaultClient:                     &fosite.DefaultClient{},
		TokenEndpointAuthMethod:           "private_key_jwt",
		TokenEndpointAuthSigningAlgorithm: algorithm,
		JSONWebKeys:                       &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: keyID, Use: "sig"}}},
	}, time.Hour)
}

func newFosite(t testing.TB, client *fosite.DefaultOpenIDConnectClient, life time.Duration) *server {
	t.Helper()
	client.ID = clientID
	client.GrantTypes = []string{"password", "refresh_token"}
	client.Scopes = []string{"offline_access"}
	store := storage.NewMemoryStore()
	store.Clients[clientID] = client
	store.Users["testuser"] = storage.MemoryUserRelation{Username: "testuser", Password: "12345"}
	f := new(fositeServer)
	s := serve(t, "/token", func(address string) http.Handler {
		config := &fosite.Config{TokenURL: address + "/token", GlobalSecret: []byte("a secret that has thirty-two bytes"), AccessTokenLifespan: life}
		f.provider = compose.Compose(config, store, compose.NewOAuth2HMACStrategy(config),
			//lint:ignore SA1019 it is how old accounts are upgraded
			compose.OAuth2ResourceOwnerPasswordCredentialsFactory,
			compose.OAuth2RefreshTokenGrantFactory,
			compose.OAuth2TokenIntrospectionFactory,
		)
		return http.HandlerFunc(f.token)
	})
	s.works = f.works
	return s
}

func (f *fositeServer) token(w http.ResponseWriter, r *http.Request) {
	f.request.Lock() // in the place of transactions, which the storage has none of
	defer f.request.Unlock()
	request, err := f.provider.NewAccessRequest(r.Context(), r, new(fosite.DefaultSession))
	if err != nil {
		f.provider.WriteAccessError(r.Context(), w, request, err)
		return
	}
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	response, err := f.provider.NewAccessResponse(r.Context(), request)
	if err != nil {
		f.provider.WriteAccessError(r.Context(), w, request, err)
		return
	}
	f.provider.WriteAccessResponse(r.Context(), w, request, response)
}

func (f *fositeServer) works(_ testing.TB, accessToken string) bool {
	use, _, err := f.provider.IntrospectToken(context.Background(), accessToken, fosite.AccessToken, new(fosite.DefaultSession))
	return err == nil && use == fosite.AccessToken
}

var (
	byPassword = url.Values{
		"grant_type": {"password"}, "username": {"testuser"}, "password": {"12345"}, "scope": {"offline_access"},
	}
	byRefresh = func(token string) url.Values {
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	}
)

func TestFositeTakesAnAssertionOnce(t *testing.T) {
	key := newKey(t, "ES256")
	oauth := runFositeForKey(t, "ES256", key.Public())
	form := withAssertion(byPassword, assertion(t, "ES256", key, oauth.tokenEndpoint))
	if got := oauth.ask(t, form); got.status != http.StatusOK || got.Access == "" {
		t.Errorf("the assertion gets %+v", got)
	}
	if got := oauth.ask(t, form); got.status == http.StatusOK || got.Error != "jti_known" {
		t.Errorf("the same assertion again gets %+v", got)
	}
}
