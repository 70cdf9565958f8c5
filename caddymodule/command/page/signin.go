package page

import (
	"fmt"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/figures"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
)

// becomes says in words what became of a sign-in.
var becomes = map[player.Outcome]string{
	player.SignedIn:       "signed in: the player has its tokens",
	player.NotLinked:      "refused, or the code has expired (Client.NOT_LINKED_FAILURE): the listener begins again",
	player.NoLink:         "the service does not say where to sign in: listeners who have to are stuck. See sign_in, and whether the home is among households",
	player.TooLate:        "nobody signed in for as long as a player asks",
	player.GaveUp:         "ended early",
	player.SignInAgain:    "a blank pair, upon which the app gives up",
	player.SessionExpired: "Client.AuthTokenExpired, which has no meaning here",
	player.TryAgain:       "Server.ServiceUnavailable: it is worth another try",
	player.AnotherFault:   "another fault, upon which the app gives up",
	player.NotAccepted:    "an answer that an app does not have to accept",
	player.NotSMAPI:       "an answer that is no SOAP",
	player.NoAnswer:       "no answer",
}

// SignIn prints what became of a sign-in.
func SignIn(p *Page, s *player.SignInSummary) {
	says := becomes[s.Outcome]
	if s.Reason != "" {
		says += ". Why: " + s.Reason
	}
	p.Wrapped("", "", fmt.Sprintf("After %s: %s.", figures.Number(s.Polls, "poll"), says))
	if s.Reference != "" {
		fmt.Fprintf(p, "For support: %s\n", s.Reference)
	}
}
