package counts

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
)

// Seen is when the certificates end that an authorization server has shown, by host. The zero value has seen none.
type Seen struct {
	mu   sync.Mutex
	ends map[string]time.Time
}

// maxHosts bounds them: an issuer names few.
const maxHosts = 8

// Watch returns a transport that sees the certificates of its answers.
func (s *Seen) Watch(next http.RoundTripper) http.RoundTripper { return watching{next, s} }

type watching struct {
	http.RoundTripper
	seen *Seen
}

func (w watching) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := w.RoundTripper.RoundTrip(r)
	if err == nil && response.TLS != nil && len(response.TLS.PeerCertificates) > 0 {
		w.seen.note(r.URL.Host, response.TLS.PeerCertificates[0].NotAfter)
	}
	return response, err
}

func (s *Seen) note(host string, end time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		s.ends = make(map[string]time.Time)
	}
	if _, known := s.ends[host]; known || len(s.ends) < maxHosts {
		s.ends[host] = end
	}
}

// First is the earliest end, zero where none was seen.
func (s *Seen) First() (first time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, end := range s.ends {
		first = earlier(first, end)
	}
	return first
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Ends collects which secrets are stale and when certificates end. It returns what there is at each token endpoint.
type Ends func(now time.Time) (secrets []secret.Status, servers []time.Time)

var (
	staleDesc = prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, "secrets_stale"),
		"Secrets whose file cannot be read any more, so that the last good value is in force.", nil, nil)
	endDesc = prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, "certificate_end_timestamp_seconds"),
		"When the first certificate ends: of the client, or of the authorization server as it was last seen.", []string{"of"}, nil)
)

// Describe tells the metrics.
func (Ends) Describe(descs chan<- *prometheus.Desc) {
	descs <- staleDesc
	descs <- endDesc
}

// Collect tells how they are. A certificate that is not known has no series.
func (e Ends) Collect(values chan<- prometheus.Metric) {
	secrets, servers := e(time.Now())
	var client, server time.Time
	stale := 0.0
	for _, s := range secrets {
		if s.Stale {
			stale++
		}
		if s.Expires != nil {
			client = earlier(client, *s.Expires)
		}
	}
	for _, end := range servers {
		server = earlier(server, end)
	}
	values <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, stale)
	for of, end := range map[string]time.Time{"client": client, "server": server} {
		if !end.IsZero() {
			values <- prometheus.MustNewConstMetric(endDesc, prometheus.GaugeValue, float64(end.Unix()), of)
		}
	}
}
