package store

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Object is what is to be written where.
type Object struct {
	Key    string
	Sealed []byte
}

// SettleWait is how long Settle and AwaitSettled wait.
const SettleWait = 3 * time.Second

const (
	settleTries = 3 // before an answer goes out without knowing, as SettleWait is in time
	settlePause = 50 * time.Millisecond

	// settleEvery is the time between two looks whether a storage that failed works again. It is short, because another instance
	// may take a lock for stale that could not be kept fresh meanwhile, and use the token that was there before.
	settleEvery = time.Second
	settleLong  = 5 * time.Second   // between two tries while it works but for this write, at most
	maxSettling = MaxOperations / 8 // writes at once of what has waited for it

	// lockLife is for how long a lock is taken to be ours while an operation hangs. Later somebody else may have given out the handle.
	lockLife = 8 * time.Second
)

// unwritten is an object until it is written.
type unwritten struct {
	sealed []byte
	done   chan struct{}
}

// Need tells what becomes of objects that cannot be written in time.
type Need bool

const (
	// Optional objects are given up, and removed if they are written a little too late: nobody knows of them yet.
	Optional Need = false

	// Required objects stay in memory, under the lock, until they are written: what they take the place of must not be used.
	Required Need = true
)

// Settle writes objects in their order and then gives the lock back. It returns when they are written, and with an error
// when that takes long. Kept tells whether they stay in memory then, where there is no room for too many.
func (s *Store) Settle(unlock func(), need Need, objects ...Object) (kept bool, err error) {
	kept = bool(need) && s.keep(objects)
	var left atomic.Bool
	told, begun := make(chan error, 1), time.Now()
	s.settled.Add(1)
	go func() {
		defer s.settled.Done()
		defer unlock()
		err := s.write(objects, kept, told)
		switch {
		case kept:
			s.release(objects)
		case err == nil && need == Optional && !left.CompareAndSwap(false, true) && time.Since(begun) < lockLife:
			s.removeSame(objects) // too late: the tokens went out without a handle
		}
		select {
		case told <- err:
		default:
		}
	}()
	timer := time.NewTimer(SettleWait)
	defer timer.Stop()
	select {
	case err = <-told:
	case <-timer.C:
		if kept || left.CompareAndSwap(false, true) {
			err = context.DeadlineExceeded
		} else {
			err = <-told
		}
	}
	return kept, Unavailable(err)
}

// write writes until all is written, or a few times. It waits for a storage that hangs, so that no write is overtaken by
// an earlier one.
func (s *Store) write(objects []Object, kept bool, told chan<- error) error {
	pause := settlePause
	for try := 1; ; try++ {
		leave := func() {}
		if try > settleTries {
			<-s.working()
			leave = s.enterSettling()
		}
		err := s.writeOnce(&objects)
		leave()
		if err == nil || try == settleTries && !kept {
			return err
		}
		if try == settleTries {
			told <- err
		}
		time.Sleep(pause)
		pause = min(2*pause, settleLong)
	}
}

// working is closed when the storage can be written to, as far as is known. One goroutine looks, for all who wait.
func (s *Store) working() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.works != nil {
		return s.works
	}
	works := make(chan struct{})
	s.works = works
	go func() {
		for s.Ready(context.Background()) != nil {
			time.Sleep(settleEvery)
		}
		s.mu.Lock()
		s.works = nil
		s.mu.Unlock()
		close(works)
	}()
	return works
}

// enterSettling waits for a place to write. One that hangs gives it back after a while.
func (s *Store) enterSettling() (leave func()) {
	s.settling <- struct{}{}
	once := sync.OnceFunc(func() { <-s.settling })
	hangs := time.AfterFunc(maxOperation, once)
	return func() { hangs.Stop(); once() }
}

// removeSame removes objects that nobody has written since.
func (s *Store) removeSame(objects []Object) {
	for _, o := range objects {
		if sealed, err := s.Load(context.Background(), o.Key); err == nil && bytes.Equal(sealed, o.Sealed) {
			_ = s.Remove(context.Background(), o.Key)
		}
	}
}

func (s *Store) writeOnce(objects *[]Object) error {
	for len(*objects) > 0 {
		if err := s.Store(context.Background(), (*objects)[0].Key, (*objects)[0].Sealed); err != nil {
			return err
		}
		*objects = (*objects)[1:]
	}
	return nil
}

// keep has objects found in memory until they are released. There is room for maxPending.
func (s *Store) keep(objects []Object) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) >= maxPending {
		return false
	}
	for _, o := range objects {
		s.pending[o.Key] = &unwritten{o.Sealed, make(chan struct{})}
	}
	return true
}

func (s *Store) release(objects []Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objects {
		if u := s.pending[o.Key]; u != nil {
			close(u.done)
			delete(s.pending, o.Key)
		}
	}
}

var errUnsettled = errors.New("the tokens before are not written yet")

// AwaitSettled waits a while for a record that is in memory alone.
func (s *Store) AwaitSettled(ctx context.Context, key string) error {
	s.mu.Lock()
	u := s.pending[key]
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, SettleWait)
	defer cancel()
	select {
	case <-u.done:
		return nil
	case <-ctx.Done():
		return Unavailable(errUnsettled)
	}
}
