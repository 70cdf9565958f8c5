package settings

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
)

// FieldError is a mistake in one field of the configuration. Its text quotes what the field holds only where that is a number, a
// duration, a share, or one of a few words.
type FieldError struct {
	// Field is the option, such as `timeout` or `exchange login`.
	Field string
	err   error
}

func (e FieldError) Error() string { return e.Field + ": " + e.err.Error() }
func (e FieldError) Unwrap() error { return e.err }

var (
	errMissing      = errors.New("is required")
	errNoEndpoint   = errors.New("is required, or issuer in its place")
	errTwoEndpoints = errors.New("cannot be combined with token_endpoint")
	errScope        = errors.New("has a character that no scope has (RFC 6749 section 3.3)")
	errCertificate  = errors.New("tls needs a client certificate in transport, and https")
	errCharset      = errors.New("must be utf-8, in which every form is sent (RFC 6749 appendix B)")
	errVaultRefresh = errors.New("needs refresh_auth_tokens, because players then hold handles that nobody else can refresh")
	errForgetAfter  = errors.New("its forget_after must be at least 24h, such as 400d")
	errNoRefresh    = errors.New("needs private_key to be refresh_token, so that players hold what refreshes their tokens")
)

// resolver replaces placeholders and keeps the first mistake.
type resolver struct {
	repl  *caddy.Replacer
	files *Files // nil: no text follows the files in it
	err   error
}

func (r *resolver) fail(field string, err error) {
	if r.err == nil {
		r.err = FieldError{field, err}
	}
}

func (r *resolver) require(field, value string) {
	if value == "" {
		r.fail(field, errMissing)
	}
}

// text replaces placeholders as a secret's are: with what is meant of variables and files, and with files read once.
func (r *resolver) text(field, value string) string {
	r.closed(field, value)
	if r.repl == nil || value == "" {
		return value
	}
	var config secret.Config
	if r.files != nil {
		config = r.files.config(field)
	}
	text, err := secret.Text(config, value, r.repl.GetString)
	if err != nil {
		r.fail(field, err)
		return ""
	}
	text.Close()
	return text.Get()
}

// closed refuses a placeholder that lacks its closing brace: Caddy would take it for literal text.
func (r *resolver) closed(field, value string) {
	for _, kind := range [...]string{"{env.", "{file."} {
		at := strings.LastIndex(value, kind)
		if at >= 0 && !strings.Contains(value[at:], "}") && !strings.HasSuffix(value[:at], `\\`) {
			r.fail(field, errUnclosed)
		}
	}
}

// retention is 0 where it is off.
func (r *resolver) retention(field string, m value.Retention) time.Duration {
	if m != value.Off && (m < 0 || m > value.MaxRetention) {
		r.fail(field, fmt.Errorf("%w (it is %v)", value.ErrRetention, time.Duration(m)))
	}
	return max(0, time.Duration(m))
}

func (r *resolver) scope(scopes []string) string {
	const field = "scope"
	for _, scope := range scopes {
		r.require(field, scope)
	}
	text := r.text(field, strings.Join(scopes, " "))
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		r.fail(field, errScope)
	}
	return text
}

func (r *resolver) url(field, value string, insecure bool, parse func(string, bool) (*url.URL, error)) *url.URL {
	text := r.text(field, value)
	if value == "" || r.repl == nil && strings.Contains(value, "{") {
		return nil
	}
	u, err := parse(text, insecure)
	if err != nil {
		r.fail(field, err)
	}
	return u
}

// oneOf shows a value that is none of those that are allowed, but never that of client_auth: it stands beside the secret.
func oneOf[T ~string](r *resolver, field string, given T, allowed ...T) {
	if slices.Contains(allowed, given) {
		return
	}
	var names []string
	for _, a := range allowed {
		names = append(names, string(a))
	}
	hint := value.Meant(string(given), names...)
	if hint == "" && field != "client_auth" {
		hint = value.ShownWord(string(given))
	}
	r.fail(field, fmt.Errorf("has to be one of %s%s", strings.Join(names, ", "), hint))
}
