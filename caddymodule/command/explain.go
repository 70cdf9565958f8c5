package command

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/capture"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
)

// explainer is what `caddy smapi-upgrade explain` is asked for.
type explainer struct {
	file            string
	config, adapter string
	json            bool
}

func explainCommand() *cobra.Command {
	var e explainer
	cmd := &cobra.Command{
		Use: "explain <file> [--config <path> [--adapter <name>]]\n" +
			"    [--json]",
		DisableFlagsInUseLine: true,
		Short:                 "Says how a captured request is decided, and why",
		Long: `
Takes a captured request through the steps by which it would be answered or
forwarded: what its method and headers allow, how much of its body is looked
at, what is found there, which option decides, what the token endpoint would be
asked, and what each of its answers would make the player hear. It is decided
by the code that serves requests. Nothing is sent anywhere.

The file, or standard input for -, is

    an HTTP request       as on the wire: request line, headers, a blank line
                          and the body. Line ends may be LF, and the
                          Content-Length may be missing or wrong.
    a SOAP envelope       the body alone, for which the headers of a player are
                          assumed.

Each smapi_upgrade of the configuration is asked, whether or not the routes
around it would let the request through: their hosts and paths are shown.
Secrets of the client are not read. Without --config it is a handler with the
defaults, which exchanges user names and passwords by the password grant.

User names, passwords, session ids, tokens, keys and homes are shown as ***(5),
where 5 is how many characters they have. The capture itself holds them: delete
it when it is explained.

Exit status:
    0   at least one handler would answer it
    1   all would forward it
    2   the command was not understood, or a file cannot be read
`,
		Example: `    A capture, by a handler with the defaults:
    $ caddy smapi-upgrade explain request.http

    By the configuration of the service, with its environment:
    $ caddy smapi-upgrade explain request.http --config /etc/caddy/Caddyfile

    An envelope from the clipboard, and only why it is forwarded:
    $ wl-paste | caddy smapi-upgrade explain - --json |
        jq -r '.handlers[].forwarded'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, errors.New("it takes one file, or - for standard input"))
			}
			e.file = args[0]
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return e.run(cmd) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&e.config, "config", "c", "", "The configuration `file` (default none)")
	flags.StringVarP(&e.adapter, "adapter", "a", "", "The `name` of its adapter")
	flags.BoolVar(&e.json, "json", false, "Print it as JSON")
	return cmd
}

// exitForwarded is the exit code of explain for a request that nobody answers.
const exitForwarded = 1

func (e *explainer) run(cmd *cobra.Command) error {
	asked, handlers, err := e.read(cmd.InOrStdin())
	if err != nil {
		return usageError(cmd, err)
	}
	x, err := diagnose.Explain(asked, handlers)
	if err != nil {
		return usageError(cmd, err)
	}
	if err := page.New(cmd.OutOrStdout()).Show(x, e.json, func(p *page.Page) { page.Explanation(p, &x) }); err != nil {
		return usageError(cmd, err)
	}
	if !x.Answered {
		return exit(cmd, exitForwarded)
	}
	return nil
}

func (e *explainer) read(stdin io.Reader) (*capture.Request, []configuration.Handler, error) {
	if e.adapter != "" && e.config == "" {
		return nil, nil, errors.New("--adapter is for the file of --config")
	}
	if e.config == "-" && e.file == "-" {
		return nil, nil, errors.New("standard input is either the request or the configuration")
	}
	asked, err := e.capture(stdin)
	if err != nil {
		return nil, nil, err
	}
	if e.config == "" {
		return asked, []configuration.Handler{configuration.Default()}, nil
	}
	config, err := configuration.Load(e.config, e.adapter)
	if err != nil {
		return nil, nil, err
	}
	handlers, err := configuration.Find(config)
	return asked, handlers, err
}

// capture is what is in the file, or at standard input.
func (e *explainer) capture(stdin io.Reader) (*capture.Request, error) {
	if e.file == "-" {
		return capture.Read(stdin)
	}
	file, err := os.Open(e.file)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return capture.Read(file)
}
