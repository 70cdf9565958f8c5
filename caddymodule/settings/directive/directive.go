// Package directive reads the directive smapi_upgrade of a Caddyfile.
package directive

import (
	"errors"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Unmarshal sets the options by the tokens of a Caddyfile:
//
//	smapi_upgrade [<matcher>] [<token_endpoint>] {
//		issuer        <url>
//		client_id     <id>
//		client_secret <secret>
//		client_auth   basic|basic_raw|post|private_key_jwt|tls|none
//		scope         <scope...>
//		param         <name> <value>
//		header        <name> <value>
//		form_charset  utf-8
//		timeout       <duration>
//		max_in_flight <n>
//		transport     http { ... }
//		insecure_http
//
//		client_key         <file>
//		key_id             <kid>
//		assertion_audience <aud>
//
//		replay            <duration>|off
//		remember_rejected <duration>|off
//		failed_logins     <n> <duration>|off
//		fuse              <percent>|off
//
//		exchange login|session_id|login_token|anonymous [<grant_type>] {
//			param    <name> <value>
//			on_error <oauth_error|status> <outcome>
//		}
//
//		auth_token    <field>
//		private_key   <field> [<fallback>]
//
//		on_rejected   reauthorize|not_linked
//		on_error      <oauth_error|status> rejected|unavailable|misconfigured
//		mode          upgrade|reauthorize|observe
//		households    <percent>
//
//		expire_session_ids
//		refresh_auth_tokens
//
//		vault <key_file> {
//			forget_after <duration>
//		}
//
//		sign_in {
//			device_endpoint   <url>
//			client_id         <id>
//			client_secret     <secret>
//			client_auth       basic|basic_raw|post|private_key_jwt|tls|none
//			scope             <scope...>
//			param             <name> <value>
//			app_url_string_id <id>
//			show_link_code    on|off
//			user_id           <field>
//		}
//
//		old_service session_id|login|login_token|anonymous {
//			username <template>
//			password <template>
//			token    <template>
//			key      <template>
//			grace    <duration>
//		}
//	}
//
// Only param, header, on_error and, for different credentials, exchange may be given more than once.
func Unmarshal(o *settings.Options, d *caddyfile.Dispenser) error {
	d.Next() // directive name
	directive := *d
	if d.NextArg() {
		o.TokenEndpoint = d.Val()
	}
	if d.NextArg() || o.TokenEndpoint == "" && d.Val() == "" {
		return wrongArgs(d, "token_endpoint")
	}
	// Where each field was given, to name the line of a mistake that shows only when all are known.
	given := map[string]caddyfile.Dispenser{}

	for d.NextBlock(0) {
		name, field := d.Val(), d.Val()
		at := *d
		if name == "exchange" {
			kind := *d
			if kind.NextArg() {
				field += " " + kind.Val()
			}
		}
		if _, again := given[field]; again && !slices.Contains(repeatable, name) {
			return d.Errf("%s is given twice", field)
		}
		given[field] = at
		if err := unmarshalField(o, name, d); err != nil {
			return err
		}
	}
	_, err := o.Resolve(nil, nil)
	if mistake, ok := errors.AsType[settings.FieldError](err); ok {
		at, ok := given[mistake.Field]
		if !ok {
			at = directive
		}
		return at.WrapErr(mistake)
	}
	return nil
}

var repeatable = []string{"param", "header", "on_error"}

func unmarshalField(o *settings.Options, name string, d *caddyfile.Dispenser) error {
	switch name {
	case "issuer":
		return text(d, name, &o.Issuer)
	case "client_id":
		return text(d, name, &o.ClientID)
	case "client_secret":
		return text(d, name, &o.ClientSecret)
	case "client_auth":
		return text(d, name, &o.ClientAuth)
	case "client_key":
		return text(d, name, &o.ClientKey)
	case "key_id":
		return text(d, name, &o.KeyID)
	case "assertion_audience":
		return text(d, name, &o.AssertionAudience)
	case "scope":
		if o.Scope = d.RemainingArgs(); len(o.Scope) == 0 {
			return wrongArgs(d, name)
		}
		return nil
	case "param":
		return pair(d, name, &o.Param, settings.CheckParam)
	case "header":
		return pair(d, name, &o.Header, settings.CheckHeader)
	case "form_charset":
		return text(d, name, &o.FormCharset)
	case "timeout":
		return parsed(d, name, &o.Timeout, parseDuration)
	case "max_in_flight":
		return parsed(d, name, &o.MaxInFlight, parseCount)
	case "transport":
		return unmarshalTransport(o, d)
	case "insecure_http":
		return flag(d, name, &o.InsecureHTTP)
	case "replay":
		return parsed(d, name, &o.Replay, value.ParseRetention)
	case "remember_rejected":
		return parsed(d, name, &o.RememberRejected, value.ParseRetention)
	case "failed_logins":
		o.FailedLogins = new(value.FailedLogins)
		text := strings.Join(d.RemainingArgs(), " ")
		var err error
		if *o.FailedLogins, err = value.ParseFailedLogins(text); err != nil {
			return d.Errf("%s: %v%s", name, err, value.Shown(text))
		}
		return nil
	case "fuse":
		return parsed(d, name, &o.Fuse, value.ParseFuse)
	case "exchange":
		return unmarshalExchange(o, d)
	case "auth_token":
		return text(d, name, &o.AuthToken)
	case "private_key":
		args := d.RemainingArgs()
		if len(args) < 1 || len(args) > 2 || slices.Contains(args, "") {
			return wrongArgs(d, name)
		}
		if o.PrivateKey = args[0]; len(args) == 2 {
			o.PrivateKeyFallback = args[1]
		}
		return nil
	case "on_rejected":
		return text(d, name, &o.OnRejected)
	case "on_error":
		return onError(d, name, &o.OnError)
	case "mode":
		return text(d, name, &o.Mode)
	case "households":
		o.Households = new(settings.Percent)
		return parsed(d, name, o.Households, households.Parse)
	case "expire_session_ids":
		return flag(d, name, &o.ExpireSessionIDs)
	case "refresh_auth_tokens":
		return flag(d, name, &o.RefreshAuthTokens)
	case "sign_in":
		return unmarshalSignIn(o, d)
	case "vault":
		return unmarshalVault(o, d)
	case "old_service":
		return unmarshalOldService(o, d)
	}
	return unrecognized(d, directiveName, name)
}

func unmarshalExchange(o *settings.Options, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 || slices.Contains(args, "") {
		return wrongArgs(d, "exchange")
	}
	x := settings.Exchange{Credentials: smapi.Kind(args[0])}
	if !slices.Contains(exchange.Kinds, x.Credentials) {
		return d.Errf("exchange: %v", settings.UnknownKind(x.Credentials))
	}
	if len(args) == 2 {
		x.GrantType = args[1]
	}
	for d.NextBlock(1) {
		var err error
		switch name := d.Val(); name {
		case "param":
			err = pair(d, name, &x.Param, x.CheckParam)
		case "on_error":
			err = onError(d, name, &x.OnError)
		default:
			err = unrecognized(d, "exchange", name)
		}
		if err != nil {
			return err
		}
	}
	o.Exchange = append(o.Exchange, x)
	return nil
}

func unmarshalVault(o *settings.Options, d *caddyfile.Dispenser) error {
	o.Vault = new(settings.Vault)
	if err := text(d, "vault", &o.Vault.KeyFile); err != nil {
		return err
	}
	for d.NextBlock(1) {
		switch name := d.Val(); {
		case name != "forget_after":
			return unrecognized(d, "vault", name)
		case o.Vault.ForgetAfter != 0:
			return d.Errf("%s is given twice", name)
		}
		if err := parsed(d, "forget_after", &o.Vault.ForgetAfter, parseDuration); err != nil {
			return err
		}
	}
	return nil
}

func unmarshalTransport(o *settings.Options, d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	if d.Val() != "http" {
		return d.WrapErr(settings.ErrTransportKind)
	}
	transport, err := caddyfile.UnmarshalModule(d, "http.reverse_proxy.transport.http")
	if err != nil {
		return err
	}
	o.TransportRaw = caddyconfig.JSONModuleObject(transport, "protocol", "http", nil)
	return nil
}
