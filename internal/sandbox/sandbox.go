// Package sandbox is a command that shows an upgrade on one machine: an old music service, an OAuth server, and Caddy in front
// of both with the repository's Caddyfile.example. It plays a player that is upgraded, a listener who signs in, and an
// upgraded home that browses the old service, and then stays up to be tried by hand. With -services it starts only the two
// services, for a Caddy of your own. Everything listens on free loopback ports, and nothing is left behind.
package sandbox

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/sandbox/authserver"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/sandbox/legacy"
)

const (
	clientID     = "sonos-upgrade"
	clientSecret = "sandbox-secret"
)

// accounts are known to the old service and, with the same passwords, to the OAuth server.
var accounts = map[string]string{
	"testuser": "12345",
	"ella":     "A-Tisket & A-Tasket <1938>",
	"django":   " nuages ",
}

// What the tour turns on of the Caddyfile, one after the other: listeners who sign in have no old password for old_service.
var (
	signingIn  = []string{"sign_in"}
	keepingOld = []string{"refresh_auth_tokens", "vault", "old_service"}
)

// Main is the command. It takes flags, ends the process with status 1 where a step is not answered as it should be, and is for
// a process of its own: it sets the environment, and runs Caddy in it.
func Main() {
	once := flag.Bool("once", false, "end after the tour, with status 0 if every step was answered as it should be")
	services := flag.Bool("services", false, "start only the old service and the OAuth server, and print the environment for a Caddy of your own")
	config := flag.String("config", "Caddyfile.example", "the `Caddyfile` to run")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "sandbox: it takes no arguments; see -help")
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *config, *once, *services); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err) // Caddy has taken over package log
		os.Exit(1)
	}
}

func run(ctx context.Context, config string, once, services bool) error {
	dir, err := os.MkdirTemp("", "smapi-sandbox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	oauth, err := authserver.New(clientID, clientSecret, accounts)
	if err != nil {
		return err
	}
	if services && !once {
		oauth = told(oauth)
	}
	oauthURL, err := serve(oauth)
	if err != nil {
		return err
	}
	legacyURL, err := serve(legacy.New(accounts))
	if err != nil {
		return err
	}
	secretFile := filepath.Join(dir, "client_secret")
	if err := os.WriteFile(secretFile, []byte(clientSecret), 0o600); err != nil {
		return err
	}
	keys, err := seal.GenerateKeys(nil)
	if err != nil {
		return err
	}
	keyFile := filepath.Join(dir, "vault.json")
	if err := os.WriteFile(keyFile, keys, 0o600); err != nil {
		return err
	}
	env := map[string]string{
		"SMAPI_TOKEN_ENDPOINT":     oauthURL + "/token",
		"SMAPI_DEVICE_ENDPOINT":    oauthURL + authserver.DevicePath,
		"SMAPI_CLIENT_ID":          clientID,
		"SMAPI_CLIENT_SECRET_FILE": secretFile,
		"SMAPI_CLIENT_AUTH":        "basic_raw", // what this OAuth server wants
		"SMAPI_LEGACY":             legacyURL,
		"SMAPI_VAULT_KEYS":         keyFile,
	}
	if services {
		if err := explain(env, config, dir); err != nil || once {
			return err
		}
		<-ctx.Done()
		return nil
	}
	front, err := newCaddy(config, dir, env)
	if err != nil {
		return err
	}
	if err := front.run(signingIn...); err != nil {
		return err
	}
	defer func() { _ = caddy.Stop() }()
	caddyURL, admin := front.url, front.admin

	fmt.Printf("old service   %s\nOAuth server  %s\nCaddy         %s   (%s, with its sign_in turned on)\n", legacyURL, oauthURL, caddyURL, config)
	t := new(tourist)
	t.upgrade(legacyURL, caddyURL)
	if err := front.run(keepingOld...); err != nil {
		return err
	}
	http.DefaultClient.CloseIdleConnections() // which a reload ends
	fmt.Printf("\nCaddy is reloaded, with its vault and old_service turned on.\n")
	t.browse(legacyURL, caddyURL)
	if t.failed > 0 {
		return fmt.Errorf("%d of the steps were not answered as they should be", t.failed)
	}
	if once {
		return nil
	}
	if err := front.run(signingIn...); err != nil {
		return err
	}
	http.DefaultClient.CloseIdleConnections()
	fmt.Printf("\nAll of it is still up. Try it, and end it with Ctrl-C:\n\n"+
		"  curl -i -H 'Content-Type: text/xml' --data-binary @testdata/requests/upgrade.xml %s\n"+
		"  go run ./cmd/caddy smapi-upgrade status --address %s\n"+
		"  cat %s\n\n", caddyURL, admin, logFile(dir))
	if page := newLink(caddyURL); page != "" {
		fmt.Printf("Sign in yourself, as testuser with 12345:\n\n  %s\n\n", page)
	}
	fmt.Printf("Or with a Caddyfile of your own: %s/token, client_id %s, client_secret %s, client_auth basic_raw\n\n",
		oauthURL, clientID, clientSecret)
	<-ctx.Done()
	fmt.Println("ended")
	return nil
}

// explain prints how to run a Caddy in front of the services: with a copy of the Caddyfile that listens on loopback only.
func explain(env map[string]string, config, dir string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "Caddyfile")
	local, ok := strings.CutPrefix(string(text[strings.Index(string(text), "\n{\n")+1:]), "{\n")
	if !ok {
		return fmt.Errorf("%s has no global options", config)
	}
	if err := os.WriteFile(file, []byte("{\n\tdefault_bind 127.0.0.1\n"+local), 0o600); err != nil {
		return err
	}
	site := loopback.FreeAddress()
	env["SMAPI_SITE"] = "http://" + site
	env["SMAPI_ADMIN_SOCKET"] = filepath.Join(dir, "admin.sock")
	fmt.Print("The old service and the OAuth server are up, until Ctrl-C. In a second terminal, run Caddy:\n\n")
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Printf("  export %s=%s\n", name, env[name])
	}
	fmt.Printf("  ./caddy run --config %s\n\n(%s, on loopback only.) In a third terminal, with the same exports: the calls of a player, testuser with\n"+
		"12345, and what became of them. Edit that Caddyfile for each step, and reload it:\n\n", file, config)
	for _, request := range [...]string{"get-session-id", "upgrade"} {
		fmt.Printf("  curl -i -H 'Content-Type: text/xml' --data-binary @testdata/requests/%s.xml http://%s\n", request, site)
	}
	fmt.Printf("  ./caddy smapi-upgrade status --config %s\n  ./caddy reload --config %[1]s\n", file)
	return nil
}

// told prints each request to the OAuth server, as its log would: so many logins an account has had.
func told(oauth http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &answered{ResponseWriter: w, status: http.StatusOK}
		oauth.ServeHTTP(answer, r)
		fmt.Printf("  OAuth server: %s %s: %d\n", r.FormValue("grant_type"), r.FormValue("username"), answer.status)
	})
}

type answered struct {
	http.ResponseWriter
	status int
}

func (a *answered) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// serve starts a server on a free port that lasts as long as the process.
func serve(h http.Handler) (url string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = http.Serve(listener, h) }()
	return "http://" + listener.Addr().String(), nil
}
