package command

import (
	"errors"
	"net/http"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func readyCommand() *cobra.Command {
	var address, config, adapter string
	cmd := &cobra.Command{
		Use:                   "ready [--address <interface>] [--config <path> [--adapter <name>]]",
		DisableFlagsInUseLine: true,
		Short:                 "Tells whether a configuration with smapi_upgrade is running",
		Long: `
Asks the admin API of a running Caddy whether traffic may go to it, and prints
nothing if so. It is the health check of a container, where nothing else can
ask. The token endpoint does not matter: while it fails, everything else is
still forwarded.

Exit status:
    0   a configuration with smapi_upgrade is running
    1   it is not, or the admin API did not answer
    2   the command was not understood
`,
		Example: `    $ caddy smapi-upgrade ready --config /etc/caddy/Caddyfile`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return usageError(cmd, errors.New("it takes no arguments"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := caddycmd.DetermineAdminAPIAddress(address, nil, config, adapter)
			if err != nil {
				return usageError(cmd, err)
			}
			answer, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/smapi_upgrade/ready", nil, nil)
			if err != nil {
				cmd.PrintErrf("Error: the admin API at %s: %v\n", address, err)
				return exit(cmd, exitNoHandler)
			}
			return answer.Body.Close()
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&address, "address", "", "The `address` of the admin API")
	flags.StringVarP(&config, "config", "c", "", "The configuration `file` that says the address")
	flags.StringVarP(&adapter, "adapter", "a", "", "The `name` of its adapter")
	return cmd
}
