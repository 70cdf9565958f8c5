//go:build !nobadger

// Package integration runs Caddy with smapi_upgrade in front of real OAuth servers, and plays players.
//
// Caddy can link badger, a database that it does without in its releases too, and which does not compile beside
// fosite. So these tests need the tag with which Caddy's releases are built:
//
//	go test -race -tags nobadger ./...
package integration

import "testing"

func TestTagIsNeeded(t *testing.T) {
	t.Fatal("run these tests by: go test -race -tags nobadger ./...")
}
