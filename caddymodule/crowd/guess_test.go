package crowd_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// locking is a token endpoint that locks an account, however its name is spelled, at the fifth failed login in a row.
type locking struct {
	mu     sync.Mutex
	failed map[string]int
}

func (l *locking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.ToLower(strings.TrimSpace(norm.NFKC.String(r.PostFormValue("username"))))
	right := r.PostFormValue("grant_type") == "refresh_token" || r.PostFormValue("password") == "right"
	l.mu.Lock()
	defer l.mu.Unlock()
	if !right || l.failed[name] >= 5 {
		l.failed[name]++
		caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
		return
	}
	caddytest.IssuesTokens(w, r)
}

// of is how many failed logins of an account there were.
func (l *locking) of(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed[name]
}

func TestStrangersCannotLockAnAccount(t *testing.T) {
	server := &locking{failed: map[string]int{}}
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, server.ServeHTTP), caddytest.OldService(t), "refresh_auth_tokens", "fuse off"))
	stranger, owner := caddytest.From(t, "127.1.0.1"), caddytest.From(t, "127.2.0.1")
	l := &listeners{Site: s}
	get := func(c *http.Client, name, password, home string) caddytest.Answer {
		t.Helper()
		a, err := caddytest.Ask(t, c, s, caddytest.Tries(t, name, password, home))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	checkFailed := func(name string, want int) {
		t.Helper()
		if n := server.of(name); n != want {
			t.Errorf("%s has had %d failed logins, want %d", name, n, want)
		}
	}
	l.upgrade(t)

	for home := range 20 { // the same wrong password from made-up homes
		caddytest.CheckAnswer(t, get(stranger, "ella", "wrong", fmt.Sprint("home", home)), "reauthorize.xml")
	}
	checkFailed("ella", 1)

	spellings := []string{"ella", "ELLA", "Ella", " ella ", "ella\t", "ｅｌｌａ", "ＥＬＬＡ", "\u00a0ella"}
	var guesses sync.WaitGroup
	var blank atomic.Int32
	for worker := range 10 {
		guesses.Go(func() {
			for i := range 50 {
				a := get(stranger, spellings[(worker+i)%len(spellings)], fmt.Sprintf("guess-%d-%d", worker, i), "home")
				if caddytest.Told(t, a) == "blank" {
					blank.Add(1)
				}
			}
		})
	}
	guessed := make(chan struct{})
	go func() { guesses.Wait(); close(guessed) }()
	caddytest.CheckAnswer(t, get(owner, "ella", "right", "home"), "upgraded.xml") // while it is guessed at
	l.upgradeUntil(t, guessed)
	checkFailed("ella", 3) // of 4, of which one is kept for other networks
	if n := blank.Load(); n != 2 {
		t.Errorf("%d of 500 guesses got a blank pair, and 2 reached the endpoint", n)
	}
	caddytest.CheckAnswer(t, get(stranger, "ella", "right", "home2"), "service-unavailable.xml")
	caddytest.CheckAnswer(t, get(owner, "ella", "right", "home2"), "upgraded.xml")

	for i := range 1000 { // to fill the memory
		get(stranger, fmt.Sprint("made-up", i), "wrong", "home")
	}
	for i := range 20 { // from everywhere
		a := get(caddytest.From(t, fmt.Sprintf("127.3.%d.1", i)), "ella", fmt.Sprint("guess", i), "home")
		if blank := caddytest.Told(t, a) == "blank"; blank != (i == 0) {
			t.Errorf("guess %d from everywhere gets %s", i, a.Body)
		}
	}
	checkFailed("ella", 4)
	caddytest.CheckAnswer(t, get(owner, "ella", "right", "home3"), "service-unavailable.xml") // which can be taken back
	caddytest.CheckAnswer(t, get(stranger, "django", "right", "home"), "upgraded.xml")
	l.upgrade(t)
}

func TestStrangersGuessingAtOnceLeaveTheOwnersPart(t *testing.T) {
	t.Run("without a vault", func(t *testing.T) { guessAtOnce(t) })
	t.Run("with a vault", func(t *testing.T) { guessAtOnce(t, "refresh_auth_tokens", "vault "+caddytest.VaultFile(t)) })
}

