package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/open"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
)

// statusReader is what `caddy smapi-upgrade status` is asked for.
type statusReader struct {
	adminAddress
	watch    bool
	interval time.Duration
	json     bool
	open     bool
	port     uint16
}

func statusCommand() *cobra.Command {
	var s statusReader
	cmd := &cobra.Command{
		Use: "status [--watch [--interval <duration>]] [--json]\n" +
			"    [--open [--port <port>]] [--address <interface>]\n" +
			"    [--config <path> [--adapter <name>]]",
		DisableFlagsInUseLine: true,
		Short:                 "Shows what becomes of the calls, by token endpoint",
		Long: `
Asks the admin API of a running Caddy what becomes of the calls to its
smapi_upgrade handlers, and how their token endpoints are: calls by outcome
in all and over the last five minutes, exchanges under way and waiting and
how long they took, whether the endpoint is left alone or is rate-limiting,
the fix of what was last misconfigured, and how old the secrets are. It shows
no secret, and nothing of any listener.

With --open it shows the same as a page in the browser, and the last 24 hours:
it prints an address of this machine that works until Ctrl-C.

Where the admin API is, the configuration says: that of --config, or ./Caddyfile
or /etc/caddy/Caddyfile if there is one. Its Unix socket can be read by the user
of Caddy alone. Without any it is localhost:2019.

Exit status:
    0   a configuration with smapi_upgrade is running, whatever its token
        endpoint does: this can be a health check
    1   the Caddy that runs has no smapi_upgrade
    2   the command was not understood
    3   the admin API did not answer, or knows of no smapi_upgrade
`,
		Example: `    $ caddy smapi-upgrade status
    $ caddy smapi-upgrade status --watch
    $ caddy smapi-upgrade status --open
    $ sudo -u caddy caddy smapi-upgrade status --config /etc/caddy/Caddyfile
    $ caddy smapi-upgrade status --json | jq '.endpoints[].breaker'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return usageError(cmd, errors.New("it takes no arguments"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVarP(&s.watch, "watch", "w", false, "Show it again and again, until Ctrl-C")
	flags.DurationVar(&s.interval, "interval", 2*time.Second, "How often, at least 100ms")
	flags.BoolVar(&s.open, "open", false, "Show it as a page in the browser, until Ctrl-C")
	flags.Uint16Var(&s.port, "port", 0, "The `port` of the page's address, 0 for any")
	flags.BoolVar(&s.json, "json", false, "Print what the admin API says")
	s.addFlags(cmd)
	return cmd
}

// Exit codes of status beside exitUsage.
const (
	exitNoHandler = 1
	exitNoAnswer  = 3
)

func (s *statusReader) run(cmd *cobra.Command) error {
	if s.interval < 100*time.Millisecond {
		return usageError(cmd, errors.New("--interval has to be at least 100ms"))
	}
	if s.open && (s.watch || s.json) {
		return usageError(cmd, errors.New("--open cannot be combined with --watch or --json"))
	}
	address, err := s.find()
	if err != nil {
		return usageError(cmd, err)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if s.open {
		return exit(cmd, s.openPage(ctx, cmd, address))
	}
	ticker := time.NewTicker(s.interval)
	defer ticker.Stop()
	for {
		code := s.show(ctx, cmd, address)
		if !s.watch || ctx.Err() != nil {
			return exit(cmd, code)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return exit(cmd, code)
		}
	}
}

// openPage serves the page until ctx ends, and returns the exit code.
func (s *statusReader) openPage(ctx context.Context, cmd *cobra.Command, address string) int {
	asked, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if _, err := askAdmin(asked, address, dashboard.Path); err != nil {
		noAdmin(cmd, address, err)
		return exitNoAnswer
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.port))))
	if err != nil {
		tell(cmd, "Error: %v\n", err)
		return exitNoAnswer
	}
	server := open.New(dashboard.Path, func(_ context.Context, path string) (*http.Response, error) {
		return caddycmd.AdminAPIRequest(address, http.MethodGet, path, nil, nil)
	})
	url := server.URL(listener)
	fmt.Fprintf(cmd.OutOrStdout(), "The page is at %s until Ctrl-C, for one browser on this machine.\n", url)
	open.Browser(url)
	if err := server.Serve(ctx, listener); err != nil {
		tell(cmd, "Error: %v\n", err)
		return exitNoAnswer
	}
	return 0
}

// show prints the status once and returns the exit code.
func (s *statusReader) show(ctx context.Context, cmd *cobra.Command, address string) int {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	body, err := askAdmin(ctx, address, "/smapi_upgrade/status")
	var status dashboard.Status
	if err == nil {
		err = json.Unmarshal(body, &status)
	}
	if ctx.Err() == context.Canceled {
		return 0
	}
	if err != nil {
		noAdmin(cmd, address, err)
		return exitNoAnswer
	}
	out := cmd.OutOrStdout()
	screen := page.New(out)
	if s.json {
		err = screen.Data(body)
	} else {
		if _, ok := page.Terminal(out); ok && s.watch {
			fmt.Fprint(out, "\x1b[H\x1b[2J") // home, and clear
		}
		err = screen.Show(nil, false, func(p *page.Page) { page.Status(p, &status) })
	}
	if err != nil {
		tell(cmd, "Error: %v\n", err)
		return exitNoAnswer
	}
	if len(status.Endpoints) == 0 {
		return exitNoHandler
	}
	return 0
}
