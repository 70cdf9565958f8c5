package token

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// metadataLife is for how long the metadata of an issuer is good.
	metadataLife = time.Hour
	// failureLife is for how long a failure to have it is not tried again.
	failureLife = time.Second
	// metadataTimeout bounds the time for asking for it, beside the callers' own deadlines.
	metadataTimeout = 10 * time.Second
)

// discovery finds the token endpoint of an issuer when it is needed, by OpenID Connect Discovery 1.0 section 4
// or, where the issuer has no such document, RFC 8414 section 3.
type discovery struct {
	issuer   string
	insecure bool
	get      func(context.Context, *url.URL) (content []byte, answered Result)
	asking   singleflight.Group

	mu      sync.Mutex
	found   *url.URL
	failed  Result // in the place of found
	expires time.Time
}

// locate returns the token endpoint, or what came in between: unavailable where there was no answer,
// misconfigured where there was one of no use.
func (d *discovery) locate(ctx context.Context) (*url.URL, Result) {
	if u, r, ok := d.known(); ok {
		return u, r
	}
	asked := d.asking.DoChan("", func() (any, error) {
		if _, _, ok := d.known(); ok { // by who asked a moment ago
			return nil, nil
		}
		// Others wait for it too, with deadlines of their own.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), metadataTimeout)
		defer cancel()
		d.learn(ctx)
		return nil, nil
	})
	select {
	case <-asked:
		u, r, _ := d.known()
		return u, r
	case <-ctx.Done():
		return nil, Result{}.is(Unavailable, "no metadata of the issuer in time", "")
	}
}

// learn keeps what the issuer says, or that it does not, even if the transport panics.
func (d *discovery) learn(ctx context.Context) {
	r := Result{}.is(Unavailable, "the request for the issuer's metadata broke off", "")
	var u *url.URL
	defer func() {
		_ = recover() // singleflight would end the process
		d.mu.Lock()
		defer d.mu.Unlock()
		d.found, d.failed, d.expires = u, r, time.Now().Add(failureLife)
		if u != nil {
			d.expires = time.Now().Add(metadataLife)
		}
	}()
	u, r = d.ask(ctx)
}

// known returns what is known, if that is still good.
func (d *discovery) known() (u *url.URL, failed Result, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !time.Now().Before(d.expires) {
		return nil, d.failed.is(Unavailable, "the issuer's metadata cannot be had", ""), false
	}
	return d.found, d.failed, true
}

func (d *discovery) ask(ctx context.Context) (*url.URL, Result) {
	issuer, err := url.Parse(d.issuer)
	if err != nil {
		return nil, Result{}.is(Misconfigured, "no metadata at the issuer", "check issuer")
	}
	path := strings.TrimSuffix(issuer.EscapedPath(), "/")
	none := Result{}.is(Misconfigured, "no metadata at the issuer",
		"check issuer against the server's documentation, or give its token endpoint instead")
	for _, at := range [...]string{
		path + "/.well-known/openid-configuration",
		"/.well-known/oauth-authorization-server" + path,
	} {
		u := *issuer
		u.RawPath = at
		u.Path, _ = url.PathUnescape(at) // which was escaped right
		content, r := d.get(ctx, &u)
		o, _ := readJSON(content)
		switch {
		case r.Class != "":
			return nil, r.is(r.Class, "the issuer's metadata: "+r.Cause, "")
		case r.Status >= 500 || r.Status == http.StatusTooManyRequests:
			return nil, r.is(Unavailable, "the issuer's metadata cannot be had", "")
		case r.Status == http.StatusOK && o != nil:
			return d.read(r, o)
		case r.Status == http.StatusOK:
			none = r.is(Unavailable, "the issuer's metadata is no JSON, as from a proxy in between", "")
		case none.Class == Misconfigured:
			none.Status = r.Status
		}
	}
	return nil, none
}

// read takes the token endpoint from metadata that is the issuer's own: RFC 8414 section 3.3.
func (d *discovery) read(r Result, o object) (*url.URL, Result) {
	if o.text("issuer") != d.issuer {
		return nil, r.is(Misconfigured, "the metadata is that of another issuer",
			"give issuer as the server itself spells it, to the slash at its end")
	}
	u, err := ParseURL(o.text("token_endpoint"), d.insecure)
	if err == nil && u.Scheme == "http" && strings.HasPrefix(d.issuer, "https:") {
		err = errHTTP // not even on loopback
	}
	if err != nil {
		return nil, r.is(Misconfigured, "the token endpoint in the issuer's metadata "+err.Error(), "give the token endpoint instead of issuer")
	}
	return u, r
}
