package vault

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// object is what is to be written where.
type object struct {
	key    string
	sealed []byte
}

const (
	settleTries = 3               // before an answer goes out without knowing
	settleWait  = 3 * time.Second // the same, in time
	settlePause = 50 * time.Millisecond
	settleLong  = 30 * time.Second // between two tries, at most
)

// unwritten is an object until it is written.
type unwritten struct {
	sealed []byte
	done   chan struct{}
}

// settle writes objects in their order and then gives the lock back. It returns when they are written, and with an error
// when that takes long. If keep is true they then stay in memory, under the lock, until they are written: no instance
// uses the token that was there before. Else, and where too many are kept already, they are given up. Kept tells which.
func (v *Vault) settle(unlock func(), keep bool, objects ...object) (kept bool, err error) {
	keep = keep && v.keep(objects)
	var left atomic.Bool
	told := make(chan error, 1)
	v.settled.Add(1)
	go func() {
		defer v.settled.Done()
		defer unlock()
		err := v.write(objects, keep, told)
		switch {
		case keep:
			v.release(objects)
		case err == nil && !left.CompareAndSwap(false, true): // too late: the tokens went out without a handle
			for _, o := range objects {
				_ = v.storage.remove(context.Background(), o.key)
			}
		}
		select {
		case told <- err:
		default:
		}
	}()
	timer := time.NewTimer(settleWait)
	defer timer.Stop()
	select {
	case err = <-told:
	case <-timer.C:
		if keep || left.CompareAndSwap(false, true) {
			err = context.DeadlineExceeded
		} else {
			err = <-told
		}
	}
	return keep, unavailable(err)
}

// write writes until all is written, or a few times. It waits for a storage that hangs, so that no write is overtaken by
// an earlier one.
func (v *Vault) write(objects []object, keep bool, told chan<- error) error {
	pause := settlePause
	for try := 1; ; try++ {
		err := v.writeOnce(&objects)
		if err == nil || try == settleTries && !keep {
			return err
		}
		if try == settleTries {
			told <- err
		}
		time.Sleep(pause)
		pause = min(2*pause, settleLong)
	}
}

func (v *Vault) writeOnce(objects *[]object) error {
	for len(*objects) > 0 {
		if err := v.storage.store(context.Background(), (*objects)[0].key, (*objects)[0].sealed); err != nil {
			return err
		}
		*objects = (*objects)[1:]
	}
	return nil
}

// keep has objects found in memory until they are released. There is room for maxPending.
func (v *Vault) keep(objects []object) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.pending) >= maxPending {
		return false
	}
	for _, o := range objects {
		v.pending[o.key] = &unwritten{o.sealed, make(chan struct{})}
	}
	return true
}

func (v *Vault) release(objects []object) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, o := range objects {
		if u := v.pending[o.key]; u != nil {
			close(u.done)
			delete(v.pending, o.key)
		}
	}
}

var errUnsettled = errors.New("the tokens before are not written yet")

// awaitSettled waits a while for a record that is in memory alone.
func (v *Vault) awaitSettled(ctx context.Context, m *name) error {
	v.mu.Lock()
	u := v.pending[m.key()]
	v.mu.Unlock()
	if u == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	select {
	case <-u.done:
		return nil
	case <-ctx.Done():
		return unavailable(errUnsettled)
	}
}
