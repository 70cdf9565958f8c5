package capture

import (
	"fmt"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// CallFacts are what was found in a call, with everything masked that is about a listener.
type CallFacts struct {
	Method         smapi.Method `json:"method"`
	Credentials    smapi.Kind   `json:"credentials"`
	HouseholdID    string       `json:"household_id,omitempty"`
	Username       string       `json:"username,omitempty"`
	Password       string       `json:"password,omitempty"`
	SessionID      string       `json:"session_id,omitempty"`
	Token          string       `json:"token,omitempty"`
	Key            string       `json:"key,omitempty"`
	DeviceID       string       `json:"device_id,omitempty"`
	DeviceProvider string       `json:"device_provider,omitempty"`
}

// CloudDevice is the device id of Sonos's cloud, which identifies nothing.
const CloudDevice = "00-00-00-00-00-00:0"

// FactsOf are those of a call.
func FactsOf(call *smapi.Call) *CallFacts {
	c := &call.Credentials
	f := &CallFacts{
		Method: call.Method, Credentials: c.Kind, HouseholdID: Mask(call.HouseholdID),
		Username: Mask(c.Username), Password: Mask(c.Password), SessionID: Mask(c.SessionID),
		Token: Mask(c.Token), Key: Mask(c.Key),
		DeviceID: Mask(c.DeviceID), DeviceProvider: Mask(c.DeviceProvider),
	}
	if c.Token == smapi.NeedsReauth {
		f.Token = c.Token
	}
	if c.DeviceID == CloudDevice {
		f.DeviceID = CloudDevice + ", Sonos's cloud"
	}
	if c.DeviceProvider == "Sonos" {
		f.DeviceProvider = "Sonos"
	}
	return f
}

// Mask shows of a text only how many characters it has.
func Mask(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("***(%d)", utf8.RuneCountInString(text))
}
