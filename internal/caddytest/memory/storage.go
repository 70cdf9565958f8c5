// Package memory is a storage of Caddy's in memory, for tests.
package memory

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
)

// storage is one of this process, for tests that look at no file of it. One in files waits for the disk at each write
// and each lock, which takes longer than all else that many tests do.
type storage struct {
	mu      sync.Mutex
	objects map[string]object
	locks   map[string]chan struct{}
}

type object struct {
	content  []byte
	modified time.Time
}

// memories has each by its name.
var memories sync.Map

// New is the global option for a storage that has nothing yet, until the test ends.
func New(t testing.TB) string {
	m := &storage{objects: map[string]object{}, locks: map[string]chan struct{}{}}
	name := fmt.Sprintf("%p", m)
	memories.Store(name, m)
	t.Cleanup(func() { memories.Delete(name) })
	return "storage test_memory " + name
}

// module is how a configuration names one.
type module struct {
	Name string `json:"name"`
}

func init() { caddy.RegisterModule(new(module)) }

func (*module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.test_memory", New: func() caddy.Module { return new(module) }}
}

func (m *module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.Args(&m.Name)
	return nil
}

func (m *module) CertMagicStorage() (certmagic.Storage, error) {
	found, ok := memories.Load(m.Name)
	if !ok {
		return nil, fmt.Errorf("no storage %s in this process", m.Name)
	}
	return found.(*storage), nil
}

func (m *storage) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(o.content), nil
}

func (m *storage) Store(_ context.Context, key string, content []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = object{slices.Clone(content), time.Now()}
	return nil
}

func (m *storage) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	folder := key + "/"
	maps.DeleteFunc(m.objects, func(k string, _ object) bool { return k == key || strings.HasPrefix(k, folder) })
	return nil
}

func (m *storage) Exists(ctx context.Context, key string) bool {
	_, err := m.Stat(ctx, key)
	return err == nil
}

// List names folders, too, as of files, and there is no folder with nothing in it.
func (m *storage) List(_ context.Context, path string, recursive bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	folder, found := strings.TrimSuffix(path, "/")+"/", map[string]bool{}
	for key := range m.objects {
		rest, ok := strings.CutPrefix(key, folder)
		for at := folder; ok; at += "/" {
			var name string
			name, rest, ok = strings.Cut(rest, "/")
			at += name
			found[at] = true
			ok = ok && recursive
		}
	}
	if len(found) == 0 {
		return nil, fs.ErrNotExist
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func (m *storage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.objects[key]; ok {
		return certmagic.KeyInfo{Key: key, Modified: o.modified, Size: int64(len(o.content)), IsTerminal: true}, nil
	}
	for k, o := range m.objects {
		if strings.HasPrefix(k, key+"/") {
			return certmagic.KeyInfo{Key: key, Modified: o.modified}, nil
		}
	}
	return certmagic.KeyInfo{}, fs.ErrNotExist
}

func (m *storage) lock(name string) chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] == nil {
		m.locks[name] = make(chan struct{}, 1)
	}
	return m.locks[name]
}

func (m *storage) Lock(ctx context.Context, name string) error {
	select {
	case m.lock(name) <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *storage) TryLock(_ context.Context, name string) (bool, error) {
	select {
	case m.lock(name) <- struct{}{}:
		return true, nil
	default:
		return false, nil
	}
}

func (m *storage) Unlock(_ context.Context, name string) error {
	select {
	case <-m.lock(name):
		return nil
	default:
		return fs.ErrNotExist
	}
}

var (
	_ certmagic.Storage      = (*storage)(nil)
	_ certmagic.TryLocker    = (*storage)(nil)
	_ caddyfile.Unmarshaler  = (*module)(nil)
	_ caddy.StorageConverter = (*module)(nil)
)
