package page

import (
	"fmt"
	"strings"
	"time"
)

func capitalized(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// Number is so many of something: 1 call, 2 calls.
func Number(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprint(n, " ", of)
}

// percent never rounds something to nothing, nor most to all.
func percent(share float64) string {
	switch p := 100 * share; {
	case p > 0 && p < 0.1:
		return "<0.1%"
	case p > 99.9 && p < 100:
		return ">99.9%"
	default:
		return fmt.Sprintf("%.1f%%", p)
	}
}

// lasting is how long something lasts or is ago: 3.4 s, 12m, 3 days.
func lasting(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Minute:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%.1f s", s)
}

// brief is how long a call took: 12 ms, 3.4 s.
func brief(s float64) string {
	switch {
	case s < 0.001:
		return figures(s*1e6) + " µs"
	case s < 1:
		return figures(s*1e3) + " ms"
	}
	return figures(s) + " s"
}

// figures gives small numbers a decimal.
func figures(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}
