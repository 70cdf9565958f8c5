package diagnose

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// checkCharset tries an account with characters beyond ASCII by a form whose charset is said. It does so first: if the
// account is refused, nothing else of it is tried, so that no order of answers costs a second failed login.
func (x *Checked) checkCharset(ctx context.Context, account smapi.Credentials) (goOn bool) {
	all := account.Username + account.Password + account.SessionID + account.Token + account.Key
	if x.charset == nil || !strings.ContainsFunc(all, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return true
	}
	d, t := x.try(ctx, x.charset, smapi.GetDeviceAuthToken, account)
	x.Charset = t
	if d.Outcome == flow.Rejected {
		x.say(Problem, "right credentials", t.gets()+". That is with form_charset utf-8; without it they are not tried, which could be a second failed login",
			"see whether the account is right. If it is, every listener would be signed out")
		return false
	}
	return true
}

// sayCharset compares it with a form whose charset is not said.
func (x *Checked) sayCharset(right flow.Decision) {
	const check = "form_charset"
	switch {
	case x.Charset == nil:
	case !x.Charset.issued():
		x.say(Well, check, "not to be said to this server. With utf-8: "+x.Charset.gets())
	case right.Outcome == flow.Rejected:
		x.say(Problem, check, "needed: the server accepts these credentials if it is told that the form is UTF-8, and refuses them if not", "form_charset utf-8")
	default:
		x.say(Well, check, "not needed: the server reads characters beyond ASCII as they are meant")
	}
}

func (t *Tried) issued() bool { return t != nil && t.AuthToken > 0 }
