package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/exchange"
)

const (
	ofCall    = "smapi."
	ofRequest = "http."
	ofToken   = "token."
)

// template reads a text that may have these placeholders of a call and, if it may, those of the HTTP request.
func (r *resolver) template(field, text string, allowed []string, request bool) (t exchange.Template) {
	literal := func(text string) {
		if text != "" {
			t = append(t, exchange.Piece{Text: r.literal(field, text)})
		}
	}
	rest := text
	for i := 0; i < len(rest); i++ {
		if rest[i] != '{' || i > 0 && rest[i-1] == '\\' {
			continue
		}
		name, after, found := strings.Cut(rest[i+1:], "}")
		member, isMember := strings.CutPrefix(name, ofToken)
		isMember = isMember && slices.Contains(allowed, anyField)
		ours := strings.HasPrefix(name, ofCall) || strings.HasPrefix(name, ofRequest) || isMember
		switch {
		case !ours:
			continue
		case !found:
			r.fail(field, errUnclosed)
		case isMember:
			if member == "" {
				r.fail(field, errTokenField)
			}
		case strings.HasPrefix(name, ofCall):
			if !slices.Contains(allowed, name) {
				r.fail(field, errPlaceholder(name, allowed))
			}
		case !request:
			r.fail(field, errRequest)
		}
		literal(rest[:i])
		t = append(t, exchange.Piece{Placeholder: name})
		rest, i = after, -1
	}
	literal(rest)
	return t
}

// literal returns a text as it is whenever it is asked for: the files in it are followed where that is wanted.
func (r *resolver) literal(field, text string) func() string {
	if r.files != nil && strings.Contains(text, "{file.") {
		r.closed(field, text)
		get, err := r.files.text(field, text)
		if err != nil {
			r.fail(field, err)
			return func() string { return "" }
		}
		return get
	}
	replaced := r.text(field, text)
	return func() string { return replaced }
}

func errPlaceholder(name string, allowed []string) error {
	if !exchange.IsPlaceholder(name) {
		return fmt.Errorf("has a placeholder that no call has; there are {%s}", strings.Join(allowed, "}, {"))
	}
	return fmt.Errorf("{%s} is not available here; {%s} are", name, strings.Join(allowed, "}, {"))
}

var (
	errUnclosed      = errors.New("has a placeholder without its closing brace; a brace that is meant needs a backslash before it")
	errTokenField    = errors.New("{token.} needs the name of a field of the token response, such as {token.legacy_password}")
	errRequest       = errors.New("has a placeholder of the HTTP request, which only header can have")
	errNoCredentials = errors.New("no param of it holds the account's credentials, as in param subject_token {smapi.token}")
)
