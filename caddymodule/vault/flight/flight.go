// Package flight takes a step once for all who want it at the same time. It knows neither what a step is nor what comes of it.
package flight

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"

	"go.uber.org/zap"
)

// Group has the steps that are under way, by what tells them apart. It is safe for concurrent use. Log is required.
type Group[Key comparable, Result any] struct {
	// Log is told of steps that panic.
	Log *zap.Logger

	mu     sync.Mutex
	flying map[Key]*flight[Result]
}

// flight is one step and those who wait for it.
type flight[Result any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int // guarded by the group

	result Result
	err    error
	late   bool // it ended with its own time
}

var (
	// ErrLate is a step that ended with the time of who began it, where the caller has more.
	ErrLate = errors.New("who began it had less time")

	// ErrBroken is a step that panicked.
	ErrBroken = errors.New("the refresh broke off")
)

// Do takes a step, or waits for the same one that is under way. A step goes on while somebody waits for it, until the deadline of who
// began it. The error is that of the step or of ctx, ErrLate or ErrBroken.
func (g *Group[Key, Result]) Do(ctx context.Context, key Key, step func(context.Context) (Result, error)) (none Result, err error) {
	f, led := g.join(ctx, key, step)
	select {
	case <-f.done:
	case <-ctx.Done():
		g.mu.Lock()
		f.waiters--
		abandoned := f.waiters == 0
		g.mu.Unlock()
		if abandoned {
			f.cancel()
		}
		return none, ctx.Err()
	}
	if f.late && !led && ctx.Err() == nil {
		return none, ErrLate
	}
	return f.result, f.err
}

func (g *Group[Key, Result]) join(ctx context.Context, key Key, step func(context.Context) (Result, error)) (f *flight[Result], led bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f = g.flying[key]; f == nil {
		f, led = &flight[Result]{done: make(chan struct{})}, true
		own := context.WithoutCancel(ctx)
		if deadline, ok := ctx.Deadline(); ok {
			own, f.cancel = context.WithDeadline(own, deadline)
		} else {
			own, f.cancel = context.WithCancel(own)
		}
		if g.flying == nil {
			g.flying = make(map[Key]*flight[Result])
		}
		g.flying[key] = f
		go g.take(own, key, f, step)
	}
	f.waiters++
	return f, led
}

func (g *Group[Key, Result]) take(ctx context.Context, key Key, f *flight[Result], step func(context.Context) (Result, error)) {
	defer f.cancel()
	defer func() {
		if broken := recover(); broken != nil { // in the place of the server, which would have lived on
			g.Log.Error("a refresh panicked", zap.Any("panic", broken), zap.ByteString("stack", debug.Stack()))
			f.err = ErrBroken
		}
		f.late = f.err != nil && ctx.Err() != nil
		g.mu.Lock()
		delete(g.flying, key)
		g.mu.Unlock()
		close(f.done)
	}()
	f.result, f.err = step(ctx)
}
