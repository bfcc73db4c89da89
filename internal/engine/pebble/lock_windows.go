package pebble

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// tryLock locks a file for its handle. It locks one byte far behind the end, because Windows lets
// nobody else read what is locked. A tool that opens the directory with Pebble asks for LOCK
// without sharing it, and is refused while this handle is open.
func tryLock(fd uintptr, shared bool) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !shared {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	return windows.LockFileEx(windows.Handle(fd), flags, 0, 1, 0, lockedByte())
}

func unlock(fd uintptr) error {
	return windows.UnlockFileEx(windows.Handle(fd), 0, 1, 0, lockedByte())
}

func lockedByte() *windows.Overlapped {
	return &windows.Overlapped{Offset: 1<<32 - 2, OffsetHigh: 1<<31 - 1}
}

// isHeld reports whether an error says that somebody else has a lock, or has the file open without
// sharing it, as Pebble does.
func isHeld(err error) bool {
	return errors.Is(err, errHeld) || errors.Is(err, syscall.EAGAIN) ||
		errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
}

func isReadOnlyMedium(err error) bool {
	return errors.Is(err, windows.ERROR_WRITE_PROTECT) || errors.Is(err, syscall.EROFS)
}
