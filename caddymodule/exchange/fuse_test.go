package exchange

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// No order of answers gets anybody a rejection while the fuse is blown, and whoever is accepted is served.
func TestNoOrderOfAnswersHasARejectionToldWhileTheFuseIsBlown(t *testing.T) {
	says := []struct {
		status int
		header http.Header
		body   string
	}{
		{200, nil, issued},
		{400, nil, `{"error":"invalid_grant"}`},
		{403, nil, `{"error":"mfa_required"}`},
		{401, nil, `{"error":"access_denied"}`},
		{400, nil, `{"error":"invalid_request"}`},
		{200, nil, `access_token=a`},
		{500, nil, ``},
		{429, http.Header{"Retry-After": {"1"}}, ``},
	}
	var doubted, rejected, served int
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			weights := make([]float64, len(says)) // which change, as a server does
			next := 0
			e := at(stub(func(url.Values) (int, http.Header, string) {
				s := says[next]
				return s.status, s.header, s.body
			}), func(c *config) { c.Fuse = 20 + 70*r.Float64() }, guarded)
			for i := range 400 {
				if i%50 == 0 {
					for j := range weights {
						weights[j] = r.ExpFloat64() * r.ExpFloat64()
					}
					weights[1] *= 5
				}
				next = pick(r, weights)
				q := guessing("account"+strconv.Itoa(r.IntN(300)), "right", "home"+strconv.Itoa(r.IntN(3)), "10.0."+strconv.Itoa(r.IntN(3))+".0/24")
				if r.IntN(3) == 0 {
					q = refreshOf("key" + strconv.Itoa(r.IntN(300)))
				}
				fuse := e.fuse(&q)
				blown := fuse.Blown()
				got := e.Exchange(context.Background(), soon(), q)
				switch got.Class {
				case InDoubt:
					doubted++
					if !blown && !fuse.Blown() {
						t.Errorf("seed %d: doubted with a whole fuse", seed)
					}
				case token.Rejected:
					rejected++
					if blown && fuse.Blown() {
						t.Errorf("seed %d: %+v while the fuse is blown", seed, got)
					}
				case token.Issued:
					served++
				}
				if next == 0 && got.Status == 200 && !got.Replayed && got.Class != token.Issued {
					t.Errorf("seed %d: who is accepted gets %+v", seed, got)
				}
				time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
		})
	}
	t.Logf("%d served, %d rejected, %d doubted", served, rejected, doubted)
	if min(served, rejected, doubted) < 1000 {
		t.Error("too few to mean anything")
	}
}

// A rejection that was in doubt is remembered as such: when the server has recovered, it signs nobody out.
func TestADoubtOutlivesTheBlownFuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		posts := 0
		e := at(stub(func(url.Values) (int, http.Header, string) {
			posts++
			if broken {
				return 400, nil, `{"error":"invalid_grant"}`
			}
			return 200, nil, issued
		}), halved)
		for i := range 30 {
			e.Exchange(context.Background(), soon(), login("home"+strconv.Itoa(i), "x"))
		}
		broken = false
		for i := range 30 {
			e.Exchange(context.Background(), soon(), login("other"+strconv.Itoa(i), "x"))
		}
		if e.State.LoginFuse.Blown() {
			t.Fatal("the fuse does not recover")
		}
		if r := e.Exchange(context.Background(), soon(), login("home29", "x")); r.Class != InDoubt || !r.Replayed || posts != 60 {
			t.Errorf("within its time it gets %+v after %d POSTs", r, posts)
		}
		time.Sleep(31 * time.Second)
		if r := e.Exchange(context.Background(), soon(), login("home29", "x")); r.Class != token.Issued {
			t.Errorf("after it: %+v", r)
		}
	})
}

// A home that refreshes again and again is one account, also where each refresh token is new. A fuse that others have blown does
// not recover by it alone.
func TestAHomeWhoseTokensRotateIsOneAccount(t *testing.T) {
	next := 0
	e := at(stub(func(form url.Values) (int, http.Header, string) {
		if form.Get("refresh_token") != "good"+strconv.Itoa(next) {
			return 400, nil, `{"error":"invalid_grant"}`
		}
		next++
		return 200, nil, `{"access_token":"new","refresh_token":"good` + strconv.Itoa(next) + `"}`
	}), halved)
	rotate := func(n int) {
		for range n {
			if r := e.Exchange(context.Background(), soon(), refreshOf("good"+strconv.Itoa(next))); r.Class != token.Issued {
				t.Fatalf("%+v", r)
			}
		}
	}
	rotate(60)
	for i := range 30 {
		e.Exchange(context.Background(), soon(), refreshOf("dead"+strconv.Itoa(i)))
	}
	if !e.State.RefreshFuse.Blown() {
		t.Fatal("one account has kept the fuse whole")
	}
	rotate(60)
	if !e.State.RefreshFuse.Blown() {
		t.Error("the fuse has recovered by one account")
	}
}

// An answer without a token, as of a status page, accepts nobody.
func TestAnAnswerWithoutATokenMendsNoFuse(t *testing.T) {
	body := `{"error":"invalid_grant"}`
	e := at(stub(func(url.Values) (int, http.Header, string) { return 200, nil, body }), halved)
	for i := range 30 {
		e.Exchange(context.Background(), soon(), login("home"+strconv.Itoa(i), "x"))
	}
	body = `{"status":"ok"}`
	for i := range 30 {
		e.Exchange(context.Background(), soon(), login("other"+strconv.Itoa(i), "x"))
	}
	if !e.State.LoginFuse.Blown() {
		t.Error("it is whole again")
	}
}

// pick returns an index, by weight.
func pick(r *rand.Rand, weights []float64) int {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	at := r.Float64() * sum
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	return 0
}
