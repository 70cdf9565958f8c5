package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// mark is what a vault has that is not empty. It tells a record that is gone from a storage that is.
type mark struct {
	Created time.Time `json:"created_at"`
}

// markAge is how old a mark has to be before a record that is missing is taken for lost. A volume that was lost, and is
// filled anew, signs out nobody for that long.
const markAge = 24 * time.Hour

// MarkKey is where the mark is.
func MarkKey(n *seal.Namer) string { return n.Dir() + "/vault" + seal.Extension }

// Missing says what a record means that is not there although its handle is good.
func (s *Store) Missing(ctx context.Context, n *seal.Namer) error {
	var m mark
	err := s.Read(ctx, MarkKey(n), &m)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrLost) {
		s.mu.Lock()
		delete(s.marked, n.Dir()) // so that the next write leaves a new one
		s.mu.Unlock()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Unavailable(errors.New("the storage is empty, or another one"))
	case errors.Is(err, ErrUnavailable):
		return err
	case err != nil: // which the next write puts right, or the key
		return Unavailable(fmt.Errorf("the record is not there, and how old the vault is cannot be read: %w", err))
	case s.now().Sub(m.Created) < markAge:
		return Unavailable(errors.New("the record is not there, and the vault is not a day old: the storage may be another one"))
	}
	return fmt.Errorf("%w: it is not there", ErrLost)
}

// LeaveMark has the storage marked as one that something was written to.
func (s *Store) LeaveMark(ctx context.Context, n *seal.Namer) error {
	s.mu.Lock()
	marked := s.marked[n.Dir()]
	s.mu.Unlock()
	if marked {
		return nil
	}
	err := s.Read(ctx, MarkKey(n), new(mark))
	switch {
	case errors.Is(err, seal.ErrKey): // another instance has newer keys
		err = nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrLost):
		var sealed []byte
		if sealed, err = s.keys().SealObject(mark{s.now().UTC()}); err == nil {
			err = s.Store(ctx, MarkKey(n), sealed)
		}
	}
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	if err == nil {
		s.mu.Lock()
		s.marked[n.Dir()] = true
		s.mu.Unlock()
	}
	return Unavailable(err)
}
