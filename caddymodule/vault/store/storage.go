package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// Bounds of what the storage may cost.
const (
	// MaxOperations is how many are under way at once, those that hang included, beside what gives locks back.
	MaxOperations = 1024

	maxOperation = 5 * time.Second // of one that no caller's time bounds

	// unlockFor is how long a lock that could not be given back is ours for certain: certmagic's file storage takes one for
	// stale that was not kept fresh for ten seconds, which it does every five. Later it may be somebody else's.
	unlockFor = 4 * time.Second
)

// Operations at the storage, for Config.Observe.
const (
	opLoad   = "load"
	opStore  = "store"
	opDelete = "delete"
	opList   = "list"
	opStat   = "stat"
	opLock   = "lock"
	opUnlock = "unlock"
)

// Operations are the names of all of them.
var Operations = []string{opLoad, opStore, opDelete, opList, opStat, opLock, opUnlock}

// Results of operations, for Config.Observe.
const (
	ResultOK      = "ok"
	ResultMissing = "missing" // nothing there, which is no failure
	ResultFailed  = "failed"
	ResultLate    = "late" // the caller could not wait any longer
)

// Results are all of them.
var Results = []string{ResultOK, ResultMissing, ResultFailed, ResultLate}

// storage is a certmagic.Storage that nobody waits for longer than his context lasts.
type storage struct {
	at      func() certmagic.Storage
	places  chan struct{}
	observe func(op, result string, took time.Duration)
	log     *zap.Logger

	// failing tells that an operation failed after the last write that succeeded.
	failing atomic.Bool
}

var (
	errBusy   = fmt.Errorf("%d operations at the storage are under way", MaxOperations)
	errBroken = errors.New("the storage panicked")
)

// operation is one that is under way.
type operation[T any] struct {
	places <-chan struct{} // nil for one that needs none
	f      func(context.Context) (T, error)
	late   func(T)
	state  atomic.Int32 // operationRuns, and then what comes first
	ended  chan struct{}
	result T
	err    error
}

const (
	operationRuns = iota
	operationLeft // by who waited for it
	operationEnded
)

// run returns a place when the operation ends. It takes a panic for a failure: here that would end the process, and all it serves.
func (o *operation[T]) run(ctx context.Context, log *zap.Logger) {
	defer func() {
		if broken := recover(); broken != nil {
			log.Error("the storage panicked", zap.Any("panic", broken), zap.ByteString("stack", debug.Stack()))
		}
		if o.places != nil {
			<-o.places
		}
		close(o.ended)
	}()
	o.err = errBroken // until it returns
	o.result, o.err = o.f(ctx)
	if !o.state.CompareAndSwap(operationRuns, operationEnded) && o.err == nil && o.late != nil {
		o.late(o.result)
	}
}

// wait returns the result, or leaves when the context ends first.
func (o *operation[T]) wait(ctx context.Context) (result T, err error) {
	select {
	case <-o.ended:
	case <-ctx.Done():
		if o.state.CompareAndSwap(operationRuns, operationLeft) {
			return result, ctx.Err()
		}
		<-o.ended
	}
	return o.result, o.err
}

// do runs an operation in a goroutine of its own, since file systems do not look at a context, and none but that
// goroutine waits for one that hangs. late is called instead of returning when it succeeds after all.
func do[T any](ctx context.Context, s *storage, op string, f func(context.Context) (T, error), late func(T)) (T, error) {
	begun := time.Now()
	places := s.places
	if op == opUnlock { // there are no more of them than locks, and one that is refused keeps everybody out
		places = nil
	}
	value, err := begin(ctx, s.log, places, f, late)
	result := ResultOK
	switch {
	case errors.Is(err, fs.ErrNotExist):
		result = ResultMissing
	case err == nil:
		if op == opStore {
			s.failing.Store(false)
		}
	case ctx.Err() != nil:
		if result = ResultLate; errors.Is(ctx.Err(), context.DeadlineExceeded) && op != opLock {
			s.failing.Store(true)
		}
	default:
		result = ResultFailed
		s.failing.Store(true)
	}
	if s.observe != nil {
		s.observe(op, result, time.Since(begun))
	}
	return value, err
}

