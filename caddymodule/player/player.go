// Package player plays Sonos players: it makes the calls by which they upgrade their accounts, in the spellings
// that they use, reads the answers as strictly as they may, and sums up what they were told.
//
// It is the other side of package smapi, whose answers it reads with a reader of its own. It knows neither Caddy
// nor OAuth.
package player

import (
	"fmt"
	"math/rand/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// The namespaces of the wire, as players know them.
const (
	soapNamespace  = "http://schemas.xmlsoap.org/soap/envelope/"
	sonosNamespace = "http://www.sonos.com/Services/1.1"
)

// Account is one account record of a home, which upgrades by one call.
type Account struct {
	HouseholdID string
	smapi.Credentials
}

// Synthetic makes n accounts: user1 with password1, session1, token1 with key1, and so on.
func Synthetic(kind smapi.Kind, n int) []Account {
	accounts := make([]Account, n)
	for i := range accounts {
		c := &accounts[i].Credentials
		switch c.Kind = kind; kind {
		case smapi.Login:
			c.Username, c.Password = fmt.Sprint("user", i+1), fmt.Sprint("password", i+1)
		case smapi.SessionID:
			c.SessionID = fmt.Sprint("session", i+1)
		case smapi.LoginToken:
			c.Token, c.Key = fmt.Sprint("token", i+1), fmt.Sprint("key", i+1)
		}
	}
	return accounts
}

// assignHomes spreads accounts over so many homes, whose ids and players are by the seed.
func assignHomes(accounts []Account, homes int, seed uint64) {
	for i := range accounts {
		home, a := i%homes, &accounts[i]
		random := rand.New(rand.NewPCG(seed, uint64(home)))
		a.HouseholdID = fmt.Sprintf("Sonos_%016x%016x", random.Uint64(), random.Uint64())
		a.DeviceID, a.DeviceProvider = device(random), "Sonos"
		if i >= homes {
			// A further account of a home has more appended to the id.
			a.HouseholdID += fmt.Sprintf("_%08x", rand.New(rand.NewPCG(seed, uint64(i))).Uint32())
		}
	}
}

// device is the id of a player at home, or of Sonos's cloud, which calls for the homes of the second generation.
func device(random *rand.Rand) string {
	if random.IntN(2) == 0 {
		return "00-00-00-00-00-00:0"
	}
	n := random.Uint32()
	return fmt.Sprintf("00-0E-58-%02X-%02X-%02X:%d", byte(n), byte(n>>8), byte(n>>16), n>>28)
}
