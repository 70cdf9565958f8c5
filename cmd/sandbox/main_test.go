package main

import (
	"context"
	"testing"
)

func TestTheTourIsAnsweredAsItShouldBe(t *testing.T) {
	if err := run(context.Background(), "../../Caddyfile.example", true, false); err != nil {
		t.Fatal(err)
	}
}

func TestTheServicesStartForAnotherCaddy(t *testing.T) {
	if err := run(context.Background(), "../../Caddyfile.example", true, true); err != nil {
		t.Fatal(err)
	}
}
