package caddymodule

import (
	"errors"
	"os"
	"regexp"
	"sync"
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

	mu    sync.Mutex
	value T
	seen  []os.FileInfo // when it was last read, or tried to be; none where that could not be seen
	at    time.Time
	stale bool // the last try failed
}

// watch reads a secret for the first time, when it has to succeed.
func watch[T any](field string, files []string, logger *zap.Logger, read func() (T, error)) (*watched[T], error) {
	w := &watched[T]{field: field, files: files, read: read, logger: logger, at: time.Now()}
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
)

func (w *watched[T]) get() T {
	if len(w.files) == 0 {
		return w.value
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	seen, err := w.stat()
	changed := !sameFiles(w.seen, seen)
	if !changed && !w.mayHaveChanged() && !(w.stale && now.Sub(w.at) >= retryUnreadable) {
		return w.value
	}
	w.seen, w.at = seen, now
	var value T
	if err == nil {
		value, err = w.read()
	}
	again := w.stale
	if w.stale = err != nil; w.stale {
		if !again {
			w.logger.Error("a secret's file cannot be read any more; the last good value stays in force",
				zap.String("field", w.field), zap.Strings("files", w.files), zap.NamedError("cause", reason(err)))
		}
		return w.value
	}
	if changed || again {
		w.logger.Info("a secret was read again, because its file changed",
			zap.String("field", w.field), zap.Strings("files", w.files))
	}
	w.value = value
	return w.value
}

// mayHaveChanged holds for files that had just been written when they were read: they may have been written
// once more in the same tick of their clock.
func (w *watched[T]) mayHaveChanged() bool {
	for _, file := range w.seen {
		if w.at.Sub(file.ModTime()) < clockGrain {
			return true
		}
	}
	return false
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
