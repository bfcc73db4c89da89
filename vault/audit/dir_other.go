//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// noFollow is 0 where there is no such flag.
const noFollow = 0

// lockFile makes a file that must not exist, and removes it when it is closed.
// Where there is no flock, a process that was killed leaves it behind.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("the log is open already; if no process has it open, remove %s", path)
	}
	if err != nil {
		return nil, err
	}
	return removedOnClose{f}, nil
}

type removedOnClose struct{ *os.File }

func (r removedOnClose) Close() error {
	return errors.Join(r.File.Close(), os.Remove(r.Name()))
}

// syncDir does nothing where directories cannot be synced.
func syncDir(string) error { return nil }
