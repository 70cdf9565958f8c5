package exchange

import (
	"context"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
)

// The classes of results for which nothing was sent: there was no place in time, or the account has had its failed logins.
const (
	NotSent        token.Class = "overloaded"
	AccountGuarded token.Class = "guarded"
)

// InDoubt is the class of a result whose credentials were refused while most are.
const InDoubt token.Class = "doubted"

// Result is what came of an exchange. All but the fields is free of secrets.
type Result struct {
	token.Verdict

	// Status is the HTTP status of the answer, 0 where there was none.
	Status int

	// Fields are those of the answer that are kept, as texts. They are secrets.
	Fields token.Fields

	// Waited is the time for a place at the token endpoint, Took the time from there to the answer, 0 where it was not
	// asked.
	Waited, Took time.Duration

	// Replayed is true where the token endpoint was not asked for this call, but for the same one before it.
	Replayed bool

	// Life is how long the access token is good, 0 where the answer does not say, and At when it came.
	Life time.Duration
	At   time.Time
}

// Landed is what came of a flight. It stays as it is once it has landed.
type Landed struct {
	Answer token.Answer `json:"answer"`

	// Unsent is what it is instead where nothing was sent, nil where there is an answer.
	Unsent *token.Failure `json:"unsent,omitempty"`

	// Doubted tells that it is a rejection from while the fuse was blown, which stays in doubt when it is whole again.
	Doubted bool `json:"doubted,omitempty"`

	Waited time.Duration `json:"waited,omitempty"`

	// At is when the answer came.
	At time.Time `json:"at,omitzero"`
}

// Exchanger takes requests to a token endpoint, each of them once. It is safe for concurrent use.
type Exchanger struct {
	// Name tells the token endpoint from others.
	Name     string
	Endpoint *token.Endpoint
	State    *State

	// SignIn is the same as the client by which listeners sign in. Nil is none.
	SignIn *token.Endpoint

	// Places is how many logins are under way at once. Refreshes, links and polls have a quarter as many each, and at
	// least one, beside, and so have with a Vault refreshes by keys that it does not know.
	Places int

	// Fair is how much time the endpoint has to have had before no answer in time counts against it.
	Fair time.Duration

	// Budgets has the failed logins of accounts at this endpoint, of which Budget may reach it. Nil is no bound.
	Budgets *pacing.Budgets
	Budget  pacing.Budget

	// Vault keeps the tokens of homes, and the failed logins of all instances that share it. Nil is none.
	Vault *vault.Vault

	// Now is the clock of what is in the vault. Nil is time.Now.
	Now func() time.Time

	// Fuse is the share of accounts in percent above which rejections are doubted. 0 and 100 are never.
	Fuse float64

	// Replay is for how long the same call gets the same tokens, RememberRejected for how long it gets the
	// same rejection. 0 is not at all. For a refresh the former is always 60 s.
	Replay, RememberRejected time.Duration
}

// refreshReplay is for how long the same refresh token gets the same pair again, and chained for how long the new one is known to
// be of the same account.
const (
	refreshReplay = 60 * time.Second
	chained       = 2 * time.Hour
)

func (x *Exchanger) replayFor(grantType string) time.Duration {
	switch grantType {
	case token.Refresh:
		if x.Vault != nil {
			return 0 // which knows better who has which tokens
		}
		return refreshReplay
	case token.DeviceCode:
		return LinkReplay
	}
	return x.Replay
}

// Exchange takes a request to the token endpoint, all in all before its deadline. The same call at the same time is one
// exchange, and for a while after it has the same answer. A caller whose ctx ends stops waiting; what is on its way is
// finished, because the login it costs may already have happened.
func (x *Exchanger) Exchange(ctx context.Context, q *Request) *Result {
	t := &trip{x: x, q: q, ctx: ctx}
	t.identify()
	for !t.board() { // who led had less time left
	}
	return t.result
}

// endpoint is who is asked.
func (x *Exchanger) endpoint(q *Request) *token.Endpoint {
	if q.Type == token.DeviceCode {
		return x.SignIn
	}
	return x.Endpoint
}

