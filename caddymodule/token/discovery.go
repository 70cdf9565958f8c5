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
	// metadataTimeout bounds the time for asking for it, beside the callers' own deadlines.
	metadataTimeout = 10 * time.Second
)

// discovery finds the token endpoint of an issuer when it is needed, by OpenID Connect Discovery 1.0 section 4
// or, where the issuer has no such document, RFC 8414 section 3.
type discovery struct {
	issuer   *url.URL
	insecure bool
	get      func(context.Context, *url.URL) (content []byte, answered Result)
	asking   singleflight.Group

	mu      sync.Mutex
	found   *url.URL
	expires time.Time
}

// locate returns the token endpoint, or what came in between: unavailable where there was no answer,
// misconfigured where there was one of no use.
func (d *discovery) locate(ctx context.Context) (*url.URL, Result) {
	if u := d.known(); u != nil {
		return u, Result{}
	}
	type located struct {
		url    *url.URL
		result Result
	}
	answer := d.asking.DoChan("", func() (any, error) {
		if u := d.known(); u != nil { // by who asked a moment ago
			return located{url: u}, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), metadataTimeout)
		defer cancel()
		u, r := d.ask(ctx)
		if u != nil {
			d.mu.Lock()
			d.found, d.expires = u, time.Now().Add(metadataLife)
			d.mu.Unlock()
		}
		return located{u, r}, nil
	})
	select {
	case a := <-answer:
		found := a.Val.(located)
		return found.url, found.result
	case <-ctx.Done():
		return nil, Result{}.is(Unavailable, "no metadata of the issuer in time", "")
	}
}

func (d *discovery) known() *url.URL {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Now().After(d.expires) {
		return nil
	}
	return d.found
}

func (d *discovery) ask(ctx context.Context) (*url.URL, Result) {
	path := strings.TrimSuffix(d.issuer.Path, "/")
	none := Result{}.is(Misconfigured, "no metadata at the issuer",
		"check issuer against the server's documentation, or give its token endpoint instead")
	for _, at := range [...]string{
		path + "/.well-known/openid-configuration",
		"/.well-known/oauth-authorization-server" + path,
	} {
		u := *d.issuer
		u.Path, u.RawPath = at, ""
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
	if o.text("issuer") != d.issuer.String() {
		return nil, r.is(Misconfigured, "the metadata is that of another issuer",
			"give issuer as the server itself spells it, to the slash at its end")
	}
	u, err := ParseURL(o.text("token_endpoint"), d.insecure)
	if err != nil {
		return nil, r.is(Misconfigured, "the token endpoint in the issuer's metadata "+err.Error(), "give the token endpoint instead of issuer")
	}
	return u, r
}
