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

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
)

func init() {
	caddy.RegisterModule(adminAPI{})
}

// adminAPI tells how the token endpoints in use are: /smapi_upgrade/status, and whether there is a handler at all:
// /smapi_upgrade/ready.
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
	}
}

// Status is the answer of /smapi_upgrade/status. It holds no secret and no identifier of a listener.
type Status struct {
	Endpoints []EndpointStatus `json:"endpoints"`
	Vaults    []VaultStatus    `json:"vaults,omitempty"`
}

// VaultStatus is how one vault is.
type VaultStatus struct {
	KeyFile string `json:"key_file"`

	// Records is how many there are, as forgetting has counted them within the last day, nil until then.
	Records *int64 `json:"records,omitempty"`

	// Unwritten is how many objects could not be written yet and are in memory alone.
	Unwritten int `json:"unwritten"`

	// Failing tells that the storage failed after it was last written to.
	Failing bool `json:"failing"`
}

// EndpointStatus is how one token endpoint is, as one client. It outlives configurations that keep both.
type EndpointStatus struct {
	// The token endpoint or the issuer, blank for handlers that need none.
	Endpoint string `json:"endpoint"`
	ClientID string `json:"client_id"`

	// What became of the calls, since the process or the configuration first used it, and over the last 5 minutes.
	// What was forwarded is not in it.
	SinceStart   map[flow.Outcome]uint64 `json:"since_start"`
	Last5Minutes map[flow.Outcome]uint64 `json:"last_5_minutes"`

	// The same in steps of 10 seconds, the oldest first.
	History []map[flow.Outcome]uint64 `json:"history"`

	InFlight             int     `json:"in_flight"`
	Waiting              int     `json:"waiting"`
	OldestWaitingSeconds float64 `json:"oldest_waiting_seconds"`

	// closed, open (the endpoint is left alone) or half-open (it is tried).
	Breaker string `json:"breaker"`

	// For how long the endpoint has asked to hold back, 0 where it has not.
	HoldSeconds float64 `json:"hold_seconds"`

	// The fuses that doubt rejections, of logins and of refreshes.
	LoginFuse   FuseStatus `json:"login_fuse"`
	RefreshFuse FuseStatus `json:"refresh_fuse"`

	// What is known of the old service, nil without `old_service`.
	OldService *OldServiceStatus `json:"old_service,omitempty"`

	Secrets []secret.Status `json:"secrets"`
}

// OldServiceStatus is how the old service of upgraded homes is.
type OldServiceStatus struct {
	// Sessions is how many accounts have one that is known.
	Sessions int `json:"sessions"`

	// Fuse doubts that accounts have to sign in again because the old service refuses them.
	Fuse FuseStatus `json:"fuse"`
}

// FuseStatus is how a fuse is, with the accounts of the last ten minutes, since it has last changed. Percent is the share
// above which it blows, as last used, and Blew the accounts upon which it has blown.
type FuseStatus struct {
	Blown   bool    `json:"blown"`
	Percent float64 `json:"percent,omitempty"`
	FuseTries
	Blew *FuseTries `json:"blew,omitempty"`
}

// FuseTries are distinct accounts, 512 at most. OAuthError is what was said most often of those that were rejected.
type FuseTries struct {
	Tried      int    `json:"tried"`
	Rejected   int    `json:"rejected"`
	OAuthError string `json:"oauth_error,omitempty"`
}

func currentStatus(now time.Time) Status {
	all := Status{Endpoints: []EndpointStatus{}}
	for _, e := range endpoints() {
		state := e.pacing()
		s := EndpointStatus{
			Endpoint:    e.where,
			ClientID:    e.client,
			InFlight:    state.InFlight,
			Waiting:     state.Waiting,
			Breaker:     state.Breaker,
			LoginFuse:   fuseStatus(e.LoginFuse),
			RefreshFuse: fuseStatus(e.RefreshFuse),
			Secrets:     e.secretStatuses(now),
		}
		if e.hasOldService() {
			s.OldService = &OldServiceStatus{Sessions: e.sessions.Len(), Fuse: fuseStatus(e.OldFuse)}
		}
		s.SinceStart, s.Last5Minutes, s.History = e.tally.Sums(now)
		if !state.OldestWaiting.IsZero() {
			s.OldestWaitingSeconds = now.Sub(state.OldestWaiting).Seconds()
		}
		if state.Hold.After(now) {
			s.HoldSeconds = state.Hold.Sub(now).Seconds()
		}
		all.Endpoints = append(all.Endpoints, s)
	}
	for _, v := range vaults() {
		s := VaultStatus{KeyFile: v.file, Unwritten: v.Pending(), Failing: v.Failing()}
		if n := v.records.Load(); n >= 0 {
			s.Records = &n
		}
		all.Vaults = append(all.Vaults, s)
	}
	return all
}

func fuseStatus(f *pacing.Fuse) FuseStatus {
	s := f.Status()
	status := FuseStatus{Blown: s.Blown, Percent: s.Percent, FuseTries: fuseTries(s.FuseTries)}
	if s.Blown {
		blew := fuseTries(s.Blew)
		status.Blew = &blew
	}
	return status
}

func fuseTries(t pacing.FuseTries) FuseTries {
	return FuseTries{Tried: t.Tried, Rejected: t.Rejected, OAuthError: t.Reason}
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
	return json.NewEncoder(w).Encode(currentStatus(time.Now()))
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
