// Package secret has values that come from files and follow them: client secrets, private keys, client certificates.
// Caddy does not reload a configuration whose text is the same, so whoever replaces a secret need not reload it.
// What is sealed by one, by Seals, is opened also after it was replaced once.
//
// The files of a value are read once a second and compared by content, so that it does not matter how they are
// replaced. Readers never wait for a file.
package secret

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// DefaultInterval is the time between two looks at the files of a value.
	DefaultInterval = time.Second
	// maxWait is how long a file system may take before its files count as unreadable.
	maxWait = 5 * time.Second
	maxSize = 1 << 20 // of a file, in bytes
)

// Config is what all values have in common.
type Config struct {
	// Field is the field of the configuration that the value is for. It is in the log and in the status.
	Field string

	// Logger is told when a value changes, cannot be read any more, or looks like a mistake. Nil logs nothing.
	Logger *zap.Logger

	// Interval is the time between two looks at the files. 0 is DefaultInterval.
	Interval time.Duration

	read func(file string) ([]byte, error) // stands in for the file system in tests
}

// Value is a secret of type T. Text, File and Pair make one. Unless it is Constant it has a goroutine, which Close
// ends. While its files cannot be read, or hold nothing valid, the last good value stays in force.
type Value[T any] struct {
	config   Config
	files    []string
	parse    parser[T]
	current  atomic.Pointer[state[T]]
	shutdown func()
	closing  chan struct{}

	last  reading // of the latest look
	acted reading // that the current state comes from
}

// parser makes a value of the contents of its files. Odd says what about them may be a mistake. Neither odd nor an
// error quotes them.
type parser[T any] func(contents [][]byte) (value T, odd []string, err error)

type state[T any] struct {
	value T
	since time.Time // when it was read
	stale bool
}

// start reads a value for the first time, when that has to succeed, and has it follow its files.
func start[T any](config Config, files []string, parse parser[T]) (*Value[T], error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.Interval == 0 {
		config.Interval = DefaultInterval
	}
	if config.read == nil {
		config.read = readFile
	}
	v := &Value[T]{config: config, files: files, parse: parse, closing: make(chan struct{})}
	v.shutdown = sync.OnceFunc(func() { close(v.closing) })
	select {
	case v.last = <-v.look():
	case <-time.After(maxWait):
		return nil, v.errHangs()
	}
	if err := v.act(v.last); err != nil {
		return nil, err
	}
	if !v.Constant() {
		go v.follow()
	}
	return v, nil
}

// Get returns the value in force, at once. It works after Close, too.
func (v *Value[T]) Get() T { return v.current.Load().value }

// Constant reports whether the value comes from no file and can never change.
func (v *Value[T]) Constant() bool { return len(v.files) == 0 }

// Close stops following the files. It does not wait for a file system that hangs, and may be called again.
func (v *Value[T]) Close() { v.shutdown() }

// Status is how a secret that comes from files is.
type Status struct {
	Field string `json:"field"`

	// Since the value in force was read, which it is when its file changes.
	ReadSecondsAgo float64 `json:"read_seconds_ago"`

	// Whether its file cannot be read any more, so that the last good value is in force.
	Stale bool `json:"stale"`

	// When it ends, for a certificate.
	Expires *time.Time `json:"expires,omitempty"`
}

// Status tells how the value is, at once, as of the last look.
func (v *Value[T]) Status(now time.Time) Status {
	current := v.current.Load()
	s := Status{Field: v.config.Field, ReadSecondsAgo: max(0, now.Sub(current.since).Seconds()), Stale: current.stale}
	if certificate, ok := any(current.value).(*tls.Certificate); ok && certificate.Leaf != nil {
		s.Expires = &certificate.Leaf.NotAfter
	}
	return s
}

// follow looks at the files until Close.
func (v *Value[T]) follow() {
	wait := v.config.Interval
	for {
		select {
		case <-v.closing:
			return
		case <-time.After(wait):
		}
		done, late := v.look(), time.After(maxWait)
		for looking := true; looking; {
			select {
			case <-v.closing:
				return
			case <-late:
				_ = v.act(reading{err: v.errHangs()})
			case now := <-done:
				wait, looking = v.compare(now), false
			}
		}
	}
}

// compare acts on a look that found a change, and returns when to look again. A change has to be seen twice: the first
// may be of a file that is being written, or of the first of two.
func (v *Value[T]) compare(now reading) (wait time.Duration) {
	stable := now.same(v.last)
	v.last = now
	switch {
	case now.same(v.acted):
	case !stable:
		return v.config.Interval / 10
	default:
		_ = v.act(now)
	}
	return v.config.Interval
}

// act puts what was read in force, or tells why it cannot be.
func (v *Value[T]) act(now reading) error {
	v.acted = now
	var value T
	var odd []string
	err := now.err
	if err == nil {
		value, odd, err = v.parse(now.contents)
	}
	log, before := v.config.Logger.With(zap.String("field", v.config.Field)), v.current.Load()
	if err != nil {
		if before != nil && !before.stale {
			log.Error("cannot read the file of a secret; the last good value stays in force", zap.NamedError("cause", err))
			v.current.Store(&state[T]{value: before.value, since: before.since, stale: true})
		}
		return err
	}
	v.current.Store(&state[T]{value: value, since: time.Now()})
	if before != nil {
		log.Info("a secret was read again", zap.Strings("files", v.files))
	}
	for _, what := range odd {
		log.Warn("a secret may have blanks or quotes around it by mistake; it is used as it is", zap.String("cause", what))
	}
	return nil
}

func (v *Value[T]) errHangs() error {
	return fmt.Errorf("the file %s cannot be read: no answer from its file system for %v", strings.Join(v.files, " or "), maxWait)
}

// reading is what one look found in the files.
type reading struct {
	contents [][]byte
	err      error
}

func (r reading) same(other reading) bool {
	if r.err != nil || other.err != nil {
		return r.err != nil && other.err != nil && r.err.Error() == other.err.Error()
	}
	return slices.EqualFunc(r.contents, other.contents, bytes.Equal)
}

// look reads the files in a goroutine of its own, which is all that a file system can hold up.
func (v *Value[T]) look() <-chan reading {
	done := make(chan reading, 1)
	go func() {
		var r reading
		for _, file := range v.files {
			content, err := v.config.read(file)
			if err != nil {
				done <- reading{err: fmt.Errorf("the file %s cannot be read: %w", file, err)}
				return
			}
			r.contents = append(r.contents, content)
		}
		done <- r
	}()
	return done
}

var errTooLarge = errors.New("it is larger than 1 MiB")

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, plainly(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if len(content) > maxSize {
		err = errTooLarge
	}
	return content, plainly(err)
}

// plainly leaves out what an error says of the path, which its reader knows.
func plainly(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
