package pebble

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// tryLock locks a file for its open file description (fcntl(2), "open file description
// locks"). A lock of F_SETLK, which Pebble takes, belongs to the process instead: a second
// one of the same process does not meet it, and it is gone when any descriptor of the file
// is closed, also one that only read it. The two kinds keep each other out, so that a tool
// that opens the directory with Pebble is refused; locks of flock(2) would not meet it.
func tryLock(fd uintptr, shared bool) error {
	if shared {
		return setLock(fd, unix.F_RDLCK)
	}
	return setLock(fd, unix.F_WRLCK)
}

func unlock(fd uintptr) error { return setLock(fd, unix.F_UNLCK) }

func setLock(fd uintptr, kind int16) error {
	// The whole file, whatever its length.
	l := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: 0, Len: 0}
	for {
		err := unix.FcntlFlock(fd, unix.F_OFD_SETLK, &l)
		switch {
		case errors.Is(err, unix.EINTR):
			continue // on a network's file system
		case err == unix.EAGAIN || err == unix.EACCES: // POSIX allows both
			return errHeld
		}
		return err
	}
}
