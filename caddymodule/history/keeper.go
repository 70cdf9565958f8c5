package history

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// When a Keeper looks into its folder.
const (
	firstLook = time.Second
	lookEvery = 10 * time.Minute
	lookTime  = 30 * time.Second // that a look has

	// writeAnyway is after how long an object is written that has nothing new, and forgottenAfter after how long one goes that
	// was not.
	writeAnyway    = 24 * time.Hour
	forgottenAfter = 30 * 24 * time.Hour
)

// KeeperConfig is what a Keeper works with. All of it is required.
type KeeperConfig struct {
	History *History

	// Folder returns where the instances keep what they have of this history, each an object of its own.
	Folder func() store.Folder

	// Instance returns the name of this one, which outlives the process.
	Instance func() (string, error)

	// Logger returns who is told of what cannot be kept or read, once.
	Logger func() *zap.Logger

	Now func() time.Time
}

// Keeper keeps a History for the next process of this instance, and takes in the accounts that other instances have seen. It
// works in the background: nobody waits for its storage but Close.
type Keeper struct {
	KeeperConfig
	cancel context.CancelFunc
	ended  chan struct{}

	added   uint64 // calls that the object has which was written last
	written time.Time

	toldFailure, toldUnreadable bool // what was logged, and lasts
}

// NewKeeper returns a Keeper, which looks into its folder a second from now and then every ten minutes, until Close.
func NewKeeper(c KeeperConfig) *Keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{KeeperConfig: c, cancel: cancel, ended: make(chan struct{})}
	go k.run(ctx)
	return k
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.ended)
	for wait := firstLook; ; wait = lookEvery {
		select {
		case <-time.After(wait):
			k.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// Close keeps what is new a last time, until ctx ends.
func (k *Keeper) Close(ctx context.Context) {
	k.cancel()
	select {
	case <-k.ended:
		k.look(ctx)
	case <-ctx.Done():
	}
}

const fixUnreadable = "put the key that has sealed it back into the vault's key file, or remove the object from the storage"

// look reads what the instances have kept, and writes what is new here.
func (k *Keeper) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	unreadable, err := k.lookInto(ctx, k.Folder())
	if ctx.Err() == context.Canceled {
		return
	}
	if err != nil && !k.toldFailure {
		k.Logger().Warn("cannot keep the history of this instance in the vault", zap.NamedError("cause", err))
	}
	k.toldFailure = err != nil
	if unreadable != nil && !k.toldUnreadable {
		k.Logger().Warn("the history of this instance in the vault cannot be read; it is left as it is, and nothing new is kept",
			zap.NamedError("cause", unreadable), zap.String("fix", fixUnreadable))
	}
	k.toldUnreadable = unreadable != nil || err != nil && k.toldUnreadable
}

// lookInto returns why the object of this instance cannot be read, and why the storage cannot be used.
func (k *Keeper) lookInto(ctx context.Context, folder store.Folder) (unreadable, err error) {
	mine, err := k.Instance()
	if err != nil {
		return nil, err
	}
	before, unreadable, err := k.read(ctx, folder, mine)
	if err != nil {
		return nil, err
	}
	if unreadable == nil {
		k.History.resume(before, k.Now())
		if err := k.write(ctx, folder, mine); err != nil {
			return nil, err
		}
	}
	names, err := folder.Names(ctx)
	if err != nil {
		return unreadable, err
	}
	for _, name := range names {
		if name == mine {
			continue
		}
		found, _, err := k.read(ctx, folder, name)
		if err != nil {
			return unreadable, err
		}
		if err := k.forget(ctx, folder, name, found); err != nil {
			return unreadable, err
		}
	}
	return unreadable, nil
}

// read takes in the accounts of an object. It is nil where there is none any more or it is not readable.
func (k *Keeper) read(ctx context.Context, folder store.Folder, name string) (found *kept, unreadable, err error) {
	found = new(kept)
	err = folder.Read(ctx, name, found)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case errors.Is(err, store.ErrUnavailable):
		return nil, nil, err
	case err == nil:
		err = k.History.merge(found)
	}
	if err != nil {
		return nil, err, nil
	}
	return found, nil, nil
}

// forget removes an object of an instance that is gone. One that cannot be read is as old as the storage says.
func (k *Keeper) forget(ctx context.Context, folder store.Folder, name string, found *kept) (err error) {
	var written time.Time
	if found != nil {
		written = found.Written
	}
	if written.IsZero() {
		written, err = folder.Written(ctx, name)
	}
	if errors.Is(err, fs.ErrNotExist) || err == nil && (written.IsZero() || k.Now().Sub(written) < forgottenAfter) {
		return nil
	}
	if err != nil {
		return err
	}
	return folder.Remove(ctx, name)
}

func (k *Keeper) write(ctx context.Context, folder store.Folder, name string) error {
	now := k.Now()
	content, added, err := k.History.keep(now)
	if err != nil || len(content.Total) == 0 || added == k.added && now.Sub(k.written) < writeAnyway {
		return err
	}
	if err := folder.Write(ctx, name, content); err != nil {
		return err
	}
	k.added, k.written = added, now
	return nil
}
