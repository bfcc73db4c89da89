//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// tryLock locks a file against every other tryLock, here and in other processes, until it
// is closed or the process ends: the lock belongs to the open file description, and does not
// go when something else closes the same file. It returns errHeld without waiting.
func tryLock(path string) (fileLock, error) {
	// What a link names would be made, wherever that is.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		if there, e := os.Lstat(path); e == nil && !there.Mode().IsRegular() {
			err = errNoLock(path)
		}
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	l := &flocked{f, path}
	switch {
	case err == nil:
		if err = l.still(); err == nil {
			return l, nil
		}
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = errHeld
	default:
		err = &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return nil, errors.Join(err, f.Close())
}

// flocked is a file that is locked by flock.
type flocked struct {
	*os.File
	path string
}

func (l *flocked) still() error {
	mine, err := l.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(l.path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && !there.Mode().IsRegular():
		return errNoLock(l.path)
	case err != nil || !os.SameFile(mine, there):
		return fmt.Errorf("%s: %w", l.path, errGone)
	}
	return nil
}

func errNoLock(path string) error {
	return fmt.Errorf("%s is not a regular file, and no lock; remove it", path)
}

// links is how many names a file has.
func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink)
	}
	return 1
}

// openPlainly opens a file to read it, follows no link, and waits for nobody who would write to a pipe.
func openPlainly(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
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
