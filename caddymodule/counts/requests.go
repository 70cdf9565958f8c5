// Package counts has metrics that need much to say: requests by what became of them, the ends of secrets and certificates, and
// what old services say.
package counts

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

const (
	namespace = "caddy"
	subsystem = "smapi_upgrade"
)

// Requests are those of the process.
var Requests = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: namespace,
	Subsystem: subsystem,
	Name:      "requests_total",
	Help:      "Requests by SMAPI method, outcome and kind of credentials.",
}, []string{"method", "outcome", "credentials"})

// Other is the method of requests that are no call about credentials: what a caller makes up is no label.
const Other smapi.Method = "other"

// kinds are the credentials that the calls of a method have.
var kinds = map[smapi.Method][]smapi.Kind{
	smapi.GetDeviceAuthToken: exchange.Kinds,
	smapi.GetSessionID:       {smapi.Login},
	smapi.RefreshAuthToken:   {smapi.LoginToken},
	smapi.Poll:               {smapi.None},
	smapi.GetAppLink:         {smapi.None},
	smapi.GetDeviceLinkCode:  {smapi.None},
	Other:                    {smapi.None, smapi.LoginToken}, // these are of homes with a token of ours
}

type series struct {
	method  smapi.Method
	outcome flow.Outcome
	kind    smapi.Kind
}

// The series that there are begin at 0, so that the first of its kind is seen to be one more.
var (
	bySeries  = map[series]prometheus.Counter{}
	forwarded prometheus.Counter
)

func init() {
	for method, all := range kinds {
		for _, kind := range all {
			for _, o := range flow.Outcomes() {
				bySeries[series{method, o, kind}] = Requests.WithLabelValues(string(method), o.String(), string(kind))
			}
		}
	}
	forwarded = bySeries[series{Other, flow.Forwarded, smapi.None}]
}

// Forwarded counts a request that is no call.
func Forwarded() { forwarded.Inc() }

// Call counts a call. Its method is Other where it is none that is answered.
func Call(call *smapi.Call, o flow.Outcome) {
	s := series{call.Method, o, call.Credentials.Kind}
	if _, ok := kinds[s.method]; !ok {
		s.method = Other
	}
	if counter := bySeries[s]; counter != nil {
		counter.Inc()
		return
	}
	if s.kind == "" {
		s.kind = smapi.None
	}
	Requests.WithLabelValues(string(s.method), o.String(), string(s.kind)).Inc()
}
