package diagnose

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// named is by what on_error names an answer: its OAuth error, or its status where it has none and is no page of what stands in
// front of the server. Blank is by nothing.
func (t *Tried) named() string {
	switch {
	case t == nil || t.Error == "other":
		return ""
	case t.Error == "" && t.OfStatus:
		return strconv.Itoa(t.Status)
	case (settings.OnError{t.Error: token.Rejected}).Check() != nil: // such as a number that would be a status
		return ""
	}
	return t.Error
}

// OnError is the option that gives a refusal another meaning, blank where the server says the same of others.
func (t *Tried) OnError(means token.Class, others ...*Tried) string {
	name := t.named()
	for _, other := range others {
		if other.named() == name {
			return ""
		}
	}
	if name == "" {
		return ""
	}
	return fmt.Sprintf("on_error %s %s", name, means)
}

// checkWrong tries what a player with an old password has, and what a client has whose secret was changed. The latter has
// the right credentials: a server that looks at them first must not count a failed login.
func (x *Checked) checkWrong(ctx context.Context, account smapi.Credentials) {
	var refused, wrong flow.Decision
	if x.impostor != nil {
		refused, x.WrongSecret = x.try(ctx, x.impostor, smapi.GetDeviceAuthToken, account)
	}
	if account.Kind != smapi.Anonymous {
		wrong, x.Wrong = x.try(ctx, x.exchanger, smapi.GetDeviceAuthToken, spoiled(account))
		x.sayWrong(&wrong)
		x.checkPosts("the wrong ones", x.Wrong.Posts)
	}
	if x.impostor != nil {
		x.sayWrongSecret(&refused)
		x.checkPosts("the wrong secret", x.WrongSecret.Posts)
	}
}

func (x *Checked) sayWrong(d *flow.Decision) {
	const check = "wrong credentials"
	t, says := x.Wrong, x.Wrong.gets()+". It has to be rejected"
	onError := t.OnError(token.Rejected, x.WrongSecret)
	switch {
	case d.Outcome == flow.Rejected:
		x.say(Well, check, t.gets())
	case d.Result.Class == token.Issued:
		x.say(Problem, check, "accepted: whoever calls gets tokens", "have the server verify the credentials, and param pass them on")
	case d.Result.Class != token.Misconfigured:
		x.say(Fix, check, says, "try again; if it stays so, see what the server says of a wrong password, and say what that means by on_error")
	case t.Error == "invalid_client" || onError == "" && t.named() != "":
		x.say(Fix, check, says, "have the server say invalid_grant. Do not name it by on_error: it is also what a client secret that ran out would say")
	case onError != "":
		x.say(Fix, check, says, onError+", if the server says that of nothing else")
	default:
		x.say(Fix, check, says, "have the server say invalid_grant, since on_error cannot name what it says")
	}
}

// sayWrongSecret says what becomes of listeners when the client's secret is changed or runs out.
func (x *Checked) sayWrongSecret(d *flow.Decision) {
	const check = "wrong secret"
	t := x.WrongSecret
	switch {
	case d.Result.Class == token.Issued:
		x.say(Fix, check, "accepted: the server does not look at the client's secret", "have it demand the secret, so that nobody else can log in as this client")
	case t.Status == 0:
		x.say(Fix, check, "not known what the server says of it: "+t.why(), "try again")
	case d.Outcome != flow.Rejected:
		x.say(Well, check, t.gets()+". It is no rejection: a secret that is changed signs nobody out")
	default:
		says := t.gets() + ". A secret that is changed or runs out would sign listeners out"
		fix := t.OnError(token.Misconfigured, x.Wrong)
		switch {
		case fix == "":
			fix = "have the server say invalid_client of it, and not what it says of a wrong password or what on_error cannot name. Until then leave fuse on"
		case d.Result.ByOnError:
			fix += ", in the place of the one that says " + string(token.Rejected)
		}
		x.say(Fix, check, says, fix)
	}
}

// checkLocked tries an account that the server has locked: its listener must not be signed out by a lock that ends.
func (x *Checked) checkLocked(ctx context.Context, account smapi.Credentials) {
	const check = "locked account"
	d, t := x.try(ctx, x.exchanger, smapi.GetDeviceAuthToken, account)
	x.Locked = t
	fix := t.OnError(token.Unavailable, x.Wrong, x.WrongSecret)
	switch {
	case d.Rule == nil:
		x.say(Fix, check, "nothing is exchanged: "+d.Reason.Says, "give an account that the server has locked")
		return
	case d.Result.Class == token.Issued:
		x.say(Fix, check, "accepted: it is not locked", "give an account that the server has locked")
	case t.Status == 0:
		x.say(Fix, check, "not known what the server says of it: "+t.why(), "try again")
	case d.Result.Class == token.Unavailable:
		x.say(Well, check, t.gets()+". It is asked for again later")
	case fix != "":
		says := ". A lock that ends would sign its listener out"
		if d.Outcome != flow.Rejected {
			says = ". Each locked account is an error in the log"
		}
		x.say(Fix, check, t.gets()+says, fix)
	case d.Outcome != flow.Rejected:
		x.say(Well, check, t.gets()+". It keeps what it has")
	case x.guarded():
		x.say(Well, check, t.gets()+". on_error cannot tell it from a wrong password: keep failed_logins below what locks an account at the server")
	default:
		x.say(Fix, check, t.gets()+". on_error cannot tell it from a wrong password", "set failed_logins below what locks an account at the server")
	}
	x.checkPosts("the locked account", t.Posts)
}

// guarded reports whether the failed logins of an account that reach the server are bounded.
func (x *Checked) guarded() bool {
	return x.settings.FailedLogins.Failures > 0
}

// spoiled are credentials that are not those of the account.
func spoiled(c smapi.Credentials) smapi.Credentials {
	wrong := rand.Text()
	switch c.Kind {
	case smapi.Login:
		c.Password = wrong
	case smapi.SessionID:
		c.SessionID = wrong
	case smapi.LoginToken:
		c.Token, c.Key = wrong, wrong
	}
	return c
}
