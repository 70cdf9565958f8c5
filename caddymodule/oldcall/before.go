package oldcall

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/legacy"
)

// before is a request before the handlers behind ours have changed it, as they do in place, so that each call that is made of
// it meets them as if it were the first one.
type before struct {
	header legacy.Fields
	url    url.URL
	groups []string
}

// routeGroup is where Caddy keeps the groups of routes, such as handle blocks, of which one has been taken.
const routeGroup caddy.CtxKey = "route_group"

func groupsOf(r *http.Request) map[string]struct{} {
	groups, _ := r.Context().Value(routeGroup).(map[string]struct{})
	return groups
}

var befores = sync.Pool{New: func() any { return new(before) }}

// remember returns what r is now, until release.
func remember(r *http.Request) *before {
	b := befores.Get().(*before)
	b.url = *r.URL
	b.header = b.header.Of(r.Header)
	for group := range groupsOf(r) {
		b.groups = append(b.groups, group)
	}
	return b
}

// restore has r be as it was.
func (b *before) restore(r *http.Request) {
	*r.URL = b.url
	b.header.Restore(r.Header)
	groups := groupsOf(r)
	clear(groups)
	for _, group := range b.groups {
		groups[group] = struct{}{}
	}
}

func (b *before) release() {
	const usual = 64
	if len(b.header) > usual {
		return // and keep no room for as many
	}
	clear(b.header)
	clear(b.groups)
	b.url, b.groups = url.URL{}, b.groups[:0]
	befores.Put(b)
}

// own gives a call its own copy of the variables of its request, which placeholders show. A connection that is still being made
// for the call before it, although that went by another one, goes on reading those.
func own(ctx context.Context) context.Context {
	vars, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if vars == nil {
		return ctx
	}
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
	shared, _ := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if shared == nil {
		return ctx
	}
	withVars, replacer := ctx, caddy.NewReplacer()
	replacer.Map(func(key string) (any, bool) {
		name, isVar := strings.CutPrefix(key, "http.vars.")
		switch {
		case isVar:
			return caddyhttp.GetVar(withVars, name), true
		case strings.HasPrefix(key, "file."): // which the new one knows, and can be told not to
			return nil, false
		}
		return shared.Get(key)
	})
	return context.WithValue(ctx, caddy.ReplacerCtxKey, replacer)
}
