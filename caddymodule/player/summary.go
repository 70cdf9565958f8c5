package player

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// outcomes are all of them, with how a summary calls them and what a player does then. What Sonos does not
// document it says so of.
var outcomes = []struct {
	Outcome
	title, then string
	signedOut   bool // a listener has to do something
	failed      bool
}{
	{Outcome: Upgraded, title: "upgraded", then: "plays on with its tokens"},
	{Outcome: SignInAgain, title: "sign in again", then: "asks its listener to sign in", signedOut: true},
	{Outcome: NotLinked, title: "not linked", then: "stops asking: its listener has to link the account again", signedOut: true},
	{Outcome: SessionExpired, title: "session expired", then: "asks its listener to sign in", signedOut: true},
	{Outcome: TryAgain, title: "try again", then: "keeps its old credentials; when it asks again is not documented", failed: true},
	{Outcome: AnotherFault, title: "another fault", then: "has no tokens; what it does next is not documented", failed: true},
	{Outcome: NotAccepted, title: "not what it accepts", then: "what it makes of it is not documented", failed: true},
	{Outcome: NotSMAPI, title: "no SMAPI answer", then: "has no tokens; what it does next is not documented", failed: true},
	{Outcome: NoAnswer, title: "no answer", then: "keeps its old credentials; when it asks again is not documented", failed: true},
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
		Calls: f.Done(), Accounts: len(f.Accounts), Households: f.Households,
		Seconds: took.Seconds(), Outcomes: map[Outcome]*Count{}, References: append([]string{}, t.references...),
		Ended: f.Done() < len(f.Accounts), GivenUp: int(t.givenUp.Load()),
	}
	lost := int(t.lost.Load())
	if took > 0 {
		s.CallsPerSecond = float64(s.Calls+lost) / took.Seconds()
	}
	for _, o := range outcomes {
		c := t.counts[o.Outcome]
		if c == nil {
			c = new(Count)
		} else {
			c.Share = float64(c.Calls) / float64(s.Calls)
		}
		s.Outcomes[o.Outcome] = c
	}
	if f.Lost > 0 {
		t.again.Lost = lost
		s.Again = &t.again
	}
	s.Latency = percentiles(t.took)
	return s
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
	for _, o := range outcomes {
		if o.failed && s.Outcomes[o.Outcome].Calls > 0 {
			return true
		}
	}
	return s.Ended
}

// SignedOut reports whether some listeners have to sign in or link their account again.
func (s *Summary) SignedOut() bool {
	for _, o := range outcomes {
		if o.signedOut && s.Outcomes[o.Outcome].Calls > 0 {
			return true
		}
	}
	return false
}

// WriteText writes the summary for people, in at most 80 columns.
func (s *Summary) WriteText(out io.Writer) error {
	w := new(strings.Builder)
	fmt.Fprintf(w, "%s of %s in %s, in %s: %s calls/s\n", number(s.Calls+s.lost(), "call"), number(s.Accounts, "account"),
		number(s.Households, "home"), seconds(s.Seconds), figures(s.CallsPerSecond))
	if s.Ended {
		fmt.Fprintf(w, "Ended early: %s had no turn", number(s.Accounts-s.Calls-s.GivenUp, "account"))
		if s.GivenUp > 0 {
			fmt.Fprintf(w, ", %s under way given up", number(s.GivenUp, "call"))
		}
		w.WriteString("\n")
	}
	if s.Calls > 0 {
		s.writeOutcomes(w)
	}
	if a := s.Again; a != nil {
		fmt.Fprintf(w, "\n%s thrown away and asked for again: %d got one, %d of them tokens\n",
			number(a.Lost, "answer"), a.Answered, a.Upgraded)
	}
	if l := s.Latency; l != nil {
		fmt.Fprintf(w, "\nLatency   p50 %s   p90 %s   p99 %s   max %s\n", seconds(l.P50), seconds(l.P90), seconds(l.P99), seconds(l.Max))
	}
	if len(s.References) > 0 {
		fmt.Fprintf(w, "\nReferences for support: %s\n", strings.Join(s.References, ", "))
	}
	_, err := io.WriteString(out, w.String())
	return err
}

func (s *Summary) lost() int {
	if s.Again == nil {
		return 0
	}
	return s.Again.Lost
}

func (s *Summary) writeOutcomes(w io.Writer) {
	const row = "%-20s %7s %7s   %s\n"
	fmt.Fprintf(w, "\n"+row, "The player is told", "calls", "share", "and")
	for _, o := range outcomes {
		c := s.Outcomes[o.Outcome]
		if c.Calls == 0 {
			continue
		}
		left, count, share := o.title, fmt.Sprint(c.Calls), percent(c.Share)
		for _, line := range wrap(o.then, 80-39) {
			fmt.Fprintf(w, row, left, count, share, line)
			left, count, share = "", "", ""
		}
		writeReasons(w, c.Reasons)
	}
}

// maxReasons is how many reasons a summary for people gives for one outcome.
const maxReasons = 5

func writeReasons(w io.Writer, reasons map[string]int) {
	names := slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		if i == maxReasons {
			fmt.Fprintf(w, "%28s   and %d more reasons\n", "", len(names)-i)
			return
		}
		count := fmt.Sprint(reasons[name])
		for _, line := range wrap(name, 80-31) {
			fmt.Fprintf(w, "%28s   %s\n", count, line)
			count = ""
		}
	}
}

// wrap breaks a text into lines of at most so many characters.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

func number(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprint(n, " ", of)
}

// percent never rounds something to nothing, nor most to all.
func percent(share float64) string {
	switch p := 100 * share; {
	case p > 0 && p < 0.1:
		return "<0.1%"
	case p > 99.9 && p < 100:
		return ">99.9%"
	default:
		return fmt.Sprintf("%.1f%%", p)
	}
}

// seconds is a duration for people: 12 ms, 3.4 s.
func seconds(s float64) string {
	switch {
	case s < 0.001:
		return figures(s*1e6) + " µs"
	case s < 1:
		return figures(s*1e3) + " ms"
	}
	return figures(s) + " s"
}

// figures gives small numbers a decimal.
func figures(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}
