//go:build !race

package caddymodule_test

import "time"

// A wave of so many accounts, at an endpoint that takes so long for each.
const (
	waveAccounts = 5000
	waveEach     = 20 * time.Millisecond

	waveSlack    = 1.3  // times the ideal time
	waveCapacity = 0.95 // of the endpoint's
	waveEarly    = 0.5  // of those turned away

	recovery = 10 * time.Second // from the last fault until all are upgraded
)
