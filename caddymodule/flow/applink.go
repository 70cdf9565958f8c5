package flow

import (
	"cmp"
	"context"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
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
		decide: func(p *Policy, call *smapi.Call) *Decision {
			if !p.Households.Chooses(call.HouseholdID) {
				return decided(Forwarded, "", "households "+p.Households.String()+": this home is not among them")
			}
			return ask(p.SignIn.Start, "sign_in: the device authorization endpoint says where the listener signs in")
		},
		ask:      startLink,
		issued:   LinkStarted,
		rejected: func(*Policy) Reply { return tryLater },
	}
}

// startLink asks for a link.
func startLink(ctx context.Context, p *Policy, x *exchange.Exchanger, d *Decision, q *exchange.Request) {
	authorization, r := x.Authorize(ctx, d.Call.HouseholdID, q)
	if r.Class != token.Issued {
		p.Conclude(d, r)
		return
	}
	d.Result = *r
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
