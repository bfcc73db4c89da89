//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package pebble

import (
	"errors"
	"syscall"
)

// tryLock locks a file for its open file (flock(2)). Pebble's own lock (fcntl(2)) belongs to the
// process instead: it does not exclude another of the same process, and ends when any descriptor of
// the file is closed. On these systems the two kinds exclude each other, so that a tool that opens
// the directory with Pebble is refused.
func tryLock(fd uintptr, shared bool) error {
	if shared {
		return flock(fd, syscall.LOCK_SH|syscall.LOCK_NB)
	}
	return flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
}

func unlock(fd uintptr) error { return flock(fd, syscall.LOCK_UN) }

func flock(fd uintptr, how int) error {
	for {
		err := syscall.Flock(int(fd), how)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue // on a file system of the network
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errHeld
		}
		return err
	}
}
