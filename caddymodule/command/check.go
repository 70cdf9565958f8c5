package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/account"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/diagnose/configuration"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// checker is what `caddy smapi-upgrade check` is asked for.
type checker struct {
	config, adapter string
	endpoint        string
	credentials     string
	from            string
	locked          string
	refresh         bool
	signIn          bool
	yes             bool
	json            bool
}

func checkCommand() *cobra.Command {
	var c checker
	cmd := &cobra.Command{
		Use: "check [--config <path> [--adapter <name>]]\n" +
			"    [--endpoint <url>] [--credentials <kind>] [--from <file>]\n" +
			"    [--locked-from <file>] [--refresh] [--sign-in] [--yes] [--json]",
		DisableFlagsInUseLine: true,
		Short:                 "Tries the token endpoint with a test account",
		Long: `
Exchanges the credentials of a test account at the token endpoint as a player's
upgrade call would, and then wrong ones, and says what the player would get. It
is done by the handlers of the configuration, which are set up as Caddy does,
but no server is started. It also looks at the client's secrets, TLS, the clock
and the tokens, and sees that each exchange is one POST. Where there is a vault,
it writes an object into Caddy's storage, reads it and removes it again.

It costs the account one failed login at each token endpoint, as wrong
credentials of a player would, and asks you before. If the right credentials
fail, no wrong ones are tried. The tokens are thrown away; only --refresh uses
the refresh token up.

A client with a secret is also tried with a made-up secret and the right
credentials. This is no login at a server that checks the client first. All
listeners get the same answer when the secret is changed or expires. If it would
count as a rejection, the on_error line that prevents that is shown.
The same is done for an account that the server has locked: --locked-from has
it, in the same form. An account with characters that are not ASCII is tried
with 'form_charset utf-8' first: use one to find out whether you need that.

The account comes from standard input or from a file, never from the command
line; on a terminal you are asked for it. It is one line, with a tab between:

    --credentials     the line
    login             <username> TAB <password>
    session_id        <session id>
    login_token       <token> TAB <key>
    anonymous         (nothing: there is no account, and nothing wrong to try)

'mode', 'households', 'replay' and 'remember_rejected' are ignored: it works as
in mode upgrade for all homes. The home is Sonos_smapi_upgrade_check, and a
header that is taken from a player's request is left out. Run it as the user and
with the environment of the server, or it may use other secrets. No credentials
and no tokens are printed.

With 'old_service' the account is then upgraded once more by the handler as it
is configured, which is one more login, and calls 'getMetadata' of the root at
the old service, through what is behind the handler. What that answers is shown.
What is kept for it is in a folder of its own, sealed, and removed.

With --sign-in no account is tried. A whole sign-in is played in its place, as
by 'sign_in': it prints the address and the code, and waits until you have
signed in there, for seven minutes at most, as players do.

Exit status:
    0   all is well
    1   the exchange works, but there is something to fix
    2   the command was not understood, or the configuration does not load
    3   it would not work for players
`,
		Example: `    Ask for a test account, and try it:
    $ caddy smapi-upgrade check --config /etc/caddy/Caddyfile

    In a script, with the account in a file that only it can read:
    $ caddy smapi-upgrade check --from account.tsv --yes

    One of several token endpoints, and whether tokens can be refreshed:
    $ caddy smapi-upgrade check --refresh \
        --endpoint https://auth.example.com/oauth2/token

    Sign in once, as a listener does:
    $ caddy smapi-upgrade check --sign-in`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return usageError(cmd, errors.New("it takes no arguments; credentials must not be on the command line"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&c.config, "config", "c", "", "The configuration `file` (default ./Caddyfile)")
	flags.StringVarP(&c.adapter, "adapter", "a", "", "The `name` of its adapter")
	flags.StringVar(&c.endpoint, "endpoint", "", "The `url` of the one token endpoint or issuer to try")
	flags.StringVar(&c.credentials, "credentials", string(smapi.Login), "The `kind` of credentials it has")
	flags.StringVar(&c.from, "from", "", "The `file` with the account (default standard input)")
	flags.StringVar(&c.locked, "locked-from", "", "A `file` with a locked account to try, too")
	flags.BoolVar(&c.refresh, "refresh", false, "Refresh the tokens, too")
	flags.BoolVar(&c.signIn, "sign-in", false, "Sign in once in the place of that, as a listener does")
	flags.BoolVarP(&c.yes, "yes", "y", false, "Do not ask whether to go on")
	flags.BoolVar(&c.json, "json", false, "Print it as JSON")
	return cmd
}

// Exit codes of check, by the worst that was found.
var exitOf = map[diagnose.State]int{diagnose.Well: 0, diagnose.Fix: 1, diagnose.Problem: 3}

func (c *checker) run(cmd *cobra.Command) error {
	trial, err := c.prepare()
	if err != nil {
		return usageError(cmd, err)
	}
	defer trial.Close()
	if c.signIn {
		return c.runSignIn(cmd, trial)
	}
	tries, goOn, err := c.ask(cmd, trial)
	if err != nil {
		return usageError(cmd, err)
	}
	if !goOn {
		tell(cmd, "Nothing was tried.\n")
		return exit(cmd, exitUsage)
	}
	r := trial.Run(context.Background(), tries)
	if err := page.New(cmd.OutOrStdout()).Show(r, c.json, func(p *page.Page) { page.Report(p, &r) }); err != nil {
		return usageError(cmd, err)
	}
	return exit(cmd, exitOf[r.State])
}

// runSignIn has a listener sign in, who reads on standard error where.
func (c *checker) runSignIn(cmd *cobra.Command, trial *diagnose.Trial) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := trial.SignIn(ctx, func(endpoint string, l *smapi.Link) {
		tell(cmd, "%s\n\n  Open      %s\n  The code  %s\n\nWaiting until you have signed in there. Ctrl-C ends it.\n\n", endpoint, l.URL, l.Code)
	})
	if err != nil {
		return usageError(cmd, err)
	}
	if err := page.New(cmd.OutOrStdout()).Show(r, c.json, func(p *page.Page) { page.Report(p, &r) }); err != nil {
		return usageError(cmd, err)
	}
	return exit(cmd, exitOf[r.State])
}

// prepare sets up what is to be tried.
func (c *checker) prepare() (*diagnose.Trial, error) {
	kind := smapi.Kind(c.credentials)
	if c.signIn {
		kind = smapi.None
	}
	switch {
	case c.signIn && (c.from != "" || c.locked != "" || c.refresh):
		return nil, errors.New("--sign-in tries no account, and cannot be combined with --from, --locked-from and --refresh")
	case c.signIn:
	case !slices.Contains(exchange.Kinds, kind):
		return nil, errors.New("--credentials has to be login, session_id, login_token or anonymous")
	case c.adapter != "" && c.config == "":
		return nil, errors.New("--adapter is for the file of --config")
	case c.locked != "" && kind == smapi.Anonymous:
		return nil, errors.New("--locked-from is an account, and players without one have none")
	case c.config == "-" && (c.from == "" || c.from == "-"):
		return nil, errors.New("standard input is either the account or the configuration")
	case c.locked == "-":
		return nil, errors.New("--locked-from has to be a file; standard input is for the account that is right")
	}
	config, err := configuration.Load(c.config, c.adapter)
	if err != nil {
		return nil, err
	}
	return diagnose.Prepare(config, c.endpoint, kind)
}

// ask tells what it costs, and asks for what is missing where there is a terminal.
func (c *checker) ask(cmd *cobra.Command, trial *diagnose.Trial) (tries diagnose.Tries, goOn bool, err error) {
	kind := smapi.Kind(c.credentials)
	tries = diagnose.Tries{Account: smapi.Credentials{Kind: kind}, Refresh: c.refresh}
	fd, asked := page.Terminal(cmd.InOrStdin())
	if !c.yes && !asked {
		return tries, false, errors.New("it costs the account a failed login, and there is no terminal to ask at: add --yes")
	}
	c.announce(cmd, trial)
	if !c.yes {
		tell(cmd, "Go on? [y/N] ")
		if answer, err := account.ReadLine(cmd.InOrStdin()); err != nil || !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
			return tries, false, nil
		}
	}
	if c.locked != "" {
		locked, err := account.ReadFile("--locked-from", c.locked, kind)
		if err != nil {
			return tries, false, err
		}
		tries.Locked = &locked
	}
	switch {
	case kind == smapi.Anonymous:
	case c.from != "" && c.from != "-":
		tries.Account, err = account.ReadFile("--from", c.from, kind)
	default:
		in := cmd.InOrStdin()
		if asked {
			if in, err = account.Prompt(page.New(cmd.ErrOrStderr()), in, fd, kind); err != nil {
				return tries, false, err
			}
		}
		tries.Account, err = account.ReadOne("standard input", in, kind)
	}
	return tries, err == nil, err
}

