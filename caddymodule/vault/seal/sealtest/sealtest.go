// Package sealtest makes the keys of vaults in tests.
package sealtest

import (
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// NewKeys returns keys that nothing was sealed with.
func NewKeys(t testing.TB) *seal.Keys {
	t.Helper()
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
