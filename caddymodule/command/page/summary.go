package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/figures"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
)

// Summary prints what became of the calls of simulate.
func Summary(p *Page, s *player.Summary) {
	lost := 0
	if s.Again != nil {
		lost = s.Again.Lost
	}
	fmt.Fprintf(p, "%s of %s in %s, in %s: %s calls/s\n", figures.Number(s.Calls+lost, "call"), figures.Number(s.Accounts, "account"),
		figures.Number(s.Households, "home"), figures.Brief(s.Seconds), figures.Short(s.CallsPerSecond))
	if had := s.Accounts - s.Calls - s.GivenUp; s.Ended && had == 0 && s.GivenUp == 0 {
		fmt.Fprintln(p, "Ended early, while upgraded accounts made their calls")
	} else if s.Ended {
		fmt.Fprintf(p, "Ended early: %s had no turn", figures.Number(had, "account"))
		if s.GivenUp > 0 {
			fmt.Fprintf(p, ", %s under way given up", figures.Number(s.GivenUp, "call"))
		}
		fmt.Fprintln(p)
	}
	if s.Calls > 0 {
		printOutcomes(p, player.Rows(), s.Outcomes)
	}
	if a := s.Again; a != nil {
		fmt.Fprintf(p, "\n%s thrown away and asked for again: %d got one, %d of them tokens\n",
			figures.Number(a.Lost, "answer"), a.Answered, a.Upgraded)
	}
	printLatency(p, s.Latency)
	printReferences(p, s.References)
	if b := s.Browsed; b != nil {
		fmt.Fprintf(p, "\nThen %s of %s in %s: %s calls/s\n", figures.Number(b.Calls, "everyday call"), figures.Number(b.Accounts, "upgraded account"),
			figures.Brief(b.Seconds), figures.Short(b.CallsPerSecond))
		if b.Calls > 0 {
			printOutcomes(p, player.EverydayRows(), b.Outcomes)
		}
		printLatency(p, b.Latency)
		printReferences(p, b.References)
	}
}

func printLatency(p *Page, l *player.Latency) {
	if l != nil {
		fmt.Fprintf(p, "\nLatency   p50 %s   p90 %s   p99 %s   max %s\n", figures.Brief(l.P50), figures.Brief(l.P90), figures.Brief(l.P99), figures.Brief(l.Max))
	}
}

func printReferences(p *Page, references []string) {
	if len(references) > 0 {
		fmt.Fprintf(p, "\nReferences for support: %s\n", strings.Join(references, ", "))
	}
}

func printOutcomes(p *Page, rows []player.Row, outcomes map[player.Outcome]*player.Count) {
	const row = "%-20s %7s %7s   "
	fmt.Fprintf(p, "\n"+row+"and\n", "The player gets", "calls", "share")
	for _, o := range rows {
		c := outcomes[o.Outcome]
		if c == nil || c.Calls == 0 {
			continue
		}
		p.Wrapped("", fmt.Sprintf(row, o.Title, fmt.Sprint(c.Calls), figures.Percent(c.Share)), o.Then)
		printReasons(p, c.Reasons)
	}
}

// maxReasons is how many reasons are printed for one outcome.
const maxReasons = 5

func printReasons(p *Page, reasons map[string]int) {
	names := slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		if i == maxReasons {
			fmt.Fprintf(p, "%28s   and %d more reasons\n", "", len(names)-i)
			return
		}
		p.Wrapped("", fmt.Sprintf("%28d   ", reasons[name]), name)
	}
}
