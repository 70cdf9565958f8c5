package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// Bounds of what the storage may cost.
const (
	// MaxOperations is how many are under way at once, those that hang included.
	MaxOperations = 1024

	maxOperation = 5 * time.Second // of one that no caller's time bounds
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

	// failing tells that an operation failed after the last write that succeeded.
	failing atomic.Bool
}

var errBusy = fmt.Errorf("%d operations at the storage are under way", MaxOperations)

// do runs an operation in a goroutine of its own, since file systems do not look at a context, and none but that
// goroutine waits for one that hangs. late is called instead of returning when it succeeds after all.
func (s *storage) do(ctx context.Context, op string, f func(context.Context) error, late func()) error {
	begun := time.Now()
	err := s.run(ctx, f, late)
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
	return err
}

func (s *storage) run(ctx context.Context, f func(context.Context) error, late func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.places <- struct{}{}:
	default:
		return errBusy
	}
	const waiting, left, returned = 0, 1, 2
	var state atomic.Int32
	done := make(chan error, 1)
	go func() {
		defer func() { <-s.places }()
		err := f(ctx)
		if !state.CompareAndSwap(waiting, returned) && err == nil && late != nil {
			late()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		if state.CompareAndSwap(waiting, left) {
			return ctx.Err()
		}
		return <-done
	}
}

// Load returns the content of an object. Nothing there is fs.ErrNotExist.
func (s *storage) Load(ctx context.Context, key string) (content []byte, err error) {
	found := make(chan []byte, 1)
	err = s.do(ctx, opLoad, func(ctx context.Context) error {
		content, err := s.at().Load(ctx, key)
		found <- content
		return err
	}, nil)
	if err == nil {
		content = <-found
	}
	return content, err
}

// Store writes an object.
func (s *storage) Store(ctx context.Context, key string, content []byte) error {
	return s.do(ctx, opStore, func(ctx context.Context) error { return s.at().Store(ctx, key, content) }, nil)
}

// Remove deletes. What is not there is no error.
func (s *storage) Remove(ctx context.Context, key string) error {
	err := s.do(ctx, opDelete, func(ctx context.Context) error { return s.at().Delete(ctx, key) }, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List returns the keys in a folder, none if there is no such folder.
func (s *storage) List(ctx context.Context, folder string) (keys []string, err error) {
	found := make(chan []string, 1)
	err = s.do(ctx, opList, func(ctx context.Context) error {
		keys, err := s.at().List(ctx, folder, false)
		found <- keys
		return err
	}, nil)
	switch {
	case err == nil:
		return <-found, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	}
	return nil, err
}

// Stat returns what the storage tells of an object without its content. Nothing there is fs.ErrNotExist.
func (s *storage) Stat(ctx context.Context, key string) (info certmagic.KeyInfo, err error) {
	found := make(chan certmagic.KeyInfo, 1)
	err = s.do(ctx, opStat, func(ctx context.Context) error {
		info, err := s.at().Stat(ctx, key)
		found <- info
		return err
	}, nil)
	if err == nil {
		info = <-found
	}
	return info, err
}

// Lock takes a lock of the storage. Unlock waits for the storage as long as for any operation.
func (s *storage) Lock(ctx context.Context, lock string) (unlock func(), err error) {
	at := s.at() // which unlocks, too, when there is another one meanwhile
	err = s.do(ctx, opLock, func(ctx context.Context) error { return at.Lock(ctx, lock) }, func() {
		_ = at.Unlock(context.WithoutCancel(ctx), lock)
	})
	return s.unlocker(ctx, at, lock), err
}

func (s *storage) unlocker(ctx context.Context, at certmagic.Storage, lock string) func() {
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxOperation)
		defer cancel()
		_ = s.do(ctx, opUnlock, func(ctx context.Context) error { return at.Unlock(ctx, lock) }, nil)
	}
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
	got := make(chan bool, 1)
	err = s.do(ctx, opLock, func(ctx context.Context) error {
		locked, err := try.TryLock(ctx, lock)
		got <- locked
		return err
	}, func() {
		if <-got {
			_ = at.Unlock(context.WithoutCancel(ctx), lock)
		}
	})
	if err != nil {
		return nil, false, err
	}
	return s.unlocker(ctx, at, lock), <-got, nil
}
