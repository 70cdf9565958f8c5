package pacing

import (
	"crypto/sha256"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// spend returns how the login of an account is ended, if it may be sent.
func spend(b *Budgets, account, network Account) (done func(failed bool), ok bool) {
	l := login(account, network)
	return func(failed bool) { b.End(l, failed) }, b.Spend(l)
}

func login(account, network Account) *Login {
	return &Login{Budget: budget, Account: account, Network: network}
}

func name(text string) (a Account) {
	sum := sha256.Sum256([]byte(text))
	copy(a[:], sum[:])
	return a
}

var budget = Budget{Failures: 4, Window: 30 * time.Minute}

// fail spends what is left, and returns how much that was.
func fail(b *Budgets, account, network string) (n int) {
	for {
		done, ok := spend(b, name(account), name(account+network))
		if !ok {
			return n
		}
		done(true)
		n++
	}
}

// 500 made-up accounts a second fail for as long as a failure counts.
func TestFillingTheMemoryUpFreesNoAccountAndGuardsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudgets(time.Now)
		fail(b, "ella", "1")
		fail(b, "ella", "2")
		random := rand.NewChaCha8([32]byte{})
		for range 29 {
			for range 500 * 60 {
				var fill Account
				_, _ = random.Read(fill[:])
				if done, ok := spend(b, fill, fill); ok {
					done(true)
				}
			}
			time.Sleep(time.Minute)
		}
		if n := fail(b, "ella", "3"); n != 0 {
			t.Errorf("%d more", n)
		}
		wrong := 0
		for i := range 10_000 {
			if account := name("good" + strconv.Itoa(i)); !b.Left(login(account, account)) {
				wrong++
			}
		}
		if wrong > 10 {
			t.Errorf("%d of 10000 accounts are guarded that never failed", wrong)
		}
	})
}

func TestAFailureCountsForTheWindowAndAThirdOfItLongerAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudgets(time.Now)
		for _, wait := range []time.Duration{0, time.Minute, 7 * time.Minute, 13 * time.Minute} {
			time.Sleep(wait)
			if n := fail(b, "ella", "1") + fail(b, "ella", "2"); n != 4 {
				t.Errorf("after %v: %d", wait, n)
			}
			time.Sleep(30 * time.Minute)
			if b.Left(login(name("ella"), name("ella3"))) {
				t.Error("freed within the window")
			}
			time.Sleep(10*time.Minute + time.Second)
			if !b.Left(login(name("ella"), name("ella1"))) {
				t.Error("not freed after it")
			}
		}
	})
}

func TestAPartOfTheBudgetIsKeptForANetworkThatHasNotFailed(t *testing.T) {
	b := NewBudgets(time.Now)
	if n := fail(b, "ella", "guesser"); n != 3 {
		t.Errorf("one network has %d of 4", n)
	}
	if n := fail(b, "ella", "home"); n != 1 {
		t.Errorf("another one has %d", n)
	}
	if n := fail(b, "django", "guesser"); n != 3 {
		t.Errorf("another account has %d", n)
	}
}

func TestGuessesAtOnceLeaveThatPartToo(t *testing.T) {
	b := NewBudgets(time.Now)
	var dones []func(bool)
	for range 10 {
		if done, ok := spend(b, name("ella"), name("guesser")); ok {
			dones = append(dones, done)
		}
	}
	if len(dones) != 3 || !b.Left(login(name("ella"), name("home"))) {
		t.Errorf("one network has %d of 4 at once", len(dones))
	}
	for _, done := range dones {
		done(true)
	}
	if n := fail(b, "ella", "home"); n != 1 {
		t.Errorf("another one has %d", n)
	}
	if len(b.trying) != 0 {
		t.Errorf("%d are under way for ever", len(b.trying))
	}
}

func TestASuccessCostsNothing(t *testing.T) {
	b := NewBudgets(time.Now)
	for range 100 {
		done, ok := spend(b, name("ella"), name("home"))
		if !ok {
			t.Fatal("guarded")
		}
		done(false)
	}
}

func TestANetworkWhoseCallsSucceedKeepsItsPlace(t *testing.T) {
	n, now := newNetworks(), time.Now()
	const cloud, guesser, unknown = 1, 2, 3
	for i := range 1000 {
		n.note(cloud, Report{Accepted: i%5 == 0}, now) // four of five fail
		n.note(guesser, Report{}, now)
	}
	if n.rank(cloud, now) != 0 || n.rank(guesser, now) != 1 || n.rank(unknown, now) != 0 || n.rank(0, now) != 0 {
		t.Error("wrong order")
	}
	if n.rank(guesser, now.Add(networkWindow+time.Second)) != 0 {
		t.Error("never forgiven")
	}
}

func TestFailuresElsewhereCountAsThoseHere(t *testing.T) {
	b := NewBudgets(time.Now)
	l := login(name("ella"), name("ella home"))
	for elsewhere, left := range map[int]bool{0: true, 3: true, 4: false, 100: false} {
		l.Elsewhere = elsewhere
		if b.Left(l) != left {
			t.Errorf("%d elsewhere: not %v", elsewhere, left)
		}
	}
	l = login(name("ella"), name("ella other"))
	l.Elsewhere, l.NetworkFailed = 3, true
	if b.Left(l) {
		t.Error("what is kept for other networks was given to one that has failed elsewhere")
	}
}
