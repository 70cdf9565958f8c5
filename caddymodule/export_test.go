package caddymodule

import (
	"context"
	"time"
)

// SetClock sets what the token endpoints that are not in use yet go by.
func SetClock(now func() time.Time) { clock = now }

// SetSecretInterval sets the time between two looks at the files of secrets, before there are any.
func SetSecretInterval(interval time.Duration) { secretInterval = interval }

// SetLastLook sets how long the end of the last configuration waits for the history, until restore.
func SetLastLook(d time.Duration) (restore func()) {
	before := lastLook
	lastLook = d
	return func() { lastLook = before }
}

// Forget has all vaults look for what nobody uses, as they do each hour.
func Forget(ctx context.Context) {
	for _, v := range vaults() {
		v.forgotten(v.Vault.Forget(ctx))
	}
}
