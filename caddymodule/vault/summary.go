package vault

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// Summary is what there is in a vault.
type Summary struct {
	// Records is how many there are, Written how many of them were written within each of Ages, and Older the others.
	Records int            `json:"records"`
	Written [len(Ages)]int `json:"written_within_1_7_30_365_days"`
	Older   int            `json:"older"`

	// Kids is how many were sealed by which key, where that was asked for.
	Kids map[string]int `json:"sealed_by,omitempty"`

	// Unreadable is how many of these are damaged or were sealed by a key that is not in the key file.
	Unreadable int `json:"unreadable"`
}

// Ages divide the records of a Summary.
var Ages = [...]time.Duration{24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour}

// Summarize counts all records. Open has it open each of them, too.
func (v *Vault) Summarize(ctx context.Context, open bool) (s Summary, err error) {
	s.Kids = make(map[string]int)
	err = v.all(ctx, func(m seal.Name, key string) error {
		info, err := v.store.Stat(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		s.Records++
		s.note(v.now().Sub(info.Modified))
		if !open {
			return nil
		}
		kid, err := v.sealedBy(ctx, key, new(record))
		if errors.Is(err, ErrUnavailable) {
			return err
		}
		s.Kids[kid]++
		if err != nil {
			s.Unreadable++
		}
		return nil
	})
	return s, store.Unavailable(err)
}

func (s *Summary) note(age time.Duration) {
	for i, within := range Ages {
		if age < within {
			s.Written[i]++
			return
		}
	}
	s.Older++
}

func (v *Vault) all(ctx context.Context, visit func(seal.Name, string) error) error {
	keys := v.config.Keys()
	for i := range keys.Namers() {
		for shard := range seal.Shards {
			if err := v.each(ctx, &keys.Namers()[i], byte(shard), visit); err != nil {
				return err
			}
		}
	}
	return nil
}
