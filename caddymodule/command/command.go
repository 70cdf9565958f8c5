// Package command has the commands of the family `caddy smapi-upgrade`, and how they print.
package command

import (
	"errors"
	"fmt"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
)

// commands are the members of the family `caddy smapi-upgrade`.
var commands = []func() *cobra.Command{
	statusCommand,
	readyCommand,
	simulateCommand,
	explainCommand,
	checkCommand,
	vaultCommand,
}

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "smapi-upgrade",
		Usage: "<command>",
		Short: "Helps to move a Sonos music service to OAuth",
		Long: `
Commands for who runs the handler smapi_upgrade, which moves the listeners of
an old Sonos music service to OAuth.
`,
		CobraFunc: complete,
	})
}

// complete adds the commands to their family.
func complete(family *cobra.Command) {
	for _, command := range commands {
		family.AddCommand(command())
	}
	family.SetFlagErrorFunc(usageError)
	completeGroup(family)
}

// completeGroup has a command that is nothing without one of its own show its help, and adds the command help.
func completeGroup(group *cobra.Command) {
	group.AddCommand(helpCommand(group))
	group.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError(cmd, errNoCommand)
		}
		return cmd.Help()
	}
}

var errNoCommand = errors.New("there is no such command")

// helpCommand is help, as cobra has it for the root alone.
func helpCommand(family *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [<command>]",
		Short: "Helps with a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := family.Find(args)
			if err != nil || len(rest) > 0 {
				return usageError(cmd, errNoCommand)
			}
			about.InitDefaultHelpFlag() // which --help adds
			return about.Help()
		},
	}
}

// exitUsage is the exit code of a command that was called in a wrong way.
const exitUsage = 2

// usageError ends a command with a message of what is wrong with its flags and arguments.
func usageError(cmd *cobra.Command, err error) error {
	out := page.New(cmd.ErrOrStderr())
	for line := range strings.Lines("Error: " + err.Error()) {
		out.Wrapped("", "", line)
	}
	fmt.Fprintf(out, "See '%s --help'.\n", cmd.CommandPath())
	return exit(cmd, exitUsage)
}

// exit ends a command with an exit code, without a further message.
func exit(cmd *cobra.Command, code int) error {
	cmd.SilenceErrors = true
	if code == 1 { // which caddycmd takes for a success, unless it comes with an error, which it logs
		return errExit
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}

var errExit = errors.New("exiting with status 1")

// tell prints text to standard error, where a person reads it.
func tell(cmd *cobra.Command, format string, values ...any) {
	fmt.Fprintf(page.New(cmd.ErrOrStderr()), format, values...)
}
