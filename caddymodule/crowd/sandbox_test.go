package crowd_test

import (
	"os"
	"os/exec"
	"testing"
)

func TestTheSandboxsTourIsAnsweredAsItShouldBe(t *testing.T) {
	for name, arguments := range map[string][]string{"tour": {"-once"}, "services for another Caddy": {"-once", "-services"}} {
		t.Run(name, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			tour := exec.CommandContext(t.Context(), self, arguments...)
			tour.Dir = "../.." // from where the documents run it
			tour.Env = append(os.Environ(), asSandbox+"=1")
			if said, err := tour.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
}
