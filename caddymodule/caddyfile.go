package caddymodule

import (
	"errors"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("smapi_upgrade", parseCaddyfile)
	// What limits requests comes first, and our answers are not compressed.
	httpcaddyfile.RegisterDirectiveOrder("smapi_upgrade", httpcaddyfile.Before, "encode")
}

func parseCaddyfile(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	return h, h.UnmarshalCaddyfile(helper.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens:
//
//	smapi_upgrade [<matcher>] <token_endpoint> {
//		client_id     <id>
//		client_secret <secret>
//		client_auth   basic|basic_raw|post|none
//		scope         <scope...>
//		param         <name> <value>
//		timeout       <duration>
//		max_in_flight <n>
//		transport     http { ... }
//		insecure_http
//
//		replay            <duration>|off
//		remember_rejected <duration>|off
//
//		auth_token    <field>
//		private_key   <field> [<fallback>]
//		on_rejected   reauthorize|not_linked
//	}
//
// Only param may be given more than once.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	directive := *d
	if !d.AllArgs(&h.TokenEndpoint) {
		return wrongArgs(d, "token_endpoint")
	}
	// Where each field was given, to name the line of a mistake that shows only when all are known.
	given := map[string]caddyfile.Dispenser{}

	for d.NextBlock(0) {
		name := d.Val()
		if _, again := given[name]; again && name != "param" {
			return d.Errf("%s is given twice", name)
		}
		given[name] = *d
		if err := h.unmarshalField(name, d); err != nil {
			return err
		}
	}
	_, err := h.resolve(nil)
	if mistake, ok := errors.AsType[fieldError](err); ok {
		at, ok := given[mistake.field]
		if !ok {
			at = directive
		}
		return at.WrapErr(mistake)
	}
	return nil
}

func (h *Handler) unmarshalField(name string, d *caddyfile.Dispenser) error {
	switch name {
	case "client_id":
		return text(d, name, &h.ClientID)
	case "client_secret":
		return text(d, name, &h.ClientSecret)
	case "client_auth":
		var auth string
		err := text(d, name, &auth)
		h.ClientAuth = token.ClientAuth(auth)
		return err
	case "scope":
		if h.Scope = d.RemainingArgs(); len(h.Scope) == 0 {
			return wrongArgs(d, name)
		}
	case "param":
		var param, value string
		if !d.AllArgs(&param, &value) {
			return wrongArgs(d, name)
		}
		if err := checkParam(param); err != nil {
			return d.WrapErr(err)
		}
		if h.Param == nil {
			h.Param = make(map[string][]string)
		}
		h.Param[param] = append(h.Param[param], value)
	case "timeout":
		return duration(d, name, &h.Timeout)
	case "max_in_flight":
		return count(d, name, &h.MaxInFlight)
	case "replay":
		return memory(d, name, &h.Replay)
	case "remember_rejected":
		return memory(d, name, &h.RememberRejected)
	case "transport":
		return h.unmarshalTransport(d)
	case "insecure_http":
		h.InsecureHTTP = true
		if d.NextArg() {
			return wrongArgs(d, name)
		}
	case "auth_token":
		return text(d, name, &h.AuthToken)
	case "private_key":
		args := d.RemainingArgs()
		if len(args) < 1 || len(args) > 2 || slices.Contains(args, "") {
			return wrongArgs(d, name)
		}
		h.PrivateKey = args[0]
		if len(args) == 2 {
			h.PrivateKeyFallback = args[1]
		}
	case "on_rejected":
		var what string
		err := text(d, name, &what)
		h.OnRejected = OnRejected(what)
		return err
	default:
		return d.Errf("unrecognized smapi_upgrade subdirective '%s'", name)
	}
	return nil
}

func (h *Handler) unmarshalTransport(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	if d.Val() != "http" {
		return d.WrapErr(errTransportKind)
	}
	transport, err := caddyfile.UnmarshalModule(d, "http.reverse_proxy.transport.http")
	if err != nil {
		return err
	}
	h.TransportRaw = caddyconfig.JSONModuleObject(transport, "protocol", "http", nil)
	return nil
}

// wrongArgs is Dispenser.ArgErr without the argument, which may be a secret.
func wrongArgs(d *caddyfile.Dispenser, name string) error {
	return d.Errf("wrong number of values, or a blank one, for %s", name)
}

func text(d *caddyfile.Dispenser, name string, to *string) error {
	if !d.AllArgs(to) || *to == "" {
		return wrongArgs(d, name)
	}
	return nil
}

func duration(d *caddyfile.Dispenser, name string, to *caddy.Duration) error {
	var value string
	if err := text(d, name, &value); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(value)
	if err != nil || parsed <= 0 {
		return d.Errf("%s: is no duration of more than 0, such as 15s", name)
	}
	*to = caddy.Duration(parsed)
	return nil
}

func memory(d *caddyfile.Dispenser, name string, to *Memory) error {
	var value string
	if err := text(d, name, &value); err != nil {
		return err
	}
	parsed, err := parseMemory(value)
	if err != nil {
		return d.Errf("%s: %v", name, err)
	}
	*to = parsed
	return nil
}

func count(d *caddyfile.Dispenser, name string, to *int) error {
	var value string
	if err := text(d, name, &value); err != nil {
		return err
	}
	parsed, err := strconv.Atoi(value)
	if err != nil || parsed < 1 {
		return d.Errf("%s: is no whole number of at least 1", name)
	}
	*to = parsed
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
