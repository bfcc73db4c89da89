//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// tryLock refuses: a lock that outlived a killed process would keep an anchor from ever
// being advanced again.
func tryLock(path string) (fileLock, error) {
	return nil, fmt.Errorf("%s: a lock that ends with its process: %w", path, errors.ErrUnsupported)
}

// links is 1: there is no lock either, and so no writing.
func links(fs.FileInfo) uint64 { return 1 }

func openPlainly(path string) (*os.File, error) { return os.Open(path) }

func rename(from, to string) error { return os.Rename(from, to) }

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
