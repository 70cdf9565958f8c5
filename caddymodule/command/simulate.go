package command

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/account"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/figures"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// simulation is what `caddy smapi-upgrade simulate` is asked for.
type simulation struct {
	url         string
	credentials string
	accounts    int
	from        string
	households  int
	rate        float64
	concurrency int
	repeatLost  string
	timeout     time.Duration
	insecure    bool
	seed        uint64
	json        bool
	mine        bool
	signIn      bool
	after       int
}

func simulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use: "simulate <url> [--credentials <kind>]\n" +
			"    [--accounts <n> | --from <file>] [--households <n>] [--seed <n>]\n" +
			"    [--rate <n>] [--concurrency <n>] [--repeat-lost <share>]\n" +
			"    [--after <n>] [--timeout <duration>] [--insecure] [--json]\n" +
			"    [--yes-this-is-my-service]\n" +
			"  caddy smapi-upgrade simulate <url> --sign-in [--timeout <duration>]\n" +
			"    [--insecure] [--json] [--yes-this-is-my-service]",
		DisableFlagsInUseLine: true,
		Short:                 "Plays Sonos players that upgrade their accounts",
		Long: `
Plays a Sonos player, or a fleet of them, at a running site. Each account makes
one upgrade call (getDeviceAuthToken without linkCode), in the spellings of
real players in turn, and the answer is read as strictly as a player may read
it. The summary says what the players got and what they would do.

The accounts are made up, or come from a file: one account per line, with a tab
between its values. Blank lines and lines that begin with # are skipped.

    --credentials     made up                a line of --from
    login             user1, password1       <username> TAB <password>
    session_id        session1               <session id>
    login_token       token1, key1           <token> TAB <key>
    anonymous         (nothing)              (no file)

Calls are made as fast as --concurrency of them at once allow, or at a --rate.
With --repeat-lost 10% a tenth of them lose their answer, as if the network had
failed: the connection is closed before the answer is read, and the player asks
again. A player waits 20s for an answer, 10s of it at most to connect.

The homes are made up by --seed: another seed makes other homes. The same call
from the same home gets the same answer again, without another login, for as
long as the site remembers it ('replay').

Every call may be a login, and every wrong password is a failed login, which may
lock its account. So the host has to be this machine, unless you say that the
service is yours. Calls go to no other host: redirects are not followed, and no
proxy is used. No tokens or credentials are printed.

With --after 10 each account that was upgraded then makes ten everyday calls,
getMetadata of the root and getLastUpdate in turn, with its token in the places
where players have it. This shows whether the service behind accepts upgraded
homes, by 'old_service' or by itself. Only faults count, not what is served.

With --sign-in it is one listener who signs in: the app asks where, the address
and the code are printed for you to sign in there, and the player polls for
seven minutes at most.

Ctrl-C ends it with the summary so far.

Exit status:
    0   every account was upgraded, and served, or the listener has signed in
    1   some listeners would have to sign in again or link their account
    2   the command was not understood, or refused
    3   some calls got another fault, no answer, or one that players do not
        accept; or it was ended early
`,
		Example: `    One account that is made up, user1 with password1:
    $ caddy smapi-upgrade simulate http://localhost:8088

    A test account, without its password on the command line:
    $ caddy smapi-upgrade simulate http://localhost:8088 --from account.tsv

    A storm: 50 calls per second, of which a tenth lose their answer:
    $ caddy smapi-upgrade simulate https://localhost --insecure \
        --accounts 2000 --households 700 --rate 50 --repeat-lost 10%

    Upgraded homes that browse:
    $ caddy smapi-upgrade simulate http://localhost:8088 --accounts 100 \
        --after 10

    Sign in once, as a listener does:
    $ caddy smapi-upgrade simulate http://localhost:8088 --sign-in

    How many were upgraded, for a script:
    $ caddy smapi-upgrade simulate http://localhost:8088 --json |
        jq .outcomes.upgraded.calls`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, errors.New("it takes one URL"))
			}
			s.url = args[0]
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&s.credentials, "credentials", string(smapi.Login), "The `kind` of accounts")
	flags.IntVar(&s.accounts, "accounts", 1, "Accounts to make up")
	flags.StringVar(&s.from, "from", "", "A `file` with the accounts, - for standard input")
	flags.IntVar(&s.households, "households", 0, "Homes they live in (default one for each)")
	flags.Uint64Var(&s.seed, "seed", 1, "Makes the homes and spellings")
	flags.Float64Var(&s.rate, "rate", 0, "Calls per second (default no limit)")
	flags.IntVar(&s.concurrency, "concurrency", 0, "Calls at once (default 16; with --rate 1000)")
	flags.IntVar(&s.after, "after", 0, "Everyday calls of each account that is upgraded")
	flags.BoolVar(&s.signIn, "sign-in", false, "Play one listener who signs in")
	flags.StringVar(&s.repeatLost, "repeat-lost", "", "The `share` of calls that lose their answer")
	flags.DurationVar(&s.timeout, "timeout", player.Timeout, "Patience of a player")
	flags.BoolVar(&s.insecure, "insecure", false, "Accept any certificate")
	flags.BoolVar(&s.json, "json", false, "Print the summary as JSON")
	flags.BoolVar(&s.mine, "yes-this-is-my-service", false, "Allow a host that is not this machine")
	return cmd
}

