package counts

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

func TestAMethodThatACallerMakesUpIsNoLabel(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(Requests)
	all := func() (series int, sum float64) {
		families, err := registry.Gather()
		if err != nil || len(families) != 1 {
			t.Fatalf("%v: %v", err, families)
		}
		for _, m := range families[0].GetMetric() {
			sum += m.GetCounter().GetValue()
		}
		return len(families[0].GetMetric()), sum
	}
	before, sum := all()
	for i := range 100 {
		Call(&smapi.Call{Method: smapi.Method(fmt.Sprint("made-up", i)), Credentials: smapi.Credentials{Kind: smapi.LoginToken}}, flow.Translated)
	}
	if after, total := all(); after != before || total-sum != 100 {
		t.Errorf("%d series have become %d, and %v of 100 are counted", before, after, total-sum)
	}
}

func TestTheFirstCertificateThatEndsCounts(t *testing.T) {
	now := time.Now()
	var s Seen
	if !s.First().IsZero() {
		t.Error("there is an end before any was seen")
	}
	s.note("a", now.Add(2*time.Hour))
	s.note("b", now.Add(3*time.Hour))
	s.note("a", now.Add(4*time.Hour)) // it was renewed
	for i := range 100 {
		s.note(fmt.Sprint("host", i), now.Add(5*time.Hour))
	}
	if got := s.First(); !got.Equal(now.Add(3*time.Hour)) || len(s.ends) > maxHosts {
		t.Errorf("the first of %d ends in %v", len(s.ends), got.Sub(now))
	}
}
