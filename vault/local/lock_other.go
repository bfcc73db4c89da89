//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package local

import (
	"errors"
	"io"
	"os"
	"time"
)

// holdOpen says that a file can be renamed over while it is open; see snapshot.
const holdOpen = false

// noFollow is 0: O_EXCL follows no links either.
const noFollow = 0

// tryLock makes a file that must not exist, and removes it when it is closed.
// Where there is no flock, a process that was killed leaves it behind; it is then
// removed by hand.
func tryLock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path+".held", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, ErrLocked
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

// rename replaces a file. Windows refuses to while somebody has the old one open,
// which readers do for as long as it takes to read it.
func rename(from, to string) (err error) {
	const tries, pause = 100, 10 * time.Millisecond
	for range tries {
		if err = os.Rename(from, to); err == nil {
			return nil
		}
		time.Sleep(pause)
	}
	return err
}

// syncDir does nothing where directories cannot be synced.
func syncDir(string) error { return nil }
