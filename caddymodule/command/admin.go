package command

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
)

// adminTimeout is for an answer of the admin API.
const adminTimeout = 10 * time.Second

// adminAddress is where the admin API is, by flags.
type adminAddress struct {
	address         string
	config, adapter string
}

func (a *adminAddress) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&a.address, "address", "", "The `address` of the admin API")
	flags.StringVarP(&a.config, "config", "c", "", "The configuration `file` that says the address")
	flags.StringVarP(&a.adapter, "adapter", "a", "", "The `name` of its adapter")
}

// places are where a configuration is looked for that says where the admin API is.
var places = []string{"Caddyfile", "/etc/caddy/Caddyfile"}

// find returns the address of the admin API, which may be a Unix socket with its mode.
func (a *adminAddress) find() (string, error) {
	if a.address != "" {
		return a.address, nil
	}
	config := a.config
	for _, place := range places {
		if _, err := os.Stat(place); config == "" && err == nil {
			config = place
		}
	}
	if config == "" {
		return caddy.DefaultAdminListen, nil
	}
	content, err := configuration.Load(config, a.adapter)
	if err != nil {
		return "", fmt.Errorf("%s, which says where the admin API is: %w; --address can say it too", config, err)
	}
	address, err := caddycmd.DetermineAdminAPIAddress("", content, config, a.adapter)
	return caddy.NewReplacer().ReplaceAll(address, ""), err
}

// noAdmin says that the admin API did not answer as it should.
func noAdmin(cmd *cobra.Command, address string, err error) {
	text := fmt.Sprintf("Error: the admin API at %s: %v", address, err)
	if strings.Contains(text, syscall.EACCES.Error()) { // of which nothing else is left
		text += ". Run it as the user of Caddy"
	}
	if address == caddy.DefaultAdminListen {
		text += ". If Caddy runs, give its configuration by --config: that says where its admin API is"
	}
	tell(cmd, "%s\n", text) // in one line, which can be searched for
}

func askAdmin(ctx context.Context, address, path string) ([]byte, error) {
	type answered struct {
		body []byte
		err  error
	}
	answers := make(chan answered, 1) // AdminAPIRequest takes no context
	go func() {
		response, err := caddycmd.AdminAPIRequest(address, http.MethodGet, path, nil, nil)
		if err != nil {
			answers <- answered{err: err}
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
		answers <- answered{body, err}
	}()
	select {
	case a := <-answers:
		return a.body, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
