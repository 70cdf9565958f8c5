package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/page"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
)

// ofFleets are the flags that a sign-in has no use for.
var ofFleets = []string{"credentials", "accounts", "from", "households", "rate", "concurrency", "repeat-lost", "after"}

// runSignIn plays a listener who signs in.
func (s *simulation) runSignIn(cmd *cobra.Command) error {
	for _, flag := range ofFleets {
		if cmd.Flags().Changed(flag) {
			return usageError(cmd, fmt.Errorf("--sign-in is one listener, and cannot be combined with --%s", flag))
		}
	}
	if err := checkURL(s.url, s.mine); err != nil {
		return usageError(cmd, err)
	}
	if s.timeout < time.Millisecond || s.timeout > time.Hour {
		return usageError(cmd, errors.New("--timeout has to be from 1ms to 1h"))
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	var bar *page.Progress
	listener := &player.SignIn{
		Client: &player.Client{URL: s.url, Timeout: s.timeout, Transport: player.NewTransport(1, s.insecure)},
		Seed:   s.seed, Every: player.PollEvery, For: player.PollFor,
	}
	listener.Show = func(l player.Link) {
		shown := ""
		if !l.Show {
			shown = "   (the app would not show it)"
		}
		tell(cmd, "  Open      %s\n  The code  %s%s\n\nPolls every %v until you have signed in there. Ctrl-C ends it.\n\n", l.URL, l.Code, shown, player.PollEvery)
		bar = page.ShowProgress(cmd.ErrOrStderr(), listener.Polls, int(player.PollFor/player.PollEvery))
	}
	page.New(cmd.ErrOrStderr()).Wrapped("", "", "Plays an app whose listener signs in. At:")
	tell(cmd, "  %s\n\n", s.url)
	summary := listener.Run(ctx)
	if bar != nil {
		bar.End()
	}
	if err := page.New(cmd.OutOrStdout()).Show(summary, s.json, func(p *page.Page) { page.SignIn(p, &summary) }); err != nil {
		tell(cmd, "Error: %v\n", err)
		return exit(cmd, exitFailed)
	}
	switch summary.Outcome {
	case player.SignedIn:
		return nil
	case player.NotLinked:
		return exit(cmd, exitSignedOut)
	}
	return exit(cmd, exitFailed)
}
