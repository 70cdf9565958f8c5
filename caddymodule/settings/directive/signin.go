package directive

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
)

func unmarshalSignIn(o *settings.Options, d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("sign_in takes no value, but a block")
	}
	o.SignIn = new(settings.SignIn)
	seen := map[string]bool{}
	for d.NextBlock(1) {
		name := d.Val()
		if seen[name] && name != "param" {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
		if err := unmarshalSignInField(o.SignIn, name, d); err != nil {
			return err
		}
	}
	return nil
}

func unmarshalSignInField(s *settings.SignIn, name string, d *caddyfile.Dispenser) error {
	switch name {
	case "device_endpoint":
		return text(d, name, &s.DeviceEndpoint)
	case "client_id":
		return text(d, name, &s.ClientID)
	case "client_secret":
		return text(d, name, &s.ClientSecret)
	case "client_auth":
		return text(d, name, &s.ClientAuth)
	case "scope":
		if s.Scope = d.RemainingArgs(); len(s.Scope) == 0 {
			return wrongArgs(d, name)
		}
		return nil
	case "param":
		return pair(d, name, &s.Param, settings.CheckParam)
	case "app_url_string_id":
		return text(d, name, &s.AppURLStringID)
	case "show_link_code":
		s.ShowLinkCode = new(bool)
		return onOff(d, name, s.ShowLinkCode)
	case "user_id":
		return text(d, name, &s.UserID)
	}
	return unrecognized(d, "sign_in", name)
}
