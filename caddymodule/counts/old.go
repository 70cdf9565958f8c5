package counts

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
)

// SessionResult is what came of asking an old service for a session.
type SessionResult string

// The values of SessionResult.
const (
	SessionBegun   SessionResult = "begun"
	SessionRenewed SessionResult = "renewed"
	SessionRefused SessionResult = "refused"
	SessionFailed  SessionResult = "failed"
)

// End is what it says of the account.
func (r SessionResult) End() pacing.End {
	switch r {
	case SessionBegun, SessionRenewed:
		return pacing.Accepted
	case SessionRefused:
		return pacing.Rejected
	}
	return pacing.Failed
}

// Sessions are those of the process.
var Sessions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: namespace,
	Subsystem: subsystem,
	Name:      "old_sessions_total",
	Help:      "Sessions that were asked for at old services, by result: begun, renewed because the last one was refused, refused, failed.",
}, []string{"result"})

func init() {
	for _, by := range households.Differences {
		Households.WithLabelValues(string(by))
	}
	for _, r := range []SessionResult{SessionBegun, SessionRenewed, SessionRefused, SessionFailed} {
		Sessions.WithLabelValues(string(r))
	}
}

// Households are calls of upgraded homes that name another home than their token's.
var Households = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: namespace,
	Subsystem: subsystem,
	Name:      "old_household_differs_total",
	Help:      "Calls of upgraded homes whose householdId is not that of the upgrade, by what differs: suffix, or home. They are served all the same.",
}, []string{"differs"})

// Differs counts a call, unless it names the home of its token.
func Differs(by households.Difference) {
	if by != households.None {
		Households.WithLabelValues(string(by)).Inc()
	}
}

// Session counts one that was asked for.
func Session(r SessionResult) { Sessions.WithLabelValues(string(r)).Inc() }

// Results are the ends of trials, as the label of accounts says them.
var Results = [...]string{pacing.Accepted: "accepted", pacing.Rejected: "rejected", pacing.Failed: "failed"}

// Old collects how many sessions at old services are known, and distinct accounts by what those say of them.
type Old func() (sessions int, accounts [len(Results)]int)

var (
	sessionsDesc = prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, "old_sessions"),
		"Accounts whose session at the old service is known.", nil, nil)
	oldAccountsDesc = prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, "old_accounts"),
		"Distinct accounts by what the old service last said of them within five minutes, to a getSessionId or a call with a login, at most 512 of each for each token endpoint.",
		[]string{"result"}, nil)
)

// Describe tells the metrics.
func (Old) Describe(descs chan<- *prometheus.Desc) {
	descs <- sessionsDesc
	descs <- oldAccountsDesc
}

// Collect tells how they are.
func (o Old) Collect(values chan<- prometheus.Metric) {
	sessions, accounts := o()
	values <- prometheus.MustNewConstMetric(sessionsDesc, prometheus.GaugeValue, float64(sessions))
	for end, result := range Results {
		values <- prometheus.MustNewConstMetric(oldAccountsDesc, prometheus.GaugeValue, float64(accounts[end]), result)
	}
}
