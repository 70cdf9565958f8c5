// Package authserver is a real OAuth 2.0 authorization server for one machine: password grant, device grant and refresh,
// accounts with bcrypt passwords, everything in memory.
package authserver

import (
	"context"
	"log"
	"net/http"

	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/errors"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	"github.com/go-oauth2/oauth2/v4/store"
	"golang.org/x/crypto/bcrypt"
)

// New returns the token endpoint of a server, with its device authorization endpoint and its page beside, with one client,
// which proves itself by HTTP Basic without form encoding, and these accounts: passwords by user name.
func New(clientID, clientSecret string, accounts map[string]string) (http.Handler, error) {
	hashes := make(map[string][]byte, len(accounts))
	for username, password := range accounts {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		hashes[username] = hash
	}
	clients := store.NewClientStore()
	if err := clients.Set(clientID, &models.Client{ID: clientID, Secret: clientSecret}); err != nil {
		return nil, err
	}
	tokens, err := store.NewMemoryTokenStore()
	if err != nil {
		return nil, err
	}
	manager := manage.NewDefaultManager()
	manager.MapClientStorage(clients)
	manager.MapTokenStorage(tokens)

	srv := server.NewServer(server.NewConfig(), manager)
	srv.SetAllowedGrantType(oauth2.PasswordCredentials, oauth2.Refreshing)
	srv.SetClientInfoHandler(server.ClientBasicHandler)
	login := func(username, password string) bool {
		return bcrypt.CompareHashAndPassword(hashes[username], []byte(password)) == nil
	}
	srv.SetPasswordAuthorizationHandler(func(_ context.Context, _, username, password string) (string, error) {
		if !login(username, password) {
			return "", errors.ErrInvalidGrant
		}
		return username, nil
	})
	d := &devices{server: srv, login: login}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == DevicePath && r.Method == http.MethodPost:
			d.authorize(w, r)
			return
		case r.URL.Path == PagePath:
			d.sign(w, r)
			return
		case r.PostFormValue("grant_type") == deviceGrant:
			d.token(w, r)
			return
		}
		if err := srv.HandleTokenRequest(w, r); err != nil {
			log.Printf("authorization server: %v", err)
		}
	}), nil
}
