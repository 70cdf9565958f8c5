package player

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Row is what there is to say of an outcome: its title, and what a player does then. Where Sonos does not document that,
// it says so.
type Row struct {
	Outcome
	Title, Then string

	signedOut bool // a listener has to do something
	failed    bool
}

// Rows has all outcomes in their order.
func Rows() []Row { return slices.Clone(outcomes) }

var outcomes = []Row{
	{Outcome: Upgraded, Title: "upgraded", Then: "plays on with its tokens"},
	{Outcome: SignInAgain, Title: "sign in again", Then: "asks its listener to sign in", signedOut: true},
	{Outcome: NotLinked, Title: "not linked", Then: "stops asking: its listener has to link the account again", signedOut: true},
	{Outcome: SessionExpired, Title: "session expired", Then: "asks its listener to sign in", signedOut: true},
	{Outcome: TryAgain, Title: "try again", Then: "keeps its old credentials; when it asks again is not documented", failed: true},
	{Outcome: AnotherFault, Title: "another fault", Then: "has no tokens; what it does next is not documented", failed: true},
	{Outcome: NotAccepted, Title: "not what it accepts", Then: "what it makes of it is not documented", failed: true},
	{Outcome: NotSMAPI, Title: "no SMAPI answer", Then: "has no tokens; what it does next is not documented", failed: true},
	{Outcome: NoAnswer, Title: "no answer", Then: "keeps its old credentials; when it asks again is not documented", failed: true},
}

// maxReferences is how many references of faults a summary holds.
const maxReferences = 3

// tally counts while a fleet plays.
type tally struct {
	lost, givenUp atomic.Int64

	mu         sync.Mutex
	counts     map[Outcome]*Count
	took       []time.Duration // of calls with an HTTP answer
	again      Again
	references []string
}

func (t *tally) add(a Answer, took time.Duration, lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[Outcome]*Count{}
	}
	c := t.counts[a.Outcome]
	if c == nil {
		c = &Count{Reasons: map[string]int{}}
		t.counts[a.Outcome] = c
	}
	c.Calls++
	if a.Reason != "" {
		c.Reasons[a.Reason]++
	}
	if a.Outcome != NoAnswer {
		t.took = append(t.took, took)
	}
	if a.Reference != "" && len(t.references) < maxReferences {
		t.references = append(t.references, a.Reference)
	}
	if lost && a.Outcome != NoAnswer {
		t.again.Answered++
		if a.Outcome == Upgraded {
			t.again.Upgraded++
		}
	}
}

// Summary is what became of a fleet's calls. It holds no credentials and no tokens.
type Summary struct {
	// Calls is how many had an outcome; those whose answer was thrown away are Again.Lost.
	Calls      int `json:"calls"`
	Accounts   int `json:"accounts"`
	Households int `json:"households"`

	Seconds float64 `json:"seconds"`

	// CallsPerSecond has those whose answer was thrown away, too.
	CallsPerSecond float64 `json:"calls_per_second"`

	// Outcomes has every outcome there is.
	Outcomes map[Outcome]*Count `json:"outcomes"`

	// Again is nil in a fleet that loses no answers.
	Again *Again `json:"asked_again,omitempty"`

	// Latency is that of the calls with an HTTP answer, nil where there is none.
	Latency *Latency `json:"latency_seconds,omitempty"`

	// References of faults, at most 3: support finds them in the log of the service.
	References []string `json:"references"`

	// Browsed is what became of the calls of upgraded accounts, nil in a fleet that makes none.
	Browsed *Browsed `json:"browsed,omitempty"`

	// Ended is true where not every account had its turn; GivenUp calls were under way then.
	Ended   bool `json:"ended_early"`
	GivenUp int  `json:"given_up"`
}

// Count is how many calls had one outcome.
type Count struct {
	Calls   int            `json:"calls"`
	Share   float64        `json:"share"` // of all calls, from 0 to 1
	Reasons map[string]int `json:"reasons,omitempty"`
}

// Again counts the calls whose answer was thrown away, and what became of them when they were asked again.
type Again struct {
	Lost     int `json:"lost"`
	Answered int `json:"answered"`
	Upgraded int `json:"upgraded"`
}

// Latency is percentiles in seconds, by nearest rank.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (t *tally) sum(f *Fleet, took time.Duration) *Summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Summary{
		Calls: int(f.done.Load()), Accounts: len(f.Accounts), Households: f.Households,
		Seconds: took.Seconds(), Outcomes: map[Outcome]*Count{}, References: append([]string{}, t.references...),
		Ended: int(f.done.Load()) < len(f.Accounts), GivenUp: int(t.givenUp.Load()),
	}
	lost := int(t.lost.Load())
	if took > 0 {
		s.CallsPerSecond = float64(s.Calls+lost) / took.Seconds()
	}
	t.share(outcomes, s.Outcomes, s.Calls)
	if f.Lost > 0 {
		t.again.Lost = lost
		s.Again = &t.again
	}
	s.Latency = percentiles(t.took)
	return s
}

// share writes what was counted to those outcomes.
func (t *tally) share(rows []Row, to map[Outcome]*Count, calls int) {
	for _, o := range rows {
		c := t.counts[o.Outcome]
		if c == nil {
			c = new(Count)
		} else {
			c.Share = float64(c.Calls) / float64(calls)
		}
		to[o.Outcome] = c
	}
}

func percentiles(took []time.Duration) *Latency {
	if len(took) == 0 {
		return nil
	}
	slices.Sort(took)
	rank := func(share float64) float64 {
		return took[int(math.Ceil(share*float64(len(took))))-1].Seconds()
	}
	return &Latency{P50: rank(0.5), P90: rank(0.9), P99: rank(0.99), Max: rank(1)}
}

// Failed reports whether some calls got a fault, no answer, or one that no player has to understand.
func (s *Summary) Failed() bool {
	return s.Ended || s.has(func(o *Row) bool { return o.failed })
}

// SignedOut reports whether some listeners have to sign in or link their account again.
func (s *Summary) SignedOut() bool {
	return s.has(func(o *Row) bool { return o.signedOut })
}

func (s *Summary) has(is func(*Row) bool) bool {
	of := func(counts map[Outcome]*Count) func(Row) bool {
		return func(o Row) bool { return is(&o) && counts[o.Outcome].Calls > 0 }
	}
	return slices.ContainsFunc(outcomes, of(s.Outcomes)) || s.Browsed != nil && slices.ContainsFunc(everyday, of(s.Browsed.Outcomes))
}
