package page

import (
	"fmt"
	"maps"
	"slices"

	"github.com/dustin/go-humanize"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// VaultLine is what came of one vault.
type VaultLine interface {
	Print(*Page)

	// Bad is how many records are damaged or sealed by an unknown key.
	Bad() int
}

// VaultSummary is what `vault status` has counted. Opened tells that each record was opened.
type VaultSummary struct {
	KeyFile string `json:"key_file"`
	vault.Summary
	Opened bool `json:"opened"`
}

// Bad is how many could not be opened.
func (s VaultSummary) Bad() int { return s.Unreadable }

// Print prints it.
func (s VaultSummary) Print(p *Page) {
	fmt.Fprintf(p, "%s\n  %-22s %s\n", s.KeyFile, "records", humanize.Comma(int64(s.Records)))
	names := [...]string{"within a day", "within a week", "within a month", "within a year"}
	for i, n := range s.Written {
		fmt.Fprintf(p, "    %-20s %s\n", names[i], humanize.Comma(int64(n)))
	}
	fmt.Fprintf(p, "    %-20s %s\n", "before", humanize.Comma(int64(s.Older)))
	if !s.Opened {
		return
	}
	for _, kid := range slices.Sorted(maps.Keys(s.Kids)) {
		fmt.Fprintf(p, "  sealed by %-12s %s\n", kid, humanize.Comma(int64(s.Kids[kid])))
	}
	fmt.Fprintf(p, "  %-22s %s\n", "unreadable", humanize.Comma(int64(s.Unreadable)))
}

// VaultForgot is what `vault forget` has removed.
type VaultForgot struct {
	KeyFile   string `json:"key_file"`
	Forgotten int    `json:"forgotten"`
}

// Bad is how many could not be opened.
func (VaultForgot) Bad() int { return 0 }

// Print prints it.
func (f VaultForgot) Print(p *Page) {
	fmt.Fprintf(p, "%s\n  %-22s %s\n", f.KeyFile, "records forgotten", humanize.Comma(int64(f.Forgotten)))
}

// VaultRotated is what `vault rotate` has done.
type VaultRotated struct {
	KeyFile string `json:"key_file"`
	vault.Rotated
}

// Bad is how many could not be opened.
func (r VaultRotated) Bad() int { return r.Unreadable }

// Print prints it.
func (r VaultRotated) Print(p *Page) {
	fmt.Fprintf(p, "%s\n  %-22s %s\n  %-22s %s\n  %-22s %s\n", r.KeyFile, "records", humanize.Comma(int64(r.Seen)),
		"sealed anew", humanize.Comma(int64(r.Sealed)), "unreadable", humanize.Comma(int64(r.Unreadable)))
}
