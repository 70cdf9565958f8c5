package page

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/figures"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
)

// Status prints a status as people read it, at most 80 columns wide but for the URL.
func Status(p *Page, s *dashboard.Status) {
	if len(s.Endpoints) == 0 {
		fmt.Fprintln(p, "The Caddy that runs has no smapi_upgrade.")
	}
	for i := range s.Endpoints {
		if i > 0 {
			fmt.Fprintln(p)
		}
		printEndpoint(p, &s.Endpoints[i])
	}
	for i := range s.Vaults {
		printVault(p, &s.Vaults[i])
	}
}

func printVault(p *Page, v *dashboard.VaultStatus) {
	records := "not counted yet"
	if v.Records != nil {
		records = humanize.Comma(*v.Records)
	}
	fmt.Fprintf(p, "\nvault %s\n  %-14s %s\n", v.KeyFile, "records", records)
	if c := v.Came; c != nil {
		about := ""
		if c.About {
			about = "about "
		}
		fmt.Fprintf(p, "  %-14s %s%s upgraded, %s signed in, %s from before\n", "of these", about,
			humanize.Comma(int64(c.Upgraded)), humanize.Comma(int64(c.SignedIn)), humanize.Comma(int64(c.TakenIn)))
	}
	if v.Failing {
		fmt.Fprintf(p, "  %-14s FAILING: upgrades and refreshes get Server.ServiceUnavailable\n", "storage")
	}
	if v.Unwritten > 0 {
		fmt.Fprintf(p, "  %-14s %s IN MEMORY ALONE: do not stop this instance\n", "unwritten", humanize.Comma(int64(v.Unwritten)))
	}
}

func printEndpoint(p *Page, e *dashboard.EndpointStatus) {
	title := e.Endpoint
	if title == "" {
		title = "No token endpoint: the modes observe and reauthorize need none"
	}
	fmt.Fprintln(p, title)
	if e.ClientID != "" {
		fmt.Fprintln(p, "as "+e.ClientID)
	}
	if !e.Since.IsZero() {
		fmt.Fprintln(p, "counted since "+e.Since.UTC().Format("2006-01-02 15:04 MST"))
	}
	fmt.Fprintln(p)
	row(p, "", "last 5 min", "in all", "last 5 min, each 10 s")
	for _, o := range flow.Outcomes() {
		if e.SinceStart[o] > 0 || o == flow.Upgraded {
			row(p, o.String(), humanize.Comma(int64(e.Last5Minutes[o])), humanize.Comma(int64(e.SinceStart[o])), history(e, o))
		}
	}
	if e.Endpoint == "" {
		return
	}
	fmt.Fprintf(p, "\n  exchanges      %d in flight, %d waiting", e.InFlight, e.Waiting)
	if e.Waiting > 0 {
		fmt.Fprintf(p, ", the oldest for %s", figures.Lasting(e.OldestWaitingSeconds))
	}
	if x := e.Exchanges; x != nil {
		fmt.Fprintf(p, "\n                 %s in 5 min: median %s, 95%% within %s, longest %s",
			humanize.Comma(int64(x.Exchanges)), figures.Brief(x.Median), figures.Brief(x.Most), figures.Brief(x.Longest))
	}
	fmt.Fprintf(p, "\n  breaker        %s\n", map[string]string{
		"closed":    "closed: all is well",
		"open":      "OPEN: the token endpoint has been failing and is left alone",
		"half-open": "HALF-OPEN: the token endpoint has been failing and is tried",
	}[e.Breaker])
	if e.HoldSeconds > 0 {
		fmt.Fprintf(p, "  hold           for %s more, as the token endpoint has asked\n", figures.Lasting(e.HoldSeconds))
	}
	printFix(p, e)
	printFuse(p, "upgrades", &e.LoginFuse)
	printFuse(p, "refreshes", &e.RefreshFuse)
	if o := e.OldService; o != nil {
		fmt.Fprintf(p, "  old service    %d sessions\n", o.Sessions)
		printFuse(p, "the old service", &o.Fuse)
	}
	for i := range e.Secrets {
		label := "secrets"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(p, "  %-14s %s\n", label, secretLine(&e.Secrets[i]))
	}
}

// printFix says what the log says of the last call that failed because something is misconfigured: in red while there are more.
func printFix(p *Page, e *dashboard.EndpointStatus) {
	m := e.Misconfigured
	if m == nil {
		return
	}
	says := m.Cause
	if m.Fix != "" {
		says += "; " + m.Fix
	}
	says += fmt.Sprintf(" (last at %s, reference %s)", m.At.UTC().Format("2006-01-02 15:04 MST"), m.Reference)
	if e.Last5Minutes[flow.Misconfigured] > 0 {
		p.alarm("misconfigured  ", says)
		return
	}
	p.Wrapped("  ", "misconfigured  ", says)
}

// alarm prints a text in red, as Wrapped does.
func (p *Page) alarm(lead, says string) {
	var lines strings.Builder
	(&Page{Out: &lines, Width: p.Width}).Wrapped("  ", lead, says)
	for line := range strings.Lines(lines.String()) {
		p.Colored(Red, strings.TrimSuffix(line, "\n"))
		fmt.Fprintln(p)
	}
}

// row is one of a table of counts.
func row(p *Page, title, lately, total, history string) {
	fmt.Fprintln(p, strings.TrimRight(fmt.Sprintf("  %-14s %11s %15s   %s", title, lately, total, history), " "))
}

// history is a bar for each step, as high as its share of the highest.
func history(e *dashboard.EndpointStatus, o flow.Outcome) string {
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
	text := s.Field + " read " + figures.Lasting(s.ReadSecondsAgo) + " ago"
	if s.Field == "transport" {
		text = "client certificate read " + figures.Lasting(s.ReadSecondsAgo) + " ago"
	}
	if s.Expires != nil {
		text += ", ends " + s.Expires.UTC().Format("2006-01-02 15:04 MST")
	}
	if s.Stale {
		text += "\n                 ITS FILE CANNOT BE READ ANY MORE"
	}
	return text
}

// printFuse says that a fuse is blown, in red. A whole one is what is expected.
func printFuse(p *Page, of string, f *dashboard.FuseStatus) {
	if !f.Blown {
		return
	}
	says := "BLOWN for " + of + ":"
	if b := f.Blew; b != nil && b.Tried > 0 {
		says += fmt.Sprintf(" %d of %d accounts were rejected (%s, of %g%% at most)%s.", b.Rejected, b.Tried, share(b), f.Percent, b.Mostly())
	}
	if f.Tried > 0 {
		says += fmt.Sprintf(" Since then %d of %d (%s)%s.", f.Rejected, f.Tried, share(&f.FuseTries), f.Mostly())
	}
	says += " Rejections are doubted: see what has changed at the authorization server"
	p.alarm("fuse           ", says)
}

func share(t *dashboard.FuseTries) string {
	return fmt.Sprintf("%.0f%%", 100*float64(t.Rejected)/float64(t.Tried))
}
