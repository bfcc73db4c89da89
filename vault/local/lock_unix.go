//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package local

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// holdOpen says that a file can be renamed over while it is open; see snapshot.
const holdOpen = true

// noFollow makes opening a symbolic link an error: what is written must be in the
// vault's directory.
const noFollow = syscall.O_NOFOLLOW

// tryLock locks a file against every other tryLock, here and in other processes,
// until it is closed or the process ends. It returns ErrLocked without waiting.
func tryLock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// rename replaces a file, whoever reads it.
func rename(from, to string) error { return os.Rename(from, to) }

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
