//go:build unix

package keyfile

import (
	"os"
	"syscall"
)

// keepOwner gives a new file the owner and the mode of the one that it will replace, if there is one.
func keepOwner(old, replacement string) error {
	info, err := os.Stat(old)
	if err != nil {
		return nil
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(replacement, int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(replacement, info.Mode().Perm())
}
