//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package audit

import (
	"errors"
	"io"
	"os"
	"syscall"
)

var errOpenAlready = errors.New("the log is open already, here or in another process")

// noFollow makes opening a symbolic link an error: what is written must be in the log's
// directory.
const noFollow = syscall.O_NOFOLLOW

// lockFile locks a file against other processes, and against another lockFile in
// this one, until it is closed or the process ends.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errOpenAlready
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