// pacer returns how the requests of a grant are paced, and how many may be under way at once.
func (x *Exchanger) pacer(q *Request) (*pacing.Pacer, int) {
	switch q.Type {
	case token.Refresh:
		if q.Ready != nil {
			return x.State.Unknown, max(1, x.Places/4)
		}
		return x.State.Refreshes, max(1, x.Places/4)
	case token.DeviceCode:
		return x.State.Polls, max(1, x.Places/4)
	}
	return x.State.Logins, x.Places
}

// fuse is what weighs the rejections of a grant, nil for those of listeners who sign in: who does not is nobody yet.
func (x *Exchanger) fuse(q *Request) *pacing.Fuse {
	switch q.Type {
	case token.Refresh:
		return x.State.RefreshFuse
	case token.DeviceCode:
		return nil
	}
	return x.State.LoginFuse
}

// doubt takes a rejection back while the fuse is blown.
func (x *Exchanger) doubt(q *Request, l *Landed, r *Result) {
	if r.Class == token.Rejected && !q.Others && q.Type != token.DeviceCode && x.Fuse > 0 && x.Fuse < 100 && (l.Doubted || x.fuse(q).Blown()) {
		r.Class, r.Cause = InDoubt, "the credentials were refused, as those of most accounts lately"
		r.Fix = "see what has changed at the authorization server: its host name, the client's secret, consent, or a proxy in front"
	}
}

// digest is that of an identity, at this endpoint.
func (x *Exchanger) digest(identity []string) replay.Digest {
	return replay.DigestOf(x.Name, identity...)
}

// Digest stands for the account of a request, at this endpoint and in this process.
func (x *Exchanger) Digest(q *Request) pacing.Account {
	q.setDigest(x)
	return q.digest
}

func (x *Exchanger) account(name string) pacing.Account {
	return pacing.Account(replay.DigestOf(x.Name, name))
}

// Unsent is the result where there was no place for a request.
func Unsent(cause string) *Result {
	return &Result{Verdict: token.Verdict{Class: NotSent, Cause: cause}}
}

// judged is what a flight means for a request: the request's own OnError may differ from that of who has asked.
func (x *Exchanger) judged(q *Request, l *Landed) *Result {
	if u := l.Unsent; u != nil {
		return &Result{Verdict: token.Verdict{Class: u.Class, Cause: u.Cause, Fix: u.Fix}, Waited: l.Waited}
	}
	return &Result{
		Verdict: x.endpoint(q).Judge(&q.Grant, &l.Answer),
		Status:  l.Answer.Status,
		Fields:  l.Answer.Fields,
		Waited:  l.Waited,
		Took:    l.Answer.Took,
		Life:    l.Answer.Life,
		At:      l.At,
	}
}

// again is the result of the same call for another one: of one that it waited for, or of one before it.
func (x *Exchanger) again(q *Request, l *Landed, waitedFor bool) *Result {
	r := x.judged(q, l)
	x.doubt(q, l, r)
	if r.Replayed = true; !waitedFor {
		r.Waited, r.Took = 0, 0
	}
	return r
}

// Note notes for those who watch how a call of an account ended, if the endpoint was asked for it and had a fair time, and
// reports whether it did. A caller that was slow is not the endpoint's failure, and who signs in is no account yet.
//
// Of credentials that may be others' to judge, and that anybody can make up, no more is noted than that they were good.
func (x *Exchanger) Note(q *Request, r *Result, end pacing.End) bool {
	if q.Type == token.DeviceCode || r.Replayed || r.Took == 0 || r.Cause == token.CauseTimeout && r.Took < x.Fair {
		return false
	}
	accounts := x.State.UpgradeAccounts
	if q.Type == token.Refresh {
		accounts = x.State.RefreshAccounts
	}
	if q.Others && end != pacing.Accepted {
		return false
	}
	accounts.Note(x.Digest(q), end)
	return true
}

// Time is the time by the clock of what is in the vault.
func (x *Exchanger) Time() time.Time {
	if x.Now == nil {
		return time.Now()
	}
	return x.Now()
}
