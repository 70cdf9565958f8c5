package flow

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/pacing"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// appLink and deviceLinkCode answer getAppLink and getDeviceLinkCode: where a listener signs in.
var (
	appLink        = linkFlow(smapi.GetAppLink)
	deviceLinkCode = linkFlow(smapi.GetDeviceLinkCode)
)

func linkFlow(method smapi.Method) flow {
	return flow{
		method:  method,
		inForce: func(p *Policy) bool { return p.SignIn != nil },
		hint:    func(*Policy) string { return "It is a " + string(method) + ", which only sign_in answers." },
		decide: func(p *Policy, call *smapi.Call) Decision {
			if !p.Households.chooses(call.HouseholdID) {
				return decided(Forwarded, "", "households "+p.Households.String()+": this home is not among them")
			}
			return ask(p.SignIn.Start, "sign_in: the device authorization endpoint says where the listener signs in")
		},
		ask:      (*Exchanger).startLink,
		issued:   LinkStarted,
		rejected: func(*Policy) Reply { return tryLater },
	}
}

const causeManyLinks = "the home has begun to sign in too often"

// startLink asks for a link. It costs the server a code, and nobody has to be anybody for it: so there are places of its
// own, and so many for each home.
func (x *Exchanger) startLink(ctx context.Context, p *Policy, d *Decision, q *Request) {
	deadline := d.Call.Arrived.Add(p.Timeout)
	if !x.State.links.begin(x.account(d.Call.HouseholdID), time.Now()) {
		p.Conclude(d, notSent(causeManyLinks))
		return
	}
	gone, leave := make(chan struct{}), sync.Once{}
	trial := pacing.Trial{
		Account:   x.account(d.Call.HouseholdID),
		Deadline:  deadline,
		Places:    max(1, x.Places/4),
		Size:      q.Size(),
		Fair:      x.Fair,
		Context:   ctx,
		Leave:     func() { leave.Do(func() { close(gone) }) },
		Abandoned: gone,
	}
	var authorization token.Authorization
	var answer token.Answer
	r := notSent(causeGone)
	admission, waited := x.State.Links.Pass(&trial, func() pacing.Report {
		authorization, answer, r.Verdict = x.SignIn.Authorize(deadline, &q.Grant)
		r.Status, r.Took = answer.Status, answer.Took
		return report(&r.Verdict, &answer)
	})
	if unsent := turnedAway(admission); unsent != nil {
		r.Verdict = token.Verdict{Class: unsent.Class, Cause: unsent.Cause}
	}
	if r.Waited = waited; r.Class != token.Issued {
		p.Conclude(d, r)
		return
	}
	d.Result = r
	p.takeLink(d, &authorization)
}

// takeLink gives the player its link, if it fits.
func (p *Policy) takeLink(d *Decision, a *token.Authorization) {
	sealed, err := p.SignIn.Seals.Seal(newLink(d.Call.HouseholdID, a, time.Now()))
	if err != nil {
		d.misconfigured("what the poll needs cannot be sealed", "check client_secret, or the key file of vault")
		return
	}
	l := &smapi.Link{
		URL:      cmp.Or(a.VerificationURIComplete, a.VerificationURI),
		Code:     a.UserCode,
		Show:     p.SignIn.ShowLinkCode || a.VerificationURIComplete == "",
		DeviceID: sealed,
	}
	if err := smapi.CheckLink(l); err != nil {
		d.misconfigured("the device authorization: "+err.Error(), fixesOfLinks[err])
		return
	}
	d.Outcome, d.Link = d.flow.issued, l
}

var fixesOfLinks = map[error]string{
	smapi.ErrLinkCode: "have the authorization server make shorter user codes",
	smapi.ErrLinkID:   "have the authorization server make shorter device codes, of at most 500 characters",
	smapi.ErrLinkURL:  "check verification_uri of the authorization server",
}
