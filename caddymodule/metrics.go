package caddymodule

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/counts"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

const (
	metricsNamespace = "caddy"
	metricsSubsystem = "smapi_upgrade"
)

// metrics are those of the process. Caddy has a registry for each configuration: registered in all of them, the
// same collectors keep counting when it is reloaded, and for all sites.
var metrics = struct {
	durations *prometheus.HistogramVec
	replayed  prometheus.Counter
	peeked    prometheus.Counter
	storage   *prometheus.CounterVec
	stored    *prometheus.HistogramVec
	endpoints endpointsCollector
	vaults    vaultsCollector
}{
	durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: metricsNamespace,
		Subsystem: metricsSubsystem,
		Name:      "exchange_duration_seconds",
		Help:      "How long exchanges at token endpoints took, without the wait for a place, by outcome.",
		Buckets:   []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
	}, []string{"outcome"}),
	replayed: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: metricsNamespace,
		Subsystem: metricsSubsystem,
		Name:      "replayed_total",
		Help:      "Calls that got the result of the same call again, or shared it.",
	}),
	peeked: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: metricsNamespace,
		Subsystem: metricsSubsystem,
		Name:      "peeked_bytes_total",
		Help:      "Bytes of request bodies that were read to find out whether they are calls.",
	}),
	storage: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace,
		Subsystem: metricsSubsystem,
		Name:      "vault_operations_total",
		Help:      "Operations of vaults at the storage, by operation and result.",
	}, []string{"operation", "result"}),
	stored: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: metricsNamespace,
		Subsystem: metricsSubsystem,
		Name:      "vault_operation_duration_seconds",
		Help:      "How long operations of vaults at the storage took, by operation.",
		Buckets:   []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5},
	}, []string{"operation"}),
}

// durationsBy are the series that there are. They begin at 0, so that the first of its kind is seen to be one more.
var durationsBy = make(map[flow.Outcome]prometheus.Observer)

func init() {
	for _, operation := range store.Operations {
		for _, result := range store.Results {
			metrics.storage.WithLabelValues(operation, result)
		}
		metrics.stored.WithLabelValues(operation)
	}
	for _, o := range flow.Outcomes() {
		if o.Row().Asked {
			durationsBy[o] = metrics.durations.WithLabelValues(o.String())
		}
	}
}

// observeStorage counts an operation of a vault.
func observeStorage(operation, result string, took time.Duration) {
	metrics.storage.WithLabelValues(operation, result).Inc()
	metrics.stored.WithLabelValues(operation).Observe(took.Seconds())
}

// registerMetrics has the registry of a configuration show the metrics of the process.
func registerMetrics(registry prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{counts.Requests, counts.Ends(ends), counts.Sessions, counts.Households, counts.Old(old), metrics.durations, metrics.replayed, metrics.peeked, metrics.storage, metrics.stored, metrics.endpoints, metrics.vaults} {
		if err := registry.Register(c); err != nil {
			if _, already := errors.AsType[prometheus.AlreadyRegisteredError](err); !already {
				return err
			}
		}
	}
	return nil
}

// count counts a call.
func count(d *flow.Decision) {
	counts.Call(d.Call, d.Outcome)
	r := &d.Result
	switch {
	case r.Class == "":
	case r.Replayed:
		metrics.replayed.Inc()
	case r.Took > 0:
		if durations := durationsBy[d.Outcome]; durations != nil {
			durations.Observe(r.Took.Seconds())
		}
	}
}

// endpointsCollector collects how the token endpoints in use are when it is asked.
type endpointsCollector struct{}

var (
	inFlightDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "exchanges_in_flight"),
		"Exchanges that are under way at token endpoints.", nil, nil)
	waitingDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "exchanges_waiting"),
		"Exchanges that wait for a place at a token endpoint.", nil, nil)
	breakerDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "breaker_open"),
		"Token endpoints that are left alone, because they have been failing.", nil, nil)
	accountsDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "accounts"),
		"Distinct accounts by how their last exchange within five minutes ended, at most 512 of each end at each token endpoint.",
		[]string{"exchange", "result"}, nil)
	exchangingDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "handlers_exchanging"),
		"Handlers that take calls with these credentials to a token endpoint.", []string{"credentials"}, nil)
	holdsDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "holds"),
		"Token endpoints that have asked to hold back, so that no exchange goes there now.", nil, nil)
	fuseDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "fuses_blown"),
		"Fuses that are blown, so that rejections are doubted. Each token endpoint has one for logins, one for refreshes and one for what the old service refuses.", nil, nil)
)

