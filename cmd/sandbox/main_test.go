package main

import (
	"context"
	"testing"
)

func TestTheTourIsAnsweredAsItShouldBe(t *testing.T) {
	if err := run(context.Background(), "../../Caddyfile.example", true); err != nil {
		t.Fatal(err)
	}
}
