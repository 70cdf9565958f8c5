package caddymodule

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// countRequests returns the counter of the calls by outcome and kind of credentials. All handlers of a registry
// share it.
func countRequests(registry prometheus.Registerer) *prometheus.CounterVec {
	return registerOrExisting(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy",
		Subsystem: "smapi_upgrade",
		Name:      "requests_total",
		Help:      "Calls of players that were answered or observed, by outcome and kind of credentials.",
	}, []string{"outcome", "credentials"}))
}

// registerOrExisting returns the collector that is registered under the name of c, which is c if there was none.
func registerOrExisting[C prometheus.Collector](registry prometheus.Registerer, c C) C {
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](registry.Register(c)); ok {
		return already.ExistingCollector.(C)
	}
	return c
}

func (h *Handler) count(o outcome, d decision) {
	h.counted.WithLabelValues(string(o), string(d.call.Credentials.Kind)).Inc()
}
