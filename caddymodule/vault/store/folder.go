package store

import (
	"context"
	"path"
	"strings"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// Folder has sealed objects by name that are no records: who writes one takes no lock, and waits for the storage.
type Folder struct {
	store *Store
	path  string
}

// Folder returns the one with this path.
func (s *Store) Folder(path string) Folder { return Folder{s, path} }

func (f Folder) key(name string) string { return f.path + "/" + name + seal.Extension }

// Names are those of all objects in it, none where there is no such folder.
func (f Folder) Names(ctx context.Context) (names []string, err error) {
	keys, err := f.store.List(ctx, f.path)
	for _, key := range keys {
		if name, ok := strings.CutSuffix(path.Base(key), seal.Extension); ok {
			names = append(names, name)
		}
	}
	return names, Unavailable(err)
}

// Read is Store.Read.
func (f Folder) Read(ctx context.Context, name string, content any) error {
	return f.store.Read(ctx, f.key(name), content)
}

// Write writes an object. An error is ErrUnavailable.
func (f Folder) Write(ctx context.Context, name string, content any) error {
	sealed, err := f.store.keys().SealObject(content)
	if err == nil {
		err = f.store.Store(ctx, f.key(name), sealed)
	}
	return Unavailable(err)
}

// Written is when an object was last written, zero where the storage does not say. Nothing there is fs.ErrNotExist.
func (f Folder) Written(ctx context.Context, name string) (time.Time, error) {
	info, err := f.store.Stat(ctx, f.key(name))
	return info.Modified, err
}

// Remove removes an object. One that is not there is no error.
func (f Folder) Remove(ctx context.Context, name string) error {
	return Unavailable(f.store.Remove(ctx, f.key(name)))
}
