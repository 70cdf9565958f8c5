package token_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// One POST, and what its answer means.
func ExampleEndpoint_Exchange() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.PostFormValue("password") != "12345" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"new-token","token_type":"Bearer","expires_in":3600}`)
	}))
	defer server.Close()
	where, err := token.ParseURL(server.URL, false)
	if err != nil {
		panic(err)
	}
	endpoint := token.New(token.Config{
		URL:       where,
		Client:    token.Client{ID: "sonos-upgrade", Auth: token.Basic, Secret: func() string { return "s3cret" }},
		Fields:    []string{"access_token"},
		Transport: http.DefaultTransport,
		Context:   context.Background(),
	})
	for _, password := range []string{"12345", "another"} {
		deadline := time.Now().Add(15 * time.Second)
		grant := token.Grant{Type: "password", Params: []token.Param{{Name: "username", Value: "ella"}, {Name: "password", Value: password}}}
		answer, _ := endpoint.Exchange(deadline, &grant, func() (time.Time, bool) { return deadline, true })
		verdict := endpoint.Judge(&grant, &answer)
		fmt.Printf("%s %q %s %q\n", verdict.Class, answer.Fields.Get("access_token"), answer.Life, verdict.Cause)
	}
	// Output:
	// issued "new-token" 1h0m0s ""
	// rejected "" 0s "the credentials were refused"
}
