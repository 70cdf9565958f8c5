package player

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Served is the outcome of an everyday call that the service answers without a fault.
const Served Outcome = "served"

// everyday are the outcomes of everyday calls.
var everyday = []Row{
	{Outcome: Served, Title: "an answer", Then: "plays on"},
	{Outcome: SessionExpired, Title: "session expired", Then: "asks its listener to sign in", signedOut: true},
	{Outcome: TryAgain, Title: "try again", Then: "shows an error until it asks again", failed: true},
	{Outcome: AnotherFault, Title: "another fault", Then: "shows an error, or asks its listener to sign in", failed: true},
	{Outcome: NotAccepted, Title: "not what it accepts", Then: "what it makes of it is not documented", failed: true},
	{Outcome: NotSMAPI, Title: "no SMAPI answer", Then: "shows an error until it asks again", failed: true},
	{Outcome: NoAnswer, Title: "no answer", Then: "shows an error until it asks again", failed: true},
}

// EverydayRows has the outcomes of everyday calls in their order.
func EverydayRows() []Row { return append([]Row(nil), everyday...) }

// The everyday calls that are made: of the others nobody knows with which ids.
const (
	GetMetadata   smapi.Method = "getMetadata" // of the root
	GetLastUpdate smapi.Method = "getLastUpdate"
)

// pair is what an upgraded account holds.
type pair struct{ authToken, privateKey string }

// pairIn is the pair in an answer that Read has taken for one.
func pairIn(body []byte) (p pair) {
	root, err := parse(body)
	_ = read(http.StatusOK, root, err, "", func(response *node) (Answer, error) {
		result := response.children[0].children
		p = pair{result[0].text, result[1].text}
		return Answer{}, nil
	})
	return p
}

// ReadEveryday reads an answer to an everyday call. What is in an answer without a fault is not looked at.
func ReadEveryday(method smapi.Method, status int, body []byte) Answer {
	root, err := parse(body)
	if err == errLarge { // as answers with many items are
		err = nil
	}
	a := read(status, root, err, "an answer without a fault", func(response *node) (a Answer, err error) {
		if response.name.Local != string(method)+"Response" {
			return a, invalid("an answer to another method")
		}
		if response.name.Space != sonosNamespace {
			return a, invalid(string(method) + "Response in a wrong namespace")
		}
		return Answer{Outcome: Served}, nil
	})
	if a.Outcome == NotLinked {
		a.Outcome, a.Reason = AnotherFault, "Client.NOT_LINKED_FAILURE"
	}
	return a
}

// Everyday is the everyday call of an upgraded account in a spelling, with its token in one of the places that there are.
func Everyday(ctx context.Context, url string, a Account, method smapi.Method, turn int) (*http.Request, error) {
	s := spellings[turn%len(spellings)]
	bearer := ""
	switch turn / len(spellings) % 3 {
	case 1: // the key is not in every call
		a.Key = ""
	case 2:
		bearer, a.Token, a.Key = a.Token, "", ""
	}
	call := s.tree(1, string(method))
	if method == GetMetadata {
		call = s.tree(1, string(method), s.text(0, "id", "root"), s.text(0, "index", "0"), s.text(0, "count", "100"))
	}
	action := sonosNamespace + "#" + string(method)
	if strings.HasPrefix(s.action, `"`) {
		action = `"` + action + `"`
	}
	r, err := s.request(ctx, url, a, action, call)
	if err == nil && bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return r, err
}

// Browsed is what became of the everyday calls of a fleet. It holds no token.
type Browsed struct {
	Calls    int `json:"calls"`
	Accounts int `json:"accounts"`

	Seconds        float64            `json:"seconds"`
	CallsPerSecond float64            `json:"calls_per_second"`
	Outcomes       map[Outcome]*Count `json:"outcomes"`
	Latency        *Latency           `json:"latency_seconds,omitempty"`
	References     []string           `json:"references"`

	// GivenUp is true where some calls were not made, or not waited for.
	GivenUp bool `json:"ended_early"`
}

// browse makes the everyday calls of those accounts that were upgraded, one after the other.
func (f *Fleet) browse(ctx context.Context, pace *pacer) *Browsed {
	var upgraded []Account
	for i, a := range f.Accounts {
		if p := f.pairs[i]; p != (pair{}) {
			a.Kind, a.Token, a.Key = smapi.LoginToken, p.authToken, p.privateKey
			upgraded = append(upgraded, a)
		}
	}
	f.browsed.Store(int64(f.After * (len(f.Accounts) - len(upgraded)))) // are done with
	begin, all := time.Now(), f.After*len(upgraded)
	f.all(ctx, all, func(i int) {
		if pace.wait(ctx) != nil {
			return
		}
		method, turn := GetLastUpdate, i+i/len(upgraded) // in another spelling each time
		if i/len(upgraded)%2 == 0 {
			method = GetMetadata
		}
		begin := time.Now()
		a := f.Client.everyday(ctx, upgraded[i%len(upgraded)], method, turn)
		if ctx.Err() != nil && a.Outcome == NoAnswer {
			return
		}
		f.after.add(a, time.Since(begin), false)
		f.browsed.Add(1)
	})
	b := &Browsed{
		Accounts: len(upgraded), Seconds: time.Since(begin).Seconds(), Outcomes: map[Outcome]*Count{},
		References: append([]string{}, f.after.references...), Latency: percentiles(f.after.took),
	}
	for _, c := range f.after.counts {
		b.Calls += c.Calls
	}
	if b.Seconds > 0 {
		b.CallsPerSecond = float64(b.Calls) / b.Seconds
	}
	b.GivenUp = b.Calls < all
	f.after.share(everyday, b.Outcomes, b.Calls)
	return b
}

// UpgradeAndCall upgrades an account and, if it is upgraded, makes an everyday call with the pair that it got.
func (c *Client) UpgradeAndCall(ctx context.Context, a Account, method smapi.Method) (upgrade, everyday Answer) {
	upgrade, p := c.upgrade(ctx, a, 0)
	if upgrade.Outcome != Upgraded {
		return upgrade, everyday
	}
	a.Kind, a.Token, a.Key = smapi.LoginToken, p.authToken, p.privateKey
	return upgrade, c.everyday(ctx, a, method, 0)
}

func (c *Client) everyday(ctx context.Context, a Account, method smapi.Method, turn int) Answer {
	r, err := Everyday(ctx, c.URL, a, method, turn)
	if err != nil {
		return Answer{Outcome: NoAnswer, Reason: why(err)}
	}
	status, body, err := c.ask(r)
	if err != nil {
		return Answer{Outcome: NoAnswer, Reason: why(err)}
	}
	return ReadEveryday(method, status, body)
}