func (endpointsCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- inFlightDesc
	descs <- waitingDesc
	descs <- breakerDesc
	descs <- holdsDesc
	descs <- fuseDesc
	descs <- accountsDesc
	descs <- exchangingDesc
}

func (endpointsCollector) Collect(values chan<- prometheus.Metric) {
	var inFlight, waiting, open, held, blown float64
	var upgrades, refreshes [len(counts.Results)]int
	exchanging := map[smapi.Kind]int{}
	for _, e := range endpoints() {
		status := e.pacing()
		inFlight += float64(status.InFlight)
		waiting += float64(status.Waiting)
		if status.Breaker != "closed" { // half-open, it is left alone but for a few tries
			open++
		}
		if status.Hold.After(time.Now()) {
			held++
		}
		for _, fuse := range []*pacing.Fuse{e.LoginFuse, e.RefreshFuse, e.OldFuse} {
			if fuse.Blown() {
				blown++
			}
		}
		for end, n := range e.UpgradeAccounts.Count() {
			upgrades[end] += n
		}
		for end, n := range e.RefreshAccounts.Count() {
			refreshes[end] += n
		}
		e.countExchanging(exchanging)
	}
	values <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, inFlight)
	values <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, waiting)
	values <- prometheus.MustNewConstMetric(breakerDesc, prometheus.GaugeValue, open)
	values <- prometheus.MustNewConstMetric(holdsDesc, prometheus.GaugeValue, held)
	values <- prometheus.MustNewConstMetric(fuseDesc, prometheus.GaugeValue, blown)
	for end, result := range counts.Results {
		values <- prometheus.MustNewConstMetric(accountsDesc, prometheus.GaugeValue, float64(upgrades[end]), "upgrade", result)
		values <- prometheus.MustNewConstMetric(accountsDesc, prometheus.GaugeValue, float64(refreshes[end]), "refresh", result)
	}
	for _, kind := range exchange.Kinds {
		values <- prometheus.MustNewConstMetric(exchangingDesc, prometheus.GaugeValue, float64(exchanging[kind]), string(kind))
	}
}

// ends are of all secrets, and of the certificates that token endpoints have shown.
func ends(now time.Time) (secrets []secret.Status, servers []time.Time) {
	for _, e := range endpoints() {
		secrets, servers = append(secrets, e.secretStatuses(now)...), append(servers, e.seen.First())
	}
	return secrets, servers
}

// old is what there is of old services.
func old() (sessions int, accounts [len(counts.Results)]int) {
	for _, e := range endpoints() {
		sessions += e.sessions.Len()
		for end, n := range e.OldAccounts.Count() {
			accounts[end] += n
		}
	}
	return sessions, accounts
}

// vaultsCollector collects how the vaults in use are when it is asked.
type vaultsCollector struct{}

var (
	recordsDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "vault_records"),
		"Records in vaults, as of the last day. It is there once they have been counted.", nil, nil)
	unwrittenDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "vault_unwritten"),
		"Objects that could not be written to the storage yet, and are in memory alone.", nil, nil)
	failingDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "vaults_failing"),
		"Vaults whose storage failed after it was last written to.", nil, nil)
)

func (vaultsCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- recordsDesc
	descs <- unwrittenDesc
	descs <- failingDesc
}

func (vaultsCollector) Collect(values chan<- prometheus.Metric) {
	var records, unwritten, failing float64
	counted := false
	for _, v := range vaults() {
		if n := v.records.Load(); n != nil {
			records, counted = records+float64(n.Records), true
		}
		unwritten += float64(v.Pending())
		if v.Failing() {
			failing++
		}
	}
	if counted {
		values <- prometheus.MustNewConstMetric(recordsDesc, prometheus.GaugeValue, records)
	}
	values <- prometheus.MustNewConstMetric(unwrittenDesc, prometheus.GaugeValue, unwritten)
	values <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, failing)
}
