// Package failures notes the failed logins of accounts in a storage that instances share, so that all of them count
// together.
package failures

import (
	"context"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// Failure is a failed login of an account, at whichever instance.
type Failure struct {
	At time.Time

	// Proof and Network are digests of the credentials that were refused and of where they came from, without a hyphen.
	Proof, Network string

	// Elsewhere tells that it was at another instance, or before this one was restarted.
	Elsewhere bool
}

// maxFailures is how many failed logins of an account are looked at.
const maxFailures = 1000

// Log is where failed logins are noted.
type Log struct {
	Store    *store.Store
	Instance string // tells this process from others
}

// Since returns the failed logins in the folder of an account since a time. Those that are under way or just being noted
// at another instance are missing.
func (l *Log) Since(ctx context.Context, folder string, since time.Time) ([]Failure, error) {
	keys, err := l.Store.List(ctx, folder)
	if err != nil {
		return nil, store.Unavailable(err)
	}
	var found []Failure
	for _, key := range keys[:min(len(keys), maxFailures)] {
		if f, by, ok := parseFailure(key); ok && f.At.After(since) {
			f.Elsewhere = by != l.Instance
			found = append(found, f)
		}
	}
	return found, nil
}

// Note adds a failed login to the folder of an account. Those from before a time are forgotten.
func (l *Log) Note(ctx context.Context, folder string, f Failure, forget time.Time) error {
	if err := l.Store.Store(ctx, folder+"/"+f.name()+"-"+l.Instance, []byte("-")); err != nil {
		return store.Unavailable(err)
	}
	return l.forgetIn(ctx, folder, forget)
}

// Forget removes the failed logins from before a time, of all accounts.
func (l *Log) Forget(ctx context.Context, n *seal.Namer, before time.Time) error {
	for shard := range seal.Shards {
		accounts, err := l.Store.List(ctx, n.Shard(seal.Failed, byte(shard)))
		if err != nil {
			return err
		}
		for _, folder := range accounts {
			if _, _, ok := parseFailure(folder); ok { // some storages list what is in folders, too
				if err := l.forgetOld(ctx, folder, before); err != nil {
					return err
				}
				continue
			}
			if err := l.forgetIn(ctx, folder, before); err != nil {
				return err
			}
			if left, err := l.Store.List(ctx, folder); err != nil {
				return err
			} else if len(left) == 0 {
				if err := l.Store.Remove(ctx, folder); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l *Log) forgetIn(ctx context.Context, folder string, before time.Time) error {
	keys, err := l.Store.List(ctx, folder)
	if err != nil {
		return store.Unavailable(err)
	}
	for _, key := range keys[:min(len(keys), maxFailures)] {
		if err := l.forgetOld(ctx, key, before); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) forgetOld(ctx context.Context, key string, before time.Time) error {
	if f, _, ok := parseFailure(key); ok && !f.At.Before(before) {
		return nil
	}
	return store.Unavailable(l.Store.Remove(ctx, key))
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
