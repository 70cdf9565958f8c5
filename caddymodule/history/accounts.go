package history

import (
	"sync"

	"github.com/axiomhq/hyperloglog"
)

// Came is what came of an account.
type Came uint8

// What may come of an account. One may be in several.
const (
	Upgraded Came = iota // the token endpoint has issued tokens for its old credentials
	SignedIn             // its listener has signed in
	Refused              // the token endpoint has refused its old credentials, and was believed
	Doubted              // and was not

	came
)

// Accounts estimates how many distinct accounts there were, by HyperLogLog: of each kind 16 KB at most, and within 2 percent.
// Who makes up accounts moves only the kinds that the token endpoint refuses, since each kind has a sketch of its own. The
// zero value has seen none, and it is safe for concurrent use.
type Accounts struct {
	mu       sync.Mutex
	sketches [came]*hyperloglog.Sketch
}

// Note takes down an account, by a digest with a key that those who choose its name do not have.
func (a *Accounts) Note(c Came, digest uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sketches[c] == nil {
		a.sketches[c] = hyperloglog.New14()
	}
	a.sketches[c].InsertHash(digest)
}

// Estimate is how many distinct accounts there were, about. Below some thousands it is exact but for one or two.
type Estimate struct {
	Upgraded uint64 `json:"upgraded"`
	SignedIn uint64 `json:"signed_in"`
	Refused  uint64 `json:"refused"`
	Doubted  uint64 `json:"doubted"`
}

// Estimate estimates.
func (a *Accounts) Estimate() Estimate {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := func(c Came) uint64 {
		if a.sketches[c] == nil {
			return 0
		}
		return a.sketches[c].Estimate()
	}
	return Estimate{of(Upgraded), of(SignedIn), of(Refused), of(Doubted)}
}
