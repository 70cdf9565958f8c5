//go:build race

package caddymodule_test

import "time"

// The race detector makes everything some ten times slower, so that the wave is smaller where it runs.
const (
	waveAccounts = 1000
	waveEach     = 50 * time.Millisecond

	waveSlack    = 2.0 // times the ideal time
	waveCapacity = 0.7 // of the endpoint's
	waveEarly    = 0.2 // of those turned away

	recovery = 20 * time.Second
)
