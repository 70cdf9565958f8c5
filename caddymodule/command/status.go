package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
)

// statusReader is what `caddy smapi-upgrade status` is asked for.
type statusReader struct {
	address  string
	config   string
	adapter  string
	watch    bool
	interval time.Duration
	json     bool
}

func statusCommand() *cobra.Command {
	var s statusReader
	cmd := &cobra.Command{
		Use: "status [--watch [--interval <duration>]] [--json]\n" +
			"    [--address <interface>] [--config <path> [--adapter <name>]]",
		DisableFlagsInUseLine: true,
		Short:                 "Shows what becomes of the calls, by token endpoint",
		Long: `
Asks the admin API of a running Caddy what becomes of the calls to its
smapi_upgrade handlers, and how their token endpoints are: calls by outcome
since the start and over the last five minutes, exchanges under way and
waiting, whether the endpoint is left alone or is rate-limiting, and how
old the secrets are. It shows no secret, and nothing of any listener.

Exit status:
    0   a configuration with smapi_upgrade is running, whatever its token
        endpoint does: this can be a health check
    1   the Caddy that runs has no smapi_upgrade
    2   the command was not understood
    3   the admin API did not answer, or knows of no smapi_upgrade
`,
		Example: `    $ caddy smapi-upgrade status
    $ caddy smapi-upgrade status --watch
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
	flags.BoolVar(&s.json, "json", false, "Print what the admin API says")
	flags.StringVar(&s.address, "address", "", "The `address` of the admin API (localhost:2019)")
	flags.StringVarP(&s.config, "config", "c", "", "The configuration `file` that says the address")
	flags.StringVarP(&s.adapter, "adapter", "a", "", "The `name` of its adapter")
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
	address, err := caddycmd.DetermineAdminAPIAddress(s.address, nil, s.config, s.adapter)
	if err != nil {
		return usageError(cmd, err)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
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

// show prints the status once and returns the exit code.
func (s *statusReader) show(ctx context.Context, cmd *cobra.Command, address string) int {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := askAdmin(ctx, address)
	var status caddymodule.Status
	if err == nil {
		err = json.Unmarshal(body, &status)
	}
	if ctx.Err() == context.Canceled {
		return 0
	}
	if err != nil {
		cmd.PrintErrf("Error: the admin API at %s: %v\n", address, err)
		return exitNoAnswer
	}
	out := cmd.OutOrStdout()
	var text strings.Builder
	switch {
	case s.json:
		text.Write(body)
	case len(status.Endpoints) == 0:
		text.WriteString("The Caddy that runs has no smapi_upgrade.\n")
	default:
		printStatus(&text, &status, colored(out))
	}
	if terminal, ok := out.(*os.File); ok && s.watch && !s.json && term.IsTerminal(int(terminal.Fd())) {
		fmt.Fprint(out, "\x1b[H\x1b[2J") // home, and clear
	}
	_, _ = io.WriteString(out, text.String())
	if len(status.Endpoints) == 0 {
		return exitNoHandler
	}
	return 0
}

func askAdmin(ctx context.Context, address string) ([]byte, error) {
	type answered struct {
		body []byte
		err  error
	}
	answers := make(chan answered, 1) // AdminAPIRequest takes no context
	go func() {
		response, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/smapi_upgrade/status", nil, nil)
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

// printStatus writes a status as people read it, at most 80 columns wide but for the URL.
func printStatus(w io.Writer, s *caddymodule.Status, colors bool) {
	for i := range s.Endpoints {
		if i > 0 {
			fmt.Fprintln(w)
		}
		printEndpoint(w, &s.Endpoints[i], colors)
	}
	for i := range s.Vaults {
		printVault(w, &s.Vaults[i])
	}
}

func printVault(w io.Writer, v *caddymodule.VaultStatus) {
	records := "not counted yet"
	if v.Records != nil {
		records = humanize.Comma(*v.Records)
	}
	fmt.Fprintf(w, "\nvault %s\n  %-14s %s\n", v.KeyFile, "records", records)
	if v.Failing {
		fmt.Fprintf(w, "  %-14s FAILING: upgrades and refreshes get Server.ServiceUnavailable\n", "storage")
	}
	if v.Unwritten > 0 {
		fmt.Fprintf(w, "  %-14s %s IN MEMORY ALONE: do not stop this instance\n", "unwritten", humanize.Comma(int64(v.Unwritten)))
	}
}

func printEndpoint(w io.Writer, e *caddymodule.EndpointStatus, colors bool) {
	title := e.Endpoint
	if title == "" {
		title = "No token endpoint: the modes observe and reauthorize need none"
	}
	fmt.Fprintln(w, title)
	if e.ClientID != "" {
		fmt.Fprintln(w, "as "+e.ClientID)
	}
	fmt.Fprintln(w)
	row(w, "", "last 5 min", "since start", "last 5 min, each 10 s")
	for _, o := range flow.Outcomes() {
		if e.SinceStart[o] > 0 || o == flow.Upgraded {
			row(w, o.String(), humanize.Comma(int64(e.Last5Minutes[o])), humanize.Comma(int64(e.SinceStart[o])), history(e, o))
		}
	}
	if e.Endpoint == "" {
		return
	}
	fmt.Fprintf(w, "\n  exchanges      %d in flight, %d waiting", e.InFlight, e.Waiting)
	if e.Waiting > 0 {
		fmt.Fprintf(w, ", the oldest for %s", seconds(e.OldestWaitingSeconds))
	}
	fmt.Fprintf(w, "\n  breaker        %s\n", map[string]string{
		"closed":    "closed: all is well",
		"open":      "OPEN: the token endpoint has been failing and is left alone",
		"half-open": "HALF-OPEN: the token endpoint has been failing and is tried",
	}[e.Breaker])
	if e.HoldSeconds > 0 {
		fmt.Fprintf(w, "  hold           for %s more, as the token endpoint has asked\n", seconds(e.HoldSeconds))
	}
	printFuse(w, "upgrades", &e.LoginFuse, colors)
	printFuse(w, "refreshes", &e.RefreshFuse, colors)
	for i := range e.Secrets {
		label := "secrets"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(w, "  %-14s %s\n", label, secretLine(&e.Secrets[i]))
	}
}

// history is a bar for each step, as high as its share of the highest.
func history(e *caddymodule.EndpointStatus, o flow.Outcome) string {
	const bars = "▁▂▃▄▅▆▇█"
	steps := make([]uint64, len(e.History))
	for i, counts := range e.History {
		steps[i] = counts[o]
	}
	most := slices.Max(append(steps, 0))
	var line strings.Builder
	for _, n := range steps {
		if n == 0 {
			line.WriteByte(' ')
			continue
		}
		line.WriteRune([]rune(bars)[(n*8-1)/most])
	}
	return line.String()
}

// secretLine is how a secret is that comes from files.
func secretLine(s *secret.Status) string {
	text := s.Field + " read " + seconds(s.ReadSecondsAgo) + " ago"
	if s.Field == "transport" {
		text = "client certificate read " + seconds(s.ReadSecondsAgo) + " ago"
	}
	if s.Expires != nil {
		text += ", ends " + s.Expires.UTC().Format("2006-01-02 15:04 MST")
	}
	if s.Stale {
		text += "\n                 ITS FILE CANNOT BE READ ANY MORE"
	}
	return text
}

// printFuse says that a fuse is blown, in red where colors are wanted. A whole one is what is expected.
func printFuse(w io.Writer, of string, f *caddymodule.FuseStatus, colors bool) {
	if !f.Blown {
		return
	}
	says := "BLOWN for " + of + ":"
	if b := f.Blew; b != nil && b.Tried > 0 {
		says += fmt.Sprintf(" %d of %d accounts were rejected (%s, of %g%% at most)%s.", b.Rejected, b.Tried, share(b), f.Percent, mostly(b))
	}
	if f.Tried > 0 {
		says += fmt.Sprintf(" Since then %d of %d (%s)%s.", f.Rejected, f.Tried, share(&f.FuseTries), mostly(&f.FuseTries))
	}
	says += " Rejections are doubted: see what has changed at the authorization server"
	var lines strings.Builder
	wrapped(&lines, "  ", "fuse           ", says)
	for line := range strings.Lines(lines.String()) {
		if colors {
			line = red.of(strings.TrimSuffix(line, "\n")) + "\n"
		}
		_, _ = io.WriteString(w, line)
	}
}

func share(t *caddymodule.FuseTries) string {
	return fmt.Sprintf("%.0f%%", 100*float64(t.Rejected)/float64(t.Tried))
}

func mostly(t *caddymodule.FuseTries) string {
	if t.OAuthError == "" {
		return ""
	}
	return ", mostly " + t.OAuthError
}
