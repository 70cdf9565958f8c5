package caddytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest/memory"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// Operated is a Caddy with an admin API, as an operator has it.
type Operated struct {
	*Site
	Admin *Site
}

// Operate is Run with an admin API.
func Operate(t testing.TB, directives string) *Operated {
	t.Helper()
	return operate(t, memory.New(t), directives)
}

// OperateOn is RunOn with an admin API.
func OperateOn(t testing.TB, folder, directives string) *Operated {
	t.Helper()
	return operate(t, "storage file_system "+folder, directives)
}

func operate(t testing.TB, storage, directives string) *Operated {
	t.Helper()
	admin, address := loopback.FreeAddress(), loopback.FreeAddress()
	o := &Operated{
		Site:  &Site{URL: "http://" + address, LogFile: filepath.Join(t.TempDir(), "log")},
		Admin: &Site{URL: "http://" + admin},
	}
	Load(t, fmt.Sprintf(`{
	admin %s
	persist_config off
	%s
	log {
		output file %s
		level DEBUG
	}
	metrics
}
http://%s {
	bind 127.0.0.1
	log
	%s
}`, admin, storage, o.LogFile, address, directives))
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// Scrape returns the values of our metrics, by name and labels.
func (o *Operated) Scrape(t testing.TB) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for line := range strings.Lines(o.Admin.Get(t, "/metrics").Body) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "caddy_smapi_upgrade_") {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			values[name] = number
		}
	}
	return values
}

// FuseStatus is what the admin API says of a fuse, as others read it.
type FuseStatus struct {
	Blown   bool    `json:"blown"`
	Percent float64 `json:"percent"`
	FuseTries
	Blew *FuseTries `json:"blew"`
}

// FuseTries counts accounts.
type FuseTries struct {
	Tried      int    `json:"tried"`
	Rejected   int    `json:"rejected"`
	OAuthError string `json:"oauth_error"`
}

// EndpointStatus is what the admin API says of a token endpoint, as others read it.
type EndpointStatus struct {
	Endpoint      string              `json:"endpoint"`
	ClientID      string              `json:"client_id"`
	Since         time.Time           `json:"since"`
	SinceStart    map[string]uint64   `json:"since_start"`
	Last5Minutes  map[string]uint64   `json:"last_5_minutes"`
	History       []map[string]uint64 `json:"history"`
	Misconfigured *struct {
		At                                     time.Time
		Reference, Method, Outcome, Cause, Fix string
	} `json:"misconfigured"`
	Exchanges *struct {
		Exchanges uint64  `json:"exchanges"`
		Median    float64 `json:"median_seconds"`
		Most      float64 `json:"p95_seconds"`
		Longest   float64 `json:"longest_seconds"`
	} `json:"exchanges"`
	InFlight             int        `json:"in_flight"`
	Waiting              int        `json:"waiting"`
	OldestWaitingSeconds float64    `json:"oldest_waiting_seconds"`
	Breaker              string     `json:"breaker"`
	HoldSeconds          float64    `json:"hold_seconds"`
	LoginFuse            FuseStatus `json:"login_fuse"`
	RefreshFuse          FuseStatus `json:"refresh_fuse"`
	Secrets              []struct {
		Field          string     `json:"field"`
		ReadSecondsAgo float64    `json:"read_seconds_ago"`
		Stale          bool       `json:"stale"`
		Expires        *time.Time `json:"expires"`
	} `json:"secrets"`
}

// OnlyEndpoint is the status of the one endpoint that there is.
func OnlyEndpoint(t testing.TB, o *Operated) EndpointStatus {
	t.Helper()
	got := o.Admin.Get(t, "/smapi_upgrade/status")
	var status struct{ Endpoints []EndpointStatus }
	d := json.NewDecoder(strings.NewReader(got.Body))
	d.DisallowUnknownFields()
	if err := d.Decode(&status); err != nil || got.Status != http.StatusOK || len(status.Endpoints) != 1 {
		t.Fatalf("%v: %+v", err, got)
	}
	return status.Endpoints[0]
}
