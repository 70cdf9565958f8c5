package vault

import (
	"context"
	"encoding/hex"
	"path"
	"strconv"
	"strings"
	"time"
)

// Failure is a failed login of an account, at whichever instance.
type Failure struct {
	At time.Time

	// Proof and Network are digests of the credentials that were refused and of where they came from. Digest makes them.
	Proof, Network string

	// Elsewhere tells that it was at another instance, or before this one was restarted.
	Elsewhere bool
}

// digestSize is how many bytes of a digest tell failures apart.
const digestSize = 8

// Digest stands for a text, the same at every instance, and cannot be tried out without the key.
func (v *Vault) Digest(kind, text string) string {
	return hex.EncodeToString(v.config.Keys().namers[0].digest(kind, text)[:digestSize])
}

// maxFailures is how many failed logins of an account are looked at.
const maxFailures = 1000

// failures is where those of an account are. All there is to say of one is in its name, so that instances add theirs at
// once and none is lost, and one look finds them all.
func (n *namer) failures(account string) string {
	d := n.digest(ofAccount, account)[:partSize]
	return n.shard(failed, d[0]) + "/" + lower.EncodeToString(d)
}

// Failures are the failed logins of an account since a time. Those that are under way or just being noted at another
// instance are missing.
func (v *Vault) Failures(ctx context.Context, account string, since time.Time) ([]Failure, error) {
	keys, err := v.storage.list(ctx, v.config.Keys().namers[0].failures(account))
	if err != nil {
		return nil, unavailable(err)
	}
	var found []Failure
	for _, key := range keys[:min(len(keys), maxFailures)] {
		if f, by, ok := parseFailure(key); ok && f.At.After(since) {
			f.Elsewhere = by != v.instance
			found = append(found, f)
		}
	}
	return found, nil
}

// Failed notes a failed login of an account. Those from before a time are forgotten.
func (v *Vault) Failed(ctx context.Context, account string, f Failure, forget time.Time) error {
	ctx, cancel := afterAll(ctx)
	defer cancel()
	folder := v.config.Keys().namers[0].failures(account)
	if err := v.storage.store(ctx, folder+"/"+f.name()+"-"+v.instance, []byte("-")); err != nil {
		return unavailable(err)
	}
	return v.forgetFailures(ctx, folder, forget)
}

func (v *Vault) forgetFailures(ctx context.Context, folder string, before time.Time) error {
	keys, err := v.storage.list(ctx, folder)
	if err != nil {
		return unavailable(err)
	}
	for _, key := range keys[:min(len(keys), maxFailures)] {
		if f, _, ok := parseFailure(key); !ok || f.At.Before(before) {
			if err := v.storage.remove(ctx, key); err != nil {
				return unavailable(err)
			}
		}
	}
	return nil
}

func (f *Failure) name() string {
	return strconv.FormatInt(f.At.UnixMilli(), 36) + "-" + f.Proof + "-" + f.Network
}

func parseFailure(key string) (f Failure, instance string, ok bool) {
	parts := strings.Split(path.Base(key), "-")
	if len(parts) != 4 {
		return f, "", false
	}
	at, err := strconv.ParseInt(parts[0], 36, 64)
	return Failure{At: time.UnixMilli(at), Proof: parts[1], Network: parts[2]}, parts[3], err == nil
}
