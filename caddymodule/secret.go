package caddymodule

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/token"
)

// watched is a secret that comes from files. It is read again when they change, because Caddy does not reload a
// configuration whose text is the same. While a file cannot be read the last good value stays in force.
type watched[T any] struct {
	field  string
	files  []string
	read   func() (T, error)
	logger *zap.Logger

	checking sync.Mutex // held while the files are looked at
	hangs    atomic.Bool

	mu    sync.Mutex // for what is below
	value T
	since time.Time     // when the value was read
	seen  []os.FileInfo // when it was last read, or tried to be; none where that could not be seen
	at    time.Time
	stale bool // the last try failed
}

// watch reads a secret for the first time, when it has to succeed.
func watch[T any](field string, files []string, logger *zap.Logger, read func() (T, error)) (*watched[T], error) {
	w := &watched[T]{field: field, files: files, read: read, logger: logger, at: time.Now(), since: time.Now()}
	w.seen, _ = w.stat() // what cannot be seen cannot be read, which says more
	var err error
	w.value, err = read()
	return w, err
}

const (
	// clockGrain is how long a file may change without a change of its time.
	clockGrain = 100 * time.Millisecond
	// retryUnreadable is how often a file that cannot be read is tried again while it looks the same: what is
	// in the way may be its permissions.
	retryUnreadable = time.Second
	// maxCheck is how long an exchange waits for the files to be looked at.
	maxCheck = time.Second
)

// get returns the secret as it is now. A file system that hangs is waited for only once, and not for long.
func (w *watched[T]) get() T {
	if len(w.files) > 0 && !w.hangs.Load() {
		checked := make(chan struct{})
		go func() {
			w.checking.Lock()
			defer w.checking.Unlock()
			w.check()
			close(checked)
			w.hangs.Store(false)
		}()
		timer := time.NewTimer(maxCheck)
		defer timer.Stop()
		select {
		case <-checked:
		case <-timer.C:
			w.hangs.Store(true)
			select {
			case <-checked: // at the same moment
				w.hangs.Store(false)
			default:
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value
}

// check reads the secret again if its files have changed.
func (w *watched[T]) check() {
	now := time.Now()
	seen, err := w.stat()
	changed := !sameFiles(w.seen, seen)
	if !changed && !w.mayHaveChanged() && !(w.stale && now.Sub(w.at) >= retryUnreadable) {
		return
	}
	var value T
	if err == nil {
		value, err = w.read()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	again := w.stale
	w.seen, w.at, w.stale = seen, now, err != nil
	switch {
	case err != nil && !again:
		w.logger.Error("a secret's file cannot be read any more; the last good value stays in force",
			zap.String("field", w.field), zap.Strings("files", w.files), zap.NamedError("cause", reason(err)))
	case err == nil && (changed || again):
		w.logger.Info("a secret was read again, because its file changed",
			zap.String("field", w.field), zap.Strings("files", w.files))
		w.since = now
	}
	if err == nil {
		w.value = value
	}
}

// mayHaveChanged holds for files that had just been written when they were read: they may have been written
// once more in the same tick of their clock.
func (w *watched[T]) mayHaveChanged() bool {
	for _, file := range w.seen {
		if age := w.at.Sub(file.ModTime()); -clockGrain < age && age < clockGrain {
			return true
		}
	}
	return false
}

// status tells how old the secret is, which is looked at anew.
func (w *watched[T]) status(now time.Time) secretStatus {
	w.get()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := secretStatus{Field: w.field, ReadSecondsAgo: max(0, now.Sub(w.since).Seconds()), Stale: w.stale}
	if certificate, ok := any(w.value).(*tls.Certificate); ok && certificate.Leaf != nil {
		s.Expires = &certificate.Leaf.NotAfter
	}
	return s
}

func sameFiles(a, b []os.FileInfo) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size() {
			return false
		}
	}
	return true
}

func (w *watched[T]) stat() (seen []os.FileInfo, err error) {
	for _, file := range w.files {
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		seen = append(seen, info)
	}
	return seen, nil
}

// reason is why a file could not be read. Texts of other errors may quote what is in it.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return errNotASecret
}

var errNotASecret = errors.New("it holds nothing of use")

var fileOf = regexp.MustCompile(`\{file\.([^{}]+)\}`)

// watchText watches a text by the files in its placeholders.
func watchText(field, text string, logger *zap.Logger) (*watched[string], error) {
	var files []string
	for _, found := range fileOf.FindAllStringSubmatch(text, -1) {
		files = append(files, found[1])
	}
	return watch(field, files, logger, func() (string, error) {
		for _, file := range files { // of which the replacer would not say why it cannot be read
			f, err := os.Open(file)
			if err != nil {
				return "", fieldError{field, fmt.Errorf("the file %s cannot be read: %w", file, err)}
			}
			f.Close()
		}
		r := resolver{repl: caddy.NewReplacer()}
		return r.text(field, text), r.err
	})
}

// watchKey watches a private key in a file.
func watchKey(field, file, id string, logger *zap.Logger) (*watched[*token.Key], error) {
	return watch(field, []string{file}, logger, func() (*token.Key, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return token.ParseKey(text, id)
	})
}
