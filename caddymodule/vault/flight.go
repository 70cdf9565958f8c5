package vault

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// flightKey is one step of one record: from a generation to the next.
type flightKey struct {
	key        string
	generation int64
}

// flight is one step and those who wait for it, so that one goroutine of the process stands at the storage's lock.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int // guarded by Vault.mu

	result Result
	err    error
	late   bool // it ended with its own time
}

// errMoved tells that somebody else has taken the step.
var errMoved = errors.New("the record has changed")

// fly takes a step once for all who want it now. It goes on while somebody waits for it.
func (v *Vault) fly(ctx context.Context, key flightKey, step func(context.Context) (Result, error)) (Result, error) {
	v.mu.Lock()
	f, led := v.flights[key], false
	if f == nil {
		f, led = &flight{done: make(chan struct{})}, true
		own := context.WithoutCancel(ctx)
		if deadline, ok := ctx.Deadline(); ok {
			own, f.cancel = context.WithDeadline(own, deadline)
		} else {
			own, f.cancel = context.WithCancel(own)
		}
		v.flights[key] = f
		go v.take(own, key, f, step)
	}
	f.waiters++
	v.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		v.mu.Lock()
		f.waiters--
		abandoned := f.waiters == 0
		v.mu.Unlock()
		if abandoned {
			f.cancel()
		}
		return Result{}, store.Unavailable(ctx.Err())
	}
	if f.late && !led && ctx.Err() == nil {
		return Result{}, errMoved // who led had less time
	}
	return f.result, f.err
}

func (v *Vault) take(ctx context.Context, key flightKey, f *flight, step func(context.Context) (Result, error)) {
	defer f.cancel()
	defer func() {
		if broken := recover(); broken != nil { // in the place of the server, which would have lived on
			v.log.Error("a refresh panicked", zap.Any("panic", broken), zap.ByteString("stack", debug.Stack()))
			f.err = store.Unavailable(fmt.Errorf("the refresh broke off"))
		}
		f.late = f.err != nil && ctx.Err() != nil
		v.mu.Lock()
		if v.flights[key] == f {
			delete(v.flights, key)
		}
		v.mu.Unlock()
		close(f.done)
	}()
	f.result, f.err = step(ctx)
}