const (
	defaultConcurrency = 16
	mostConcurrency    = 1000
	mostAfter          = 1_000_000
)

// Exit codes of simulate beside exitUsage.
const (
	exitSignedOut = 1
	exitFailed    = 3
)

func (s *simulation) run(cmd *cobra.Command) error {
	if s.signIn {
		return s.runSignIn(cmd)
	}
	fleet, err := s.fleet(cmd)
	if err != nil {
		return usageError(cmd, err)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	s.announce(cmd, len(fleet.Accounts))
	bar := page.ShowProgress(cmd.ErrOrStderr(), fleet.Done, fleet.Calls())
	summary := fleet.Run(ctx)
	bar.End()
	if err := page.New(cmd.OutOrStdout()).Show(summary, s.json, func(p *page.Page) { page.Summary(p, summary) }); err != nil {
		tell(cmd, "Error: %v\n", err)
		return exit(cmd, exitFailed)
	}
	switch {
	case summary.Failed():
		return exit(cmd, exitFailed)
	case summary.SignedOut():
		return exit(cmd, exitSignedOut)
	}
	return nil
}

// fleet is what plays, or an error in what is asked for.
func (s *simulation) fleet(cmd *cobra.Command) (*player.Fleet, error) {
	if err := checkURL(s.url, s.mine); err != nil {
		return nil, err
	}
	changed := cmd.Flags().Changed
	lost := households.Percent(0)
	if s.repeatLost != "" {
		var err error
		if lost, err = households.Parse(s.repeatLost); err != nil {
			return nil, fmt.Errorf("--repeat-lost %w", err)
		}
	}
	switch {
	case changed("rate") && !(s.rate >= 0.001 && s.rate <= 1e6): // nor is it NaN
		return nil, errors.New("--rate has to be a number of calls per second, from 0.001 to 1000000")
	case changed("concurrency") && (s.concurrency < 1 || s.concurrency > mostConcurrency):
		return nil, fmt.Errorf("--concurrency has to be from 1 to %d", mostConcurrency)
	case changed("households") && s.households < 1:
		return nil, errors.New("--households has to be 1 at least")
	case s.timeout < time.Millisecond || s.timeout > time.Hour:
		return nil, errors.New("--timeout has to be from 1ms to 1h")
	case s.after < 0 || s.after > mostAfter:
		return nil, fmt.Errorf("--after has to be from 0 to %d", mostAfter)
	}
	accounts, err := s.players(cmd)
	if err != nil {
		return nil, err
	}
	if !changed("households") {
		s.households = len(accounts)
	}
	if !changed("concurrency") {
		s.concurrency = defaultConcurrency
		if s.rate > 0 {
			s.concurrency = mostConcurrency // players do not wait for one another
		}
	}
	return &player.Fleet{
		Client:      &player.Client{URL: s.url, Timeout: s.timeout, Transport: player.NewTransport(s.concurrency, s.insecure)},
		Accounts:    accounts,
		Households:  s.households,
		Concurrency: s.concurrency,
		Rate:        s.rate,
		Lost:        float64(lost) / 100,
		Seed:        s.seed,
		After:       s.after,
	}, nil
}

// players are the accounts, made up or from a file.
func (s *simulation) players(cmd *cobra.Command) ([]player.Account, error) {
	kind := smapi.Kind(s.credentials)
	switch kind {
	case smapi.Login, smapi.SessionID, smapi.LoginToken, smapi.Anonymous:
	default:
		return nil, errors.New("--credentials has to be login, session_id, login_token or anonymous")
	}
	if s.from == "" {
		if s.accounts < 1 || s.accounts > account.Max {
			return nil, fmt.Errorf("--accounts has to be from 1 to %d", account.Max)
		}
		return player.Synthetic(kind, s.accounts), nil
	}
	if cmd.Flags().Changed("accounts") {
		return nil, errors.New("the accounts are either made up, by --accounts, or --from a file")
	}
	if kind == smapi.Anonymous {
		return nil, errors.New("anonymous players have no accounts to read; say how many by --accounts")
	}
	in := cmd.InOrStdin()
	if s.from == "-" {
		if _, ok := page.Terminal(in); ok {
			tell(cmd, "One account per line, then Ctrl-D:\n")
		}
	} else {
		file, err := os.Open(s.from)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		defer file.Close()
		in = file
	}
	accounts, err := account.Read(in, kind)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	if len(accounts) == 0 {
		return nil, errors.New("--from: there are no accounts in it")
	}
	return accounts, nil
}

// announce says who is played where, before anybody is.
func (s *simulation) announce(cmd *cobra.Command, n int) {
	who := figures.Number(n, "account") + " of --from"
	if s.from == "" {
		who = madeUp(smapi.Kind(s.credentials), n)
	}
	out := page.New(cmd.ErrOrStderr())
	out.Wrapped("", "", "Plays "+who+". At:")
	fmt.Fprintf(out, "  %s\n\n", s.url)
}

// madeUp names the accounts that are made up.
func madeUp(kind smapi.Kind, n int) string {
	one, all := map[smapi.Kind][2]string{
		smapi.Login:      {"user1 with password1", "user1 with password1 to user%d with password%[1]d"},
		smapi.SessionID:  {"session1", "session1 to session%d"},
		smapi.LoginToken: {"token1 with key1", "token1 with key1 to token%d with key%[1]d"},
	}[kind], ""
	switch {
	case kind == smapi.Anonymous:
		return figures.Number(n, "player") + " without an account"
	case n == 1:
		all = one[0]
	default:
		all = fmt.Sprintf(one[1], n)
	}
	return figures.Number(n, "account") + " that " + map[bool]string{true: "is", false: "are"}[n == 1] + " made up (" + all + ")"
}

var errURL = errors.New("that is no URL of a site, such as http://localhost:8088")

// checkURL refuses what is not a site of this machine, unless it is said to be the operator's own. Its errors do
// not quote the URL, which might have a password.
func checkURL(text string, mine bool) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return errURL
	}
	if u.User != nil {
		return errors.New("the URL must not have a user name or a password")
	}
	if mine || token.Loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s is not this machine.\nEach call is a login there, and failed ones may lock the accounts of "+
		"listeners.\nIf the service is yours, add --yes-this-is-my-service", u.Hostname())
}
