package token

import (
	"bytes"
	"context"
	"encoding/json"
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
	// staleLife is how long the last good metadata is used before it is looked for again, once that has failed.
	staleLife = time.Minute
	// metadataTimeout bounds the time for asking for it, beside the callers' own deadlines.
	metadataTimeout = 10 * time.Second
)

// Metadata is what an issuer has said of its endpoints. It outlives Endpoints, so that one that works is not lost
// with a new configuration. The zero Metadata knows nothing. It is safe for concurrent use.
type Metadata struct {
	asking singleflight.Group

	mu      sync.Mutex
	found   *endpoints
	failed  Answer // in the place of found
	expires time.Time
}

// endpoints are those of one authorization server. Device is nil where it has none.
type endpoints struct{ token, device *url.URL }

// expire has it looked for again.
func (m *Metadata) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expires = time.Time{}
}

// discovery finds the token endpoint of an issuer when it is needed, by OpenID Connect Discovery 1.0 section 4
// or, where the issuer has no such document, RFC 8414 section 3.
type discovery struct {
	*Metadata
	issuer   string
	insecure bool
	mtls     bool // RFC 8705 section 5: prefer the endpoint for client certificates
	get      func(context.Context, *url.URL) (Answer, map[string]string)
}

// metadataFields are what is kept of an issuer's metadata. The aliases for client certificates are kept by aliases and
// their names.
var metadataFields = []string{"issuer", tokenEndpoint, deviceEndpoint}

const (
	tokenEndpoint  = "token_endpoint"
	deviceEndpoint = "device_authorization_endpoint" // RFC 8628 section 4
	aliases        = "mtls_endpoint_aliases."
)

// addAliases adds the endpoints for client certificates that the metadata has.
func addAliases(to map[string]string, metadata []byte) {
	var members, given map[string]json.RawMessage
	_ = json.Unmarshal(bytes.TrimPrefix(metadata, byteOrderMark), &members) // none of another kind
	_ = json.Unmarshal(members["mtls_endpoint_aliases"], &given)
	for _, name := range [...]string{tokenEndpoint, deviceEndpoint} {
		if alias := textOf(given[name]); alias != "" {
			to[aliases+name] = alias
		}
	}
}

const causeNoMetadata = "the issuer's metadata is not available"

// locate returns the endpoints, or what came in between: unavailable where there was no answer,
// misconfigured where there was one of no use.
func (d *discovery) locate(ctx context.Context) (*endpoints, *Answer) {
	u, failed, fresh := d.known()
	if fresh {
		return u, failed
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
	if u != nil {
		return u, nil // the last good one, while the next is looked for
	}
	select {
	case <-asked:
		u, failed, _ := d.known()
		return u, failed
	case <-ctx.Done():
		a := broken(0, Unavailable, "no metadata of the issuer in time", "")
		return nil, &a
	}
}

// learn keeps what the issuer says, or that it does not, even if the transport panics.
func (d *discovery) learn(ctx context.Context) {
	failed := broken(0, Unavailable, "the request for the issuer's metadata broke off", "")
	var u *endpoints
	defer func() {
		_ = recover() // singleflight would end the process
		d.mu.Lock()
		defer d.mu.Unlock()
		now := time.Now()
		switch {
		case u != nil:
			d.found, d.expires = u, now.Add(metadataLife)
		case d.found != nil:
			d.expires = now.Add(staleLife)
		default:
			d.failed, d.expires = failed, now.Add(failureLife)
		}
	}()
	u, failed = d.ask(ctx)
}

// known returns what is known, and whether that is still fresh. The last good endpoint stays in force: an issuer whose
// metadata is gone is no reason to leave an endpoint alone that works.
func (d *discovery) known() (u *endpoints, failed *Answer, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh = time.Now().Before(d.expires)
	if d.found != nil {
		return d.found, nil, fresh
	}
	a := d.failed
	if !fresh {
		a = broken(a.Status, Unavailable, causeNoMetadata, "")
	}
	return nil, &a, fresh
}

func (d *discovery) ask(ctx context.Context) (*endpoints, Answer) {
	issuer, err := url.Parse(d.issuer)
	if err != nil {
		return nil, broken(0, Misconfigured, "no metadata at the issuer", "check issuer")
	}
	path := strings.TrimSuffix(issuer.EscapedPath(), "/")
	none := broken(0, Misconfigured, "no metadata at the issuer",
		"check issuer against the server's documentation, or give its token endpoint instead")
	for _, at := range [...]string{
		path + "/.well-known/openid-configuration",
		"/.well-known/oauth-authorization-server" + path,
	} {
		u := *issuer
		u.RawPath = at
		u.Path, _ = url.PathUnescape(at) // which was escaped right
		a, metadata := d.get(ctx, &u)
		switch {
		case a.Failure != nil:
			return nil, broken(a.Status, a.Failure.Class, "the issuer's metadata: "+a.Failure.Cause, a.Failure.Fix)
		case a.Status >= 500 || a.Status == http.StatusTooManyRequests:
			none = broken(a.Status, Unavailable, causeNoMetadata, "")
			none.HoldBack = a.HoldBack
			return nil, none
		case a.Status == http.StatusOK && a.Readable:
			return d.read(a.Status, metadata)
		case a.Status == http.StatusOK:
			none = broken(a.Status, Unavailable, "the issuer's metadata is no JSON, as from a proxy in between", "")
		case none.Failure.Class == Misconfigured:
			none.Status = a.Status
		}
	}
	return nil, none
}

// read takes the endpoints from metadata that is the issuer's own: RFC 8414 section 3.3.
func (d *discovery) read(status int, metadata map[string]string) (*endpoints, Answer) {
	if metadata["issuer"] != d.issuer {
		return nil, broken(status, Misconfigured, "the metadata is that of another issuer",
			"give issuer as the server itself spells it, to the slash at its end")
	}
	token, err := d.parse(metadata, tokenEndpoint)
	if err != nil {
		return nil, broken(status, Misconfigured, "the token endpoint in the issuer's metadata "+err.Error(), "give the token endpoint instead of issuer")
	}
	device, _ := d.parse(metadata, deviceEndpoint) // one of no use is as none
	return &endpoints{token, device}, Answer{}
}

func (d *discovery) parse(metadata map[string]string, name string) (*url.URL, error) {
	endpoint := metadata[name]
	if alias := metadata[aliases+name]; d.mtls && alias != "" {
		endpoint = alias
	}
	u, err := ParseURL(endpoint, d.insecure)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && strings.HasPrefix(d.issuer, "https:") {
		return nil, errHTTP // not even on loopback
	}
	return u, nil
}
