package pebble

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// tryLock locks a file for its open file description (fcntl(2), "open file description locks").
// Pebble's own lock (F_SETLK) belongs to the process instead: it does not exclude another of the
// same process, and ends when any descriptor of the file is closed, even one that was only read.
// The two kinds exclude each other, so that a tool that opens the directory with Pebble is refused.
// flock(2) would not exclude that tool.
func tryLock(fd uintptr, shared bool) error {
	if shared {
		return setLock(fd, unix.F_RDLCK)
	}
	return setLock(fd, unix.F_WRLCK)
}

func unlock(fd uintptr) error { return setLock(fd, unix.F_UNLCK) }

func setLock(fd uintptr, kind int16) error {
	// A length of 0 is the whole file.
	l := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: 0, Len: 0}
	for {
		err := unix.FcntlFlock(fd, unix.F_OFD_SETLK, &l)
		switch {
		case errors.Is(err, unix.EINTR):
			continue // on a file system of the network
		case err == unix.EAGAIN || err == unix.EACCES: // POSIX allows both
			return errHeld
		}
		return err
	}
}
