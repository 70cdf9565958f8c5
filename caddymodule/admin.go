package caddymodule

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/dashboard"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

func init() {
	caddy.RegisterModule(adminAPI{})
}

// adminAPI tells how the token endpoints in use are: /smapi_upgrade/status, and whether there is a handler at all:
// /smapi_upgrade/ready. The page is at /smapi_upgrade/.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.smapi_upgrade",
		New: func() caddy.Module { return new(adminAPI) },
	}
}

// Routes returns the routes of the admin API.
func (adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/smapi_upgrade/status", Handler: caddy.AdminHandlerFunc(serveStatus)},
		{Pattern: "/smapi_upgrade/ready", Handler: caddy.AdminHandlerFunc(serveReady)},
		{Pattern: dashboard.Path, Handler: caddy.AdminHandlerFunc(servePage)},
	}
}

// currentStatus is the status, and each endpoint of it with its past.
func currentStatus(now time.Time) (all dashboard.Status, past []dashboard.Endpoint) {
	all.Endpoints, past = []dashboard.EndpointStatus{}, []dashboard.Endpoint{}
	for _, e := range endpoints() {
		s := e.status(now)
		all.Endpoints = append(all.Endpoints, s)
		one := dashboard.Endpoint{EndpointStatus: s, Day: e.history.Day(now), Accounts: e.history.Accounts.Estimate(), Faults: e.history.Faults.Last(), Vaults: e.vaultFiles(), AnybodyIsUpgraded: e.exchanges(smapi.Anonymous)}
		if end := e.seen.First(); !end.IsZero() {
			one.ServerCertificateEnds = &end
		}
		past = append(past, one)
	}
	for _, v := range vaults() {
		s := dashboard.VaultStatus{KeyFile: v.file, Unwritten: v.Pending(), Failing: v.Failing()}
		if n := v.records.Load(); n != nil {
			records := int64(n.Records)
			s.Records = &records
			if n.Whole {
				s.Came = &dashboard.VaultCame{Upgraded: n.Upgraded, SignedIn: n.SignedIn, TakenIn: n.TakenIn, About: n.About}
			}
		}
		all.Vaults = append(all.Vaults, s)
	}
	return all, past
}

func (e *sharedEndpoint) status(now time.Time) dashboard.EndpointStatus {
	state := e.pacing()
	s := dashboard.EndpointStatus{
		Endpoint:    e.where,
		ClientID:    e.client,
		Since:       e.history.Since(),
		Exchanges:   e.history.Exchanges.Lately(now),
		InFlight:    state.InFlight,
		Waiting:     state.Waiting,
		Breaker:     state.Breaker,
		LoginFuse:   fuseStatus(e.LoginFuse),
		RefreshFuse: fuseStatus(e.RefreshFuse),
		Secrets:     e.secretStatuses(now),
	}
	if e.hasOldService() {
		s.OldService = &dashboard.OldServiceStatus{Sessions: e.sessions.Len(), Fuse: fuseStatus(e.OldFuse)}
	}
	if faults := e.history.Faults.Of(flow.Misconfigured); len(faults) > 0 {
		s.Misconfigured = &faults[0]
	}
	s.SinceStart, s.Last5Minutes, s.History = e.history.Sums(now)
	if !state.OldestWaiting.IsZero() {
		s.OldestWaitingSeconds = now.Sub(state.OldestWaiting).Seconds()
	}
	if state.Hold.After(now) {
		s.HoldSeconds = state.Hold.Sub(now).Seconds()
	}
	return s
}

func fuseStatus(f *pacing.Fuse) dashboard.FuseStatus {
	s := f.Status()
	status := dashboard.FuseStatus{Blown: s.Blown, Percent: s.Percent, FuseTries: fuseTries(s.FuseTries)}
	if s.Blown {
		blew := fuseTries(s.Blew)
		status.Blew = &blew
	}
	return status
}

func fuseTries(t pacing.FuseTries) dashboard.FuseTries {
	return dashboard.FuseTries{Tried: t.Tried, Rejected: t.Rejected, OAuthError: t.Reason}
}

// secretStatuses are by field: sites with the same client have the same ones, each read by its own handler.
func (e *sharedEndpoint) secretStatuses(now time.Time) []secret.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	byField := map[string]secret.Status{}
	for files := range e.files {
		for _, s := range files.Status(now) {
			if other, ok := byField[s.Field]; ok {
				s.Stale = s.Stale || other.Stale
				s.ReadSecondsAgo = min(s.ReadSecondsAgo, other.ReadSecondsAgo)
			}
			byField[s.Field] = s
		}
	}
	all := []secret.Status{}
	for _, field := range slices.Sorted(maps.Keys(byField)) {
		all = append(all, byField[field])
	}
	return all
}

func serveStatus(w http.ResponseWriter, r *http.Request) error {
	if err := onlyGet(r); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	status, _ := currentStatus(time.Now())
	return json.NewEncoder(w).Encode(status)
}

func servePage(w http.ResponseWriter, r *http.Request) error {
	if err := onlyGet(r); err != nil {
		return err
	}
	if dashboard.Serve(w, r, func() *dashboard.Value {
		now := time.Now()
		status, past := currentStatus(now)
		return dashboard.New(now, past, status.Vaults)
	}) {
		return nil
	}
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("nothing is here")}
}

// serveReady does not depend on the token endpoints: while they fail, everything else is still forwarded.
func serveReady(w http.ResponseWriter, r *http.Request) error {
	if err := onlyGet(r); err != nil {
		return err
	}
	if len(endpoints()) == 0 {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errNotReady}
	}
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write([]byte(`{"ready":true}` + "\n"))
	return err
}

var errNotReady = errors.New("no configuration with smapi_upgrade is running")

func onlyGet(r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("only GET, not " + strings.ToUpper(r.Method))}
}

// Interface guard
var _ caddy.AdminRouter = adminAPI{}
