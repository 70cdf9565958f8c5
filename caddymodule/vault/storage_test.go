package vault

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

	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// memoryStorage is a storage that can be slow, fail and lose everything.
type memoryStorage struct {
	mu      sync.Mutex
	objects map[string]memoryObject
	locks   map[string]chan struct{}
	calls   map[string]int // by operation

	// fault is what an operation does instead of succeeding, and may take its time. Nil is nothing.
	fault func(ctx context.Context, op, key string) error
}

type memoryObject struct {
	content  []byte
	modified time.Time
}

func newStorage() *memoryStorage {
	return &memoryStorage{objects: map[string]memoryObject{}, locks: map[string]chan struct{}{}, calls: map[string]int{}}
}

func (s *memoryStorage) fails(f func(ctx context.Context, op, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *memoryStorage) called(ctx context.Context, op, key string) error {
	s.mu.Lock()
	s.calls[op]++
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		return fault(ctx, op, key)
	}
	return nil
}

// of is how often this was called.
func (s *memoryStorage) of(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

func (s *memoryStorage) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, calls := range s.calls {
		n += calls
	}
	return n
}

func (s *memoryStorage) keys(folder string) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if folder == "" || strings.Contains(key, "/"+folder+"/") {
			keys = append(keys, key)
		}
	}
	return keys
}

func (s *memoryStorage) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.objects)
}

func (s *memoryStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.called(ctx, "load", key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return o.content, nil
}

func (s *memoryStorage) Store(ctx context.Context, key string, content []byte) error {
	if err := s.called(ctx, "store", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = memoryObject{slices.Clone(content), time.Now()}
	return nil
}

func (s *memoryStorage) Delete(ctx context.Context, key string) error {
	if err := s.called(ctx, "delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix := key + "/"
	maps.DeleteFunc(s.objects, func(k string, _ memoryObject) bool { return k == key || strings.HasPrefix(k, prefix) })
	return nil
}

func (s *memoryStorage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

func (s *memoryStorage) List(ctx context.Context, folder string, _ bool) (keys []string, err error) {
	if err := s.called(ctx, "list", folder); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix, children := folder+"/", map[string]bool{}
	for key := range s.objects {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			child, _, _ := strings.Cut(rest, "/")
			children[prefix+child] = true
		}
	}
	return slices.Collect(maps.Keys(children)), nil
}

func (s *memoryStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	if err := s.called(ctx, "stat", key); err != nil {
		return certmagic.KeyInfo{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Modified: o.modified, Size: int64(len(o.content)), IsTerminal: true}, nil
}

func (s *memoryStorage) Lock(ctx context.Context, lock string) error {
	if err := s.called(ctx, "lock", lock); err != nil {
		return err
	}
	s.mu.Lock()
	if s.locks[lock] == nil {
		s.locks[lock] = make(chan struct{}, 1)
	}
	held := s.locks[lock]
	s.mu.Unlock()
	select {
	case held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *memoryStorage) Unlock(ctx context.Context, lock string) error {
	if err := s.called(ctx, "unlock", lock); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.locks[lock]:
		return nil
	default:
		return fmt.Errorf("%s is not locked", lock)
	}
}

// lockedNow is how many locks are held.
func (s *memoryStorage) lockedNow() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, held := range s.locks {
		n += len(held)
	}
	return n
}

var _ certmagic.Storage = (*memoryStorage)(nil)

// server is a token endpoint that rotates: the second use of a refresh token revokes the whole family.
type server struct {
	mu      sync.Mutex
	asked   int
	good    map[string]string // refresh token -> family
	used    map[string]string
	revoked map[string]bool
	issued  int
	life    time.Duration
	takes   time.Duration
}

func newServer() *server {
	return &server{good: map[string]string{}, used: map[string]string{}, revoked: map[string]bool{}, life: time.Hour}
}

var errRefused = fmt.Errorf("invalid_grant")

func (s *server) issue(family string) Tokens {
	s.issued++
	refresh := fmt.Sprintf("refresh-marker-%s-%d", family, s.issued)
	s.good[refresh] = family
	return Tokens{Access: fmt.Sprintf("access-marker-%s-%d", family, s.issued), Refresh: refresh, Life: s.life}
}

// login begins a family.
func (s *server) login(family string) Tokens {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issue(family)
}

func (s *server) ask(_ context.Context, refresh string, ready func() bool) (Tokens, error) {
	if ready != nil && !ready() {
		return Tokens{}, errRefused
	}
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if family, ok := s.used[refresh]; ok {
		s.revoked[family] = true
	}
	family, ok := s.good[refresh]
	if !ok || s.revoked[family] {
		return Tokens{}, errRefused
	}
	delete(s.good, refresh)
	s.used[refresh] = family
	return s.issue(family), nil
}

func (s *server) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// newKeys makes the keys of a new file.
func parseKeys(t testing.TB, text []byte) *seal.Keys {
	t.Helper()
	keys, err := seal.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func at(s certmagic.Storage) func() certmagic.Storage { return func() certmagic.Storage { return s } }

func open(t testing.TB, keys *seal.Keys, s certmagic.Storage) *Vault {
	t.Helper()
	return New(Config{Keys: func() *seal.Keys { return keys }, Storage: at(s), ForgetAfter: func() time.Duration { return 400 * day },
		FailuresCount: func() time.Duration { return time.Hour }})
}
