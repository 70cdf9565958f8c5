// Package figures writes numbers for people.
package figures

import (
	"fmt"
	"strings"
	"time"
)

// Number is so many of something: 1 call, 2 calls.
func Number(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprint(n, " ", of)
}

// Percent never rounds something to nothing, nor most to all.
func Percent(share float64) string {
	switch p := 100 * share; {
	case p > 0 && p < 0.1:
		return "<0.1%"
	case p > 99.9 && p < 100:
		return ">99.9%"
	default:
		return fmt.Sprintf("%.1f%%", p)
	}
}

// Lasting is how long something lasts or is ago: 3.4 s, 12m, 3 days.
func Lasting(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Minute:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%.1f s", s)
}

// Brief is how long a call took: 12 ms, 3.4 s.
func Brief(s float64) string {
	switch {
	case s < 0.001:
		return Short(s*1e6) + " µs"
	case s < 1:
		return Short(s*1e3) + " ms"
	}
	return Short(s) + " s"
}

// Short gives small numbers a decimal.
func Short(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}

// Bar is in at most width columns: [=====>    ] 450 of 1000, 12s left
func Bar(done, all int, took time.Duration, width int) string {
	text := fmt.Sprintf(" %*d of %d", len(fmt.Sprint(all)), done, all)
	if done > 0 && took > time.Second {
		text += fmt.Sprintf(", %v left", (took * time.Duration(all-done) / time.Duration(done)).Round(time.Second))
	}
	room := width - len(text) - 2
	if room < 3 {
		return text[:max(0, min(len(text), width))]
	}
	room = min(room, 40)
	full := room * done / all
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]" + text
}
