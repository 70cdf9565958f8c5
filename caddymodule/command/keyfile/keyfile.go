// Package keyfile writes the key file of a vault.
package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/secret"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
)

// Make makes a key file, or puts a key that seals in front of those in it, and says what it did. It writes beside its place
// and then puts it there, so that nobody ever reads half of one.
func Make(path string) (says string, err error) {
	existing, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		says = "Made " + path + ". Keep a copy where the records are not."
	case err != nil:
		return "", err
	default:
		if existing, err = secret.CleanKey(existing); err != nil {
			return "", fmt.Errorf("the file %s %w", path, err)
		}
		says = "Added a key to " + path + ". Give it to all instances, and then run 'vault rotate'."
	}
	text, err := seal.GenerateKeys(existing)
	if err != nil {
		return "", fmt.Errorf("the file %s %w", path, err)
	}
	return says, replaceFile(path, text)
}

// replaceFile writes a file that only its owner can read, who stays the same.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = keepOwner(path, f.Name())
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