func begin[T any](ctx context.Context, log *zap.Logger, places chan struct{}, f func(context.Context) (T, error), late func(T)) (zero T, err error) {
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	if places != nil {
		select {
		case places <- struct{}{}:
		default:
			return zero, errBusy
		}
	}
	o := &operation[T]{places: places, f: f, late: late, ended: make(chan struct{})}
	go o.run(ctx, log)
	return o.wait(ctx)
}

type none = struct{}

// doOnly is do for what has no result.
func (s *storage) doOnly(ctx context.Context, op string, f func(context.Context) error) error {
	_, err := do(ctx, s, op, func(ctx context.Context) (none, error) { return none{}, f(ctx) }, nil)
	return err
}

// Load returns the content of an object. Nothing there is fs.ErrNotExist.
func (s *storage) Load(ctx context.Context, key string) (content []byte, err error) {
	return do(ctx, s, opLoad, func(ctx context.Context) ([]byte, error) { return s.at().Load(ctx, key) }, nil)
}

// Store writes an object.
func (s *storage) Store(ctx context.Context, key string, content []byte) error {
	return s.doOnly(ctx, opStore, func(ctx context.Context) error { return s.at().Store(ctx, key, content) })
}

// Remove deletes. What is not there is no error.
func (s *storage) Remove(ctx context.Context, key string) error {
	err := s.doOnly(ctx, opDelete, func(ctx context.Context) error { return s.at().Delete(ctx, key) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List returns the keys in a folder, none if there is no such folder.
func (s *storage) List(ctx context.Context, folder string) (keys []string, err error) {
	keys, err = do(ctx, s, opList, func(ctx context.Context) ([]string, error) { return s.at().List(ctx, folder, false) }, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

// Stat returns what the storage tells of an object without its content. Nothing there is fs.ErrNotExist.
func (s *storage) Stat(ctx context.Context, key string) (info certmagic.KeyInfo, err error) {
	return do(ctx, s, opStat, func(ctx context.Context) (certmagic.KeyInfo, error) { return s.at().Stat(ctx, key) }, nil)
}

// Lock takes a lock of the storage. Unlock waits for the storage as long as for any operation. Where it fails in a file system it is
// tried again in the background.
func (s *storage) Lock(ctx context.Context, lock string) (unlock func(), err error) {
	at := s.at() // which unlocks, too, when there is another one meanwhile
	unlock = func() { s.unlock(at, lock) }
	_, err = do(ctx, s, opLock, func(ctx context.Context) (none, error) { return none{}, at.Lock(ctx, lock) }, func(none) { unlock() })
	return unlock, err
}

// files is certmagic's file system, where an operation that failed was not done. Elsewhere it may have been, and the lock be somebody
// else's since: there locks end by themselves.
type files interface{ Filename(key string) string }

func (s *storage) unlock(at certmagic.Storage, lock string) {
	begun := time.Now()
	if s.tryUnlock(at, lock) {
		return
	}
	go func() {
		_, again := at.(files)
		for pause := settlePause; again && time.Since(begun)+pause < unlockFor; pause *= 2 {
			time.Sleep(pause)
			if s.tryUnlock(at, lock) {
				return
			}
		}
		s.log.Warn("a lock of the storage could not be given back", zap.String("lock", lock))
	}()
}

func (s *storage) tryUnlock(at certmagic.Storage, lock string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), maxOperation)
	defer cancel()
	err := s.doOnly(ctx, opUnlock, func(ctx context.Context) error { return at.Unlock(ctx, lock) })
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// TryLock takes a lock that nobody has. Without TryLocker it waits for a second.
func (s *storage) TryLock(ctx context.Context, lock string) (unlock func(), ok bool, err error) {
	at := s.at()
	try, can := at.(certmagic.TryLocker)
	if !can {
		waiting, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		unlock, err = s.Lock(waiting, lock)
		if err != nil && waiting.Err() != nil && ctx.Err() == nil {
			return nil, false, nil
		}
		return unlock, err == nil, err
	}
	unlock = func() { s.unlock(at, lock) }
	ok, err = do(ctx, s, opLock, func(ctx context.Context) (bool, error) { return try.TryLock(ctx, lock) }, func(locked bool) {
		if locked {
			unlock()
		}
	})
	if err != nil {
		return nil, false, err
	}
	return unlock, ok, nil
}
