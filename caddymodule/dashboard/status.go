package dashboard

import (
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/history"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
)

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

	// Came is how these came, nil until all of them were counted.
	Came *VaultCame `json:"came,omitempty"`

	// Unwritten is how many objects could not be written yet and are in memory alone.
	Unwritten int `json:"unwritten"`

	// Failing tells that the storage failed after it was last written to.
	Failing bool `json:"failing"`
}

// VaultCame is how the records of a vault came: each is of an account of a home.
type VaultCame struct {
	Upgraded int `json:"upgraded"`
	SignedIn int `json:"signed_in"`

	// TakenIn is how many were upgraded before there was a vault, and have refreshed since.
	TakenIn int `json:"taken_in"`

	// About tells that these are by the share of some of the records, as in a large vault.
	About bool `json:"about,omitempty"`
}

// EndpointStatus is how one token endpoint is, as one client. Its counts outlive all configurations of the process.
type EndpointStatus struct {
	// The token endpoint or the issuer, blank for handlers that need none.
	Endpoint string `json:"endpoint"`
	ClientID string `json:"client_id"`

	// Since is when counting began: when the process first used it, or with a vault the first one of this instance.
	Since time.Time `json:"since"`

	// What became of the requests since then, and over the last 5 minutes.
	SinceStart   map[flow.Outcome]uint64 `json:"since_start"`
	Last5Minutes map[flow.Outcome]uint64 `json:"last_5_minutes"`

	// The same in steps of 10 seconds, the oldest first.
	History []map[flow.Outcome]uint64 `json:"history"`

	// Misconfigured is the last call that failed because something is, with its fix; nil where this process had none.
	Misconfigured *history.Fault `json:"misconfigured,omitempty"`

	// Exchanges is how long those of the last 5 minutes took, nil where there were none.
	Exchanges *history.Times `json:"exchanges,omitempty"`

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

// Mostly is the most frequent error, to be put behind a number; blank without one.
func (t *FuseTries) Mostly() string {
	if t.OAuthError == "" {
		return ""
	}
	return ", mostly " + t.OAuthError
}
