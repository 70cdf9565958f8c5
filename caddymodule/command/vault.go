package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/keyfile"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/vaults"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

func vaultCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "vault <command>",
		DisableFlagsInUseLine: true,
		Short:                 "Makes keys for a vault, counts what it has, forgets and seals anew",
		Long: `
Commands for the option 'vault', which keeps the refresh tokens of upgraded
homes in Caddy's storage, sealed.
`,
	}
	cmd.AddCommand(keygenCommand(), vaultStatusCommand(), forgetCommand(), rotateCommand())
	completeGroup(cmd)
	return cmd
}

// Exit codes of the vault's commands beside exitUsage.
const (
	exitUnreadable = 1
	exitStorage    = 3
)

func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "keygen <file>",
		DisableFlagsInUseLine: true,
		Short:                 "Makes a key file, or adds a key to one",
		Long: `
Makes a key file for the option 'vault': a JWK set (RFC 7517) with a key that
seals records and one that makes their names and the players' handles. Only its
owner can read it: give it to the user that Caddy runs as.

If the file is there, a new key that seals is put in front of the others. Caddy
reads the file again by itself. Give the new file to all instances within a
short time, and then have 'vault rotate' seal the records anew. The key with use
sig has to stay for ever: without it no player's handle is known any more.

Keep a copy of the file where the records are not. Without it they are lost, and
every home has to sign in again.

Exit status:
    0   the file is written
    2   the command was not understood, or the file cannot be read or written
`,
		Example: `    $ caddy smapi-upgrade vault keygen /etc/caddy/vault.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, errors.New("it takes one argument, the key file"))
			}
			says, err := keyfile.Make(args[0])
			if err != nil {
				return usageError(cmd, err)
			}
			fmt.Fprintln(page.New(cmd.OutOrStdout()), says)
			return nil
		},
	}
}

// vaultRunner is a command that works on the vaults of a configuration.
type vaultRunner struct {
	config, adapter string
	json            bool
}

func (v *vaultRunner) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&v.config, "config", "c", "", "The configuration `file` (Caddyfile in this directory)")
	flags.StringVarP(&v.adapter, "adapter", "a", "", "The `name` of its adapter")
	flags.BoolVar(&v.json, "json", false, "Print it as JSON")
}

// run does something with each vault of the configuration, and prints what came of all.
func (v *vaultRunner) run(cmd *cobra.Command, args []string, do func(context.Context, vaults.Vault) (line page.VaultLine, err error)) error {
	if len(args) != 0 {
		return usageError(cmd, errors.New("it takes no arguments"))
	}
	config, err := configuration.Load(v.config, v.adapter)
	if err != nil {
		return usageError(cmd, err)
	}
	all, err := vaults.Of(config)
	if err != nil {
		return usageError(cmd, err)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var lines []page.VaultLine
	code := 0
	for _, one := range all {
		line, err := do(ctx, one)
		if err != nil {
			tell(cmd, "Error: the vault of %s: %v\n", one.KeyFile, err)
			return exit(cmd, exitStorage)
		}
		if line.Bad() > 0 {
			code = exitUnreadable
		}
		lines = append(lines, line)
	}
	err = page.New(cmd.OutOrStdout()).Show(lines, v.json, func(p *page.Page) {
		for i, line := range lines {
			if i > 0 {
				fmt.Fprintln(p)
			}
			line.Print(p)
		}
	})
	if err != nil {
		return err
	}
	return exit(cmd, code)
}

const vaultExits = `
Run it as the user and with the environment of the server, or the storage may be
another one. The Caddy that runs need not be stopped.

Exit status:
    0   all is well
    1   there are records that are damaged, or sealed by a key that is not in
        the key file
    2   the command was not understood, or the configuration does not load
    3   the storage failed
`

func vaultStatusCommand() *cobra.Command {
	var v vaultRunner
	var open bool
	cmd := &cobra.Command{
		Use:                   "status [--open] [--config <path> [--adapter <name>]] [--json]",
		DisableFlagsInUseLine: true,
		Short:                 "Counts the records of a vault, by when they were last written",
		Long: `
Counts the records of the vaults of a configuration by when they were last
written, which each refresh does. It shows nothing of any home.
` + vaultExits,
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.run(cmd, args, func(ctx context.Context, one vaults.Vault) (page.VaultLine, error) {
				s, err := one.Summarize(ctx, open)
				return page.VaultSummary{KeyFile: one.KeyFile, Summary: s, Opened: open}, err
			})
		},
	}
	cmd.Flags().BoolVar(&open, "open", false, "Open each record, too, and count by which key it was sealed")
	v.flags(cmd)
	return cmd
}

func forgetCommand() *cobra.Command {
	var v vaultRunner
	var household, account string
	cmd := &cobra.Command{
		Use: "forget --household <id>|--account <name>\n" +
			"    [--config <path> [--adapter <name>]] [--json]",
		DisableFlagsInUseLine: true,
		Short:                 "Removes all that a vault has of a home or of an account",
		Long: `
Removes the records of a home, or of an account in whatever home, and the
account's failed logins. Its players have to sign in again when their access
tokens end. Records that were made of a token from before there was a vault, or
when a listener signed in, do not say which account they are of: they go with
their home.

The householdId and the account's name are as players send them, to the letter:
a server may tell Ella from ella. What the Caddy that runs has in memory of the
last minute may bring a record back: do it again after that.

It does not end anything at the authorization server.
` + vaultExits,
		Example: `    $ caddy smapi-upgrade vault forget --household Sonos_abc123
    $ caddy smapi-upgrade vault forget --account ella@example.com`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (household == "") == (account == "") {
				return usageError(cmd, errors.New("it needs either --household or --account"))
			}
			return v.run(cmd, args, func(ctx context.Context, one vaults.Vault) (line page.VaultLine, err error) {
				var n int
				if household != "" {
					n, err = one.ForgetHousehold(ctx, household)
				} else {
					n, err = one.ForgetAccount(ctx, account, exchange.Account(&smapi.Call{
						Credentials: smapi.Credentials{Kind: smapi.Login, Username: account},
					}))
				}
				return page.VaultForgot{KeyFile: one.KeyFile, Forgotten: n}, err
			})
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&household, "household", "", "The `id` of the home")
	cmd.Flags().StringVar(&account, "account", "", "The `name` of the account")
	v.flags(cmd)
	return cmd
}

func rotateCommand() *cobra.Command {
	var v vaultRunner
	cmd := &cobra.Command{
		Use:                   "rotate [--config <path> [--adapter <name>]] [--json]",
		DisableFlagsInUseLine: true,
		Short:                 "Seals with the first key what another one has sealed",
		Long: `
Seals all records with the first key of the key file. Add a key by 'vault keygen'
and give the file to all instances before. When it says that nothing is
unreadable, the keys that sealed before can be taken out of the file, but never
the one with use sig. It can be stopped and run again at any time.
` + vaultExits,
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.run(cmd, args, func(ctx context.Context, one vaults.Vault) (page.VaultLine, error) {
				done, err := one.Rotate(ctx)
				return page.VaultRotated{KeyFile: one.KeyFile, Rotated: done}, err
			})
		},
	}
	v.flags(cmd)
	return cmd
}
