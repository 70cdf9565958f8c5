package main

import (
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/legacy"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/replay"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// Vault is what a vault in files costs.
type Vault struct {
	Records int     `json:"records"`
	DiskMiB float64 `json:"disk_mib"`

	// Microseconds for each, of eight at once: an upgrade's write, a refresh that the record answers, and one that asks,
	// without the token endpoint.
	Write   float64 `json:"write_us"`
	LookUp  float64 `json:"look_up_us"`
	Refresh float64 `json:"refresh_us"`

	// Homes is how many homes, with their sessions at an old service, are then in memory, which takes HomesMiB.
	Homes    int     `json:"homes"`
	HomesMiB float64 `json:"homes_mib"`

	// Seconds that an hour's share of forgetting takes, with nothing to remove, and where all of it is.
	Forget    float64 `json:"forget_seconds"`
	ForgetAll float64 `json:"forget_all_seconds"`
}

const bearer = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9" // some tokens are JWTs of a few hundred bytes

func measureVault(records int) (*Vault, error) {
	dir, err := os.MkdirTemp("", "smapi-bench-vault-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		return nil, err
	}
	keys, err := seal.ParseKeys(text)
	if err != nil {
		return nil, err
	}
	files := &certmagic.FileStorage{Path: dir}
	storage := certmagic.Storage(hasty{files})
	var ahead atomic.Int64
	open := func() *vault.Vault {
		return vault.New(vault.Config{
			Keys:        func() *seal.Keys { return keys },
			Storage:     func() certmagic.Storage { return storage },
			ForgetAfter: func() time.Duration { return 400 * 24 * time.Hour },
			Now:         func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		})
	}
	v, result := open(), &Vault{Records: records}
	ctx := context.Background()
	tokens := func(n int, life time.Duration) vault.Tokens {
		text := bearer + strconv.Itoa(n)
		for len(text) < 700 {
			text += bearer
		}
		fields := map[string]string{"smapi.username": "listener" + strconv.Itoa(n) + "@example.com", "smapi.password": text[:16]}
		return vault.Tokens{Access: text, Refresh: text[:64], Life: life, Fields: fields}
	}
	handles := make([]string, records)
	upgraded := func(i int) error {
		got := v.Upgraded(ctx, "Sonos_"+strconv.Itoa(i), "account"+strconv.Itoa(i), tokens(i, time.Hour))
		handles[i] = got.PrivateKey
		return got.Unsaved
	}
	sample := min(records, 5000)
	filled := records - sample
	progress("filling")
	if _, err = each(filled, upgraded); err != nil {
		return nil, err
	}
	storage = files
	progress("writing records")
	result.Write, err = each(sample, func(i int) error { return upgraded(filled + i) })
	if err != nil {
		return nil, err
	}
	progress("looking up")
	result.LookUp, err = each(sample, func(i int) error {
		_, err := v.Refresh(ctx, "", handles[i*(records/sample)], "another", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	progress("refreshing")
	result.Refresh, err = each(sample, func(i int) error {
		held := tokens(i*(records/sample), 0)
		_, err := v.Refresh(ctx, "", handles[i*(records/sample)], held.Access, func(context.Context, string, func() bool) (vault.Tokens, error) {
			return tokens(-i-1, time.Hour), nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if result.DiskMiB, err = diskMiB(dir); err != nil {
		return nil, err
	}
	progress("opening")
	if err = result.inMemory(ctx, open(), handles[:min(records, legacy.MaxSessions)]); err != nil {
		return nil, err
	}
	progress("forgetting")
	if result.Forget, err = forget(ctx, v); err != nil {
		return nil, err
	}
	ahead.Store(int64(401 * 24 * time.Hour))
	result.ForgetAll, err = forget(ctx, v)
	progress("")
	return result, err
}

// inMemory opens the records of homes, and begins a session for each.
func (v *Vault) inMemory(ctx context.Context, from *vault.Vault, handles []string) error {
	before := heap()
	sessions := legacy.NewSessions(legacy.MaxSessions, time.Now)
	for i, handle := range handles {
		o, err := from.Open(ctx, handle, true)
		if err != nil {
			return err
		}
		account := &flow.OldAccount{Credentials: smapi.Credentials{
			Kind: smapi.SessionID, Username: o.Fields["smapi.username"], Password: o.Fields["smapi.password"],
		}}
		account.Digest = replay.DigestOf(account.Username, account.Password)
		o.Account.Store(account)
		at := legacy.AccountAt("old.example.com", "/smapi", account.Digest)
		_, err = sessions.Get(ctx, at, legacy.Session{}, func() (string, time.Duration, error) { return token + strconv.Itoa(i), 0, nil })
		if err != nil {
			return err
		}
	}
	v.HomesMiB = heap() - before
	v.Homes = min(sessions.Len(), from.InMemory())
	return nil
}

// heap is what is in use of it, in MiB.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// hasty waits for no disk and has no locks, to fill a vault with what is not measured.
type hasty struct{ *certmagic.FileStorage }

func (h hasty) Store(_ context.Context, key string, content []byte) error {
	path := h.Filename(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	part := path + strconv.FormatUint(mathrand.Uint64(), 36)
	if err := os.WriteFile(part, content, 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func (hasty) Lock(context.Context, string) error   { return nil }
func (hasty) Unlock(context.Context, string) error { return nil }

// each does something n times, eight at once, and returns how many microseconds each took of the whole.
func each(n int, do func(int) error) (float64, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wait sync.WaitGroup
	begun := time.Now()
	for range players {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(time.Since(begun).Microseconds()) / float64(n), nil
}

func forget(ctx context.Context, v *vault.Vault) (float64, error) {
	begun := time.Now()
	done, err := v.Forget(ctx)
	if err == nil && !done.Done {
		err = fmt.Errorf("nothing was looked at")
	}
	return time.Since(begun).Seconds(), err
}

func diskMiB(dir string) (mib float64, err error) {
	err = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			mib += float64((info.Size()+4095)/4096) / 256 // in blocks of 4 KiB
		}
		return nil // locks come and go
	})
	return mib, err
}

func (v *Vault) print(w io.Writer) {
	fmt.Fprintf(w, `| a vault of %d records in files | |
|---|---|
| on disk, in blocks of 4 KiB | %.0f MiB |
| an upgrade's write, its lock included | %.0f µs |
| a refresh that the record answers | %.0f µs |
| a refresh that asks, without the token endpoint | %.0f µs |
| %d homes in memory, with their sessions at an old service | %.0f MiB |
| the hourly part of forgetting, with nothing to remove | %.1f s |
| the hourly part of forgetting, with everything to remove | %.1f s |
`, v.Records, v.DiskMiB, v.Write, v.LookUp, v.Refresh, v.Homes, v.HomesMiB, v.Forget, v.ForgetAll)
}
