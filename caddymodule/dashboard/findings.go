package dashboard

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
)

// Finding is something that is wrong: one sentence, and where the handbook says what to do.
type Finding struct {
	// Endpoint is which one, blank for none of them.
	Endpoint string `json:"endpoint,omitempty"`
	Says     string `json:"says"`
	Link     string `json:"link"`
	Severe   bool   `json:"severe"`
}

const handbook = "https://github.com/smapi-tools/caddy-smapi-upgrade/blob/main/docs/handbook.md#"

// certificateEnds is how long before its end a certificate is a finding, as in the alerts.
const certificateEnds = 14 * 24 * time.Hour

// longWait is for how long a call may wait before it is one, in seconds. Players wait for 20.
const longWait = 5

func (v *Value) findings() []Finding {
	found := []Finding{}
	if len(v.Endpoints) == 0 {
		found = append(found, Finding{Severe: true, Link: handbook + "smapiupgradenotloaded",
			Says: "The configuration that runs has no smapi_upgrade: nobody is upgraded."})
	}
	for i := range v.Endpoints {
		e := &v.Endpoints[i]
		e.findings(v.At, func(severe bool, link, says string, args ...any) {
			found = append(found, Finding{Endpoint: e.Endpoint, Says: fmt.Sprintf(says, args...), Link: handbook + link, Severe: severe})
		})
	}
	for _, vault := range v.Vaults {
		if vault.Failing {
			found = append(found, Finding{Severe: true, Link: handbook + "smapiupgradevaultfailing",
				Says: "The storage of the vault fails: upgrades and refreshes are asked to try again later."})
		}
		if vault.Unwritten > 0 {
			found = append(found, Finding{Severe: true, Link: handbook + "smapiupgradevaultfailing",
				Says: fmt.Sprintf("%d objects of the vault are in memory alone: do not stop this instance.", vault.Unwritten)})
		}
	}
	return found
}

func (e *Endpoint) findings(now time.Time, add func(severe bool, link, says string, args ...any)) {
	fuse := func(f *FuseStatus, of string) {
		if f.Blown && f.Blew != nil {
			add(true, "smapiupgradefuseblown", "The fuse of %s is blown: %d of %d accounts were refused%s. Refusals are not believed, and nobody is signed out by them.",
				of, f.Blew.Rejected, f.Blew.Tried, f.Blew.Mostly())
		}
	}
	fuse(&e.LoginFuse, "upgrades")
	fuse(&e.RefreshFuse, "refreshes")
	if e.OldService != nil {
		fuse(&e.OldService.Fuse, "the old service")
	}
	switch e.Breaker {
	case "open":
		add(true, "smapiupgradebreakeropen", "The token endpoint has been failing and is left alone: players are asked to try again later.")
	case "half-open":
		add(true, "smapiupgradebreakeropen", "The token endpoint has been failing and is tried again.")
	}
	if e.HoldSeconds > 0 {
		add(false, "smapiupgradeheldback", "The token endpoint has asked to wait, for %.0f s more.", max(1, math.Round(e.HoldSeconds)))
	}
	if e.Waiting > 0 && e.OldestWaitingSeconds >= longWait {
		add(false, "smapiupgradequeue", "%s calls wait for the token endpoint, the oldest for %.0f s.", humanize.Comma(int64(e.Waiting)), e.OldestWaitingSeconds)
	}
	if n := e.Last5Minutes[flow.Misconfigured]; n > 0 {
		add(true, "smapiupgrademisconfigured", "%s calls of the last 5 minutes failed because something is misconfigured%s.", humanize.Comma(int64(n)), e.fix())
	}
	if n := e.Last5Minutes[flow.Overloaded]; n > 0 {
		add(false, "smapiupgradeturnedaway", "%s calls of the last 5 minutes had no place at the token endpoint in time.", humanize.Comma(int64(n)))
	}
	if n := e.Last5Minutes[flow.Unavailable]; n > 0 && e.Breaker == "closed" && 20*n >= n+e.Last5Minutes[flow.Upgraded]+e.Last5Minutes[flow.Refreshed] {
		add(false, "smapiupgradefailing", "%s calls of the last 5 minutes had no good answer of the token endpoint.", humanize.Comma(int64(n)))
	}
	if f := &e.LoginFuse; !f.Blown && f.Tried >= 20 && 5*f.Rejected >= f.Tried {
		add(false, "smapiupgraderejectedhigh", "%d of %d accounts that were tried lately were refused%s.", f.Rejected, f.Tried, f.Mostly())
	}
	certificate := func(end *time.Time, whose string) {
		switch {
		case end == nil || end.Sub(now) > certificateEnds:
		case end.Before(now):
			add(true, "smapiupgradecertificateends", "The %s has ended on %s.", whose, end.UTC().Format("2 January 2006"))
		default:
			add(true, "smapiupgradecertificateends", "The %s ends on %s.", whose, end.UTC().Format("2 January 2006"))
		}
	}
	for _, s := range e.Secrets {
		if s.Stale {
			add(true, "smapiupgradesecretstale", "The file of %s cannot be read any more: the last good value is in force until a restart.", s.Field)
		}
		certificate(s.Expires, "client certificate")
	}
	certificate(e.ServerCertificateEnds, "certificate of the token endpoint")
}

// fix is the remedy that the log names, to be put behind a sentence.
func (e *Endpoint) fix() string {
	if e.Misconfigured == nil || e.Misconfigured.Fix == "" {
		return ""
	}
	return ": " + e.Misconfigured.Fix
}