func guessAtOnce(t *testing.T, options ...string) {
	t.Helper()
	var failed atomic.Int32
	judge, going := caddytest.Passwords(&failed), make(chan struct{})
	proceed := sync.OnceFunc(func() { close(going) })
	var arrived atomic.Int32
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("password") != "right" {
			arrived.Add(1)
			<-going
		}
		judge(w, r)
	}), caddytest.OldService(t), options...))
	defer proceed()
	stranger, owner := caddytest.From(t, "127.1.0.1"), caddytest.From(t, "127.2.0.1")
	var guarded atomic.Int32
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			a, err := caddytest.Ask(t, stranger, s, caddytest.Tries(t, "ella", fmt.Sprint("guess", i), "home"))
			if err != nil {
				t.Error(err)
			} else if caddytest.Told(t, a) == "unavailable" {
				guarded.Add(1)
			}
		})
	}
	caddytest.Eventually(t, "all but three guesses are guarded", func() bool { return arrived.Load() == 3 && guarded.Load() == 47 })
	a, err := caddytest.Ask(t, owner, s, caddytest.Tries(t, "ella", "right", "home"))
	if err != nil {
		t.Fatal(err)
	}
	if caddytest.Told(t, a) != "upgraded" {
		t.Error("the owner is not upgraded")
	}
	proceed()
	all.Wait()
	if failed.Load() != 3 {
		t.Errorf("%d failed logins", failed.Load())
	}
}

// 400 guesses a second, from one network and at made-up accounts, at an endpoint that does 50 logins a second and
// refreshes at once.
func TestStrangersWhoGuessWaitBehindTheOthers(t *testing.T) {
	const burst, perSecond, each, homes = 400, 400, 20 * time.Millisecond, 20
	var failed atomic.Int32
	judge, busy := caddytest.Passwords(&failed), make(chan struct{}, 1)
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("grant_type") == "password" {
			busy <- struct{}{}
			time.Sleep(each) // what hashing a password takes
			<-busy
		}
		judge(w, r)
	})
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "refresh_auth_tokens", "max_in_flight 8"))
	l := &listeners{Site: s}
	l.upgrade(t)

	stranger := caddytest.From(t, "127.1.0.1")
	guessing, stop := context.WithCancel(t.Context())
	var guesses sync.WaitGroup
	var sent atomic.Int32
	guess := func() {
		n := sent.Add(1)
		guesses.Go(func() {
			_, _ = caddytest.Fetch(stranger, s.Request(t, caddytest.Tries(t, fmt.Sprint("made-up-", n), "wrong", "home")).WithContext(guessing))
		})
	}
	for range burst { // before it is known for failing
		guess()
	}
	var pace sync.WaitGroup
	pace.Go(func() {
		next := time.NewTicker(time.Second / perSecond)
		defer next.Stop()
		for {
			select {
			case <-next.C:
				guess()
			case <-guessing.Done():
				return
			}
		}
	})
	for failed.Load() < 20 {
		time.Sleep(time.Millisecond) // until it is known
	}
	before, beganAt := failed.Load(), time.Now()
	var upgraded, refreshed atomic.Int32
	var others sync.WaitGroup
	for i := range homes {
		time.Sleep(time.Second / homes)
		others.Go(func() {
			c := caddytest.From(t, fmt.Sprintf("127.2.%d.1", i))
			if a, err := caddytest.Ask(t, c, s, caddytest.Tries(t, "good"+strconv.Itoa(i), "right", "home")); err == nil && caddytest.Told(t, a) == "upgraded" {
				upgraded.Add(1)
			}
			if a, err := caddytest.Fetch(c, s.Refreshes(t, "good"+strconv.Itoa(i))); err == nil && strings.Contains(a.Body, "<authToken>new-token<") {
				refreshed.Add(1)
			}
		})
	}
	others.Wait()
	passed := failed.Load() - before
	t.Logf("%d guesses; %d of %d upgrades and %d refreshes in %v, in which %d guesses passed",
		sent.Load(), upgraded.Load(), homes, refreshed.Load(), time.Since(beganAt), passed)
	if upgraded.Load() < homes*19/20 || refreshed.Load() != homes {
		t.Errorf("of %d listeners %d were upgraded and %d refreshed", homes, upgraded.Load(), refreshed.Load())
	}
	if passed > burst/2 { // in order of arrival the burst alone would have been before them
		t.Errorf("%d guesses passed before %d listeners", passed, homes)
	}
	stop()
	pace.Wait()
	guesses.Wait()
	l.upgrade(t)
}

func TestStrangersCannotLockAnAccountWhateverOnErrorSays(t *testing.T) {
	for _, class := range []string{"unavailable", "misconfigured"} {
		var failed atomic.Int32
		s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.Passwords(&failed)), caddytest.OldService(t), "on_error invalid_grant "+class))
		for i := range 20 {
			if became := caddytest.Told(t, s.Post(t, caddytest.Tries(t, "ella", fmt.Sprint("guess", i), "home"))); became != "unavailable" {
				t.Errorf("a guess is %s", became)
			}
		}
		if n := failed.Load(); n != 3 {
			t.Errorf("%s: %d failed logins", class, n)
		}
	}
}
