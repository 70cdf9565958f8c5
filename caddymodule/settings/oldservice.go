package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

const (
	oldService   = "old_service"
	defaultGrace = 24 * time.Hour
	maxGrace     = 30 * 24 * time.Hour

	// anyField stands for a field of the token response among the placeholders of a template.
	anyField = "token.FIELD"
)

var (
	errOldVault    = errors.New("needs vault, where it keeps what the old service wants to know")
	errOldMode     = errors.New("cannot be combined with mode reauthorize, because upgraded homes go on calling; households 0% upgrades nobody else")
	errOldFallback = errors.New("cannot be combined with a fallback of private_key, because every home has to be able to refresh")
	errOldKind     = errors.New("needs what the old service knows, one of session_id, login, login_token and anonymous")
	errGrace       = errors.New("its grace must be at most 720h")
)

// Parts are the templates, by their names.
func (o *OldService) Parts() map[string]*string {
	return map[string]*string{"username": &o.Username, "password": &o.Password, "token": &o.Token, "key": &o.Key}
}

var defaultParts = map[string]string{
	"username": "{smapi.username}", "password": "{smapi.password}", "token": "{smapi.token}", "key": "{smapi.key}",
}

// resolveOldService settles how calls of upgraded homes are put to the old service.
func (o *Options) resolveOldService(r *resolver, p *flow.Policy) {
	old := o.OldService
	if old == nil {
		return
	}
	kind := old.Credentials
	switch grace := time.Duration(old.Grace); {
	case !slices.Contains(exchange.Kinds, kind):
		r.fail(oldService, meantKind(errOldKind, kind))
		return
	case o.Vault == nil:
		r.fail(oldService, errOldVault)
	case p.Mode == ModeReauthorize:
		r.fail(oldService, errOldMode)
	case o.PrivateKeyFallback != "":
		r.fail(oldService, errOldFallback)
	case grace < 0 || grace > maxGrace:
		r.fail(oldService, fmt.Errorf("%w (it is %v)", errGrace, grace))
	}
	allowed := append(flow.OldPlaceholders(), anyField)
	values := map[string]exchange.Template{}
	given := old.Parts()
	for _, name := range slices.Sorted(maps.Keys(given)) {
		used := slices.Contains(flow.OldParts(kind), name)
		switch {
		case used:
			values[name] = r.template(oldService, orDefault(*given[name], defaultParts[name]), allowed, false)
		case *given[name] != "":
			r.fail(oldService, fmt.Errorf("its %s is not used for %s", name, kind))
		}
	}
	p.OldService = flow.NewOldService(kind, values, orDefault(time.Duration(old.Grace), defaultGrace))
}

// tokenFields are the fields of a token response that are kept for the old service.
func tokenFields(p *flow.Policy) []string {
	if p.OldService == nil {
		return nil
	}
	return p.OldService.TokenFields()
}

// Unfilled says for each kind of credentials that is exchanged which placeholders of old_service an upgrade of it does not
// fill.
func (s *Settings) Unfilled() map[smapi.Kind][]string {
	unfilled := map[smapi.Kind][]string{}
	if s.Policy.OldService == nil {
		return unfilled
	}
	for kind := range s.Policy.Rules {
		if lacks := s.Policy.OldService.Lacks(kind); len(lacks) > 0 {
			unfilled[kind] = lacks
		}
	}
	return unfilled
}
