package caddymodule

import "time"

// SetSecretInterval sets the time between two looks at the files of secrets, before there are any.
func SetSecretInterval(interval time.Duration) { secretInterval = interval }