func (c *checker) announce(cmd *cobra.Command, trial *diagnose.Trial) {
	text := "An account is tried with its credentials, and once with wrong ones: that costs it one failed login"
	if smapi.Kind(c.credentials) == smapi.Anonymous {
		text = "A player without an account is tried"
	} else if trial.WithCharset() {
		text += ". If it has characters beyond ASCII, it is tried with form_charset utf-8 first, and no more if that fails"
	}
	if trial.WithSecret() {
		text += ". It is also tried once with a made-up client secret: where the server looks at the client first, that is no login"
	}
	if c.locked != "" {
		text += ". A locked account is tried with its credentials, which may lock it for longer"
	}
	if c.refresh {
		text += ". The refresh token that is issued is used up"
	}
	switch n := trial.WithOldService(); {
	case n == 1:
		text += ". Then it is upgraded once more by the whole handler, which is one more login, and calls getMetadata at the old service"
	case n > 1:
		text += fmt.Sprintf(". Then it is upgraded once more by each of %d handlers, which is one more login each, and calls getMetadata at their old services", n)
	}
	page.New(cmd.ErrOrStderr()).Wrapped("", "", text+". At:")
	for _, endpoint := range trial.Endpoints() {
		tell(cmd, "  %s\n", endpoint)
	}
	tell(cmd, "\n")
}
