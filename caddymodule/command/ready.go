package command

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

func readyCommand() *cobra.Command {
	var at adminAddress
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
			address, err := at.find()
			if err != nil {
				return usageError(cmd, err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), adminTimeout)
			defer cancel()
			if _, err := askAdmin(ctx, address, "/smapi_upgrade/ready"); err != nil {
				noAdmin(cmd, address, err)
				return exit(cmd, exitNoHandler)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	at.addFlags(cmd)
	return cmd
}
