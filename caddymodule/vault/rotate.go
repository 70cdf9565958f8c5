package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// Rotated is what Rotate did.
type Rotated struct {
	// Sealed is how many records were sealed anew, Unreadable how many could not be opened and stay as they are.
	Seen       int `json:"records"`
	Sealed     int `json:"sealed_anew"`
	Unreadable int `json:"unreadable"`
}

// Rotate seals anew, with the first key, what another one has sealed. It can be stopped and done again at any time.
func (v *Vault) Rotate(ctx context.Context) (done Rotated, err error) {
	err = v.all(ctx, func(m seal.Name, key string) error {
		done.Seen++
		var r record
		sealed, err := v.rotate(ctx, m, key, &r)
		if err == nil && r.Alias {
			_, err = v.rotate(ctx, m, m.Alias(), new(alias))
		}
		switch {
		case sealed:
			done.Sealed++
			return err
		case errors.Is(err, fs.ErrNotExist): // since just now
		case errors.Is(err, seal.ErrBroken), errors.Is(err, seal.ErrSealed), errors.Is(err, ErrLost), errors.Is(err, ErrKey):
			done.Unreadable++
		default:
			return err
		}
		return nil
	})
	if err == nil {
		err = v.resealRest(ctx)
	}
	return done, store.Unavailable(err)
}

// rotate opens an object, and seals it anew where it was by another key than the first.
func (v *Vault) rotate(ctx context.Context, m seal.Name, key string, content any) (bool, error) {
	kid, err := v.sealedBy(ctx, key, content)
	if errors.Is(err, fs.ErrNotExist) || err == nil && kid == v.config.Keys().Kid() {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return v.reseal(ctx, m, key)
}

func (v *Vault) sealedBy(ctx context.Context, key string, content any) (kid string, err error) {
	sealed, err := v.store.Load(ctx, key)
	if err != nil {
		return "", store.Unavailable(err)
	}
	return v.config.Keys().OpenObject(sealed, content)
}

// reseal seals an object anew, under the lock of its record. One that is written all the time is sealed so.
func (v *Vault) reseal(ctx context.Context, m seal.Name, key string) (bool, error) {
	err := v.underLock(ctx, m, v.record, func(*record) error { return v.resealObject(ctx, key) })
	if errors.Is(err, errRestless) {
		return false, nil
	}
	return err == nil, err
}

func (v *Vault) resealObject(ctx context.Context, key string) error {
	var content json.RawMessage
	if err := v.store.Read(ctx, key, &content); err != nil {
		return err
	}
	sealed, err := v.config.Keys().SealObject(content)
	if err != nil {
		return err
	}
	return v.store.Store(ctx, key, sealed)
}

// resealRest seals anew what is no record.
func (v *Vault) resealRest(ctx context.Context) error {
	keys := v.config.Keys()
	for i := range keys.Namers() {
		n := &keys.Namers()[i]
		rest := []string{store.MarkKey(n), cursorKey(n)}
		endpoints, err := v.store.List(ctx, histories(n))
		if err != nil {
			return err
		}
		for _, endpoint := range endpoints {
			if strings.HasSuffix(endpoint, seal.Extension) { // some storages list what is in folders, too
				rest = append(rest, endpoint)
				continue
			}
			kept, err := v.store.List(ctx, endpoint)
			if err != nil {
				return err
			}
			rest = append(rest, kept...)
		}
		for _, key := range rest {
			if err := v.resealObject(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrLost) && !errors.Is(err, ErrKey) {
				return err
			}
		}
	}
	return nil
}
