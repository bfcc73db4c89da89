//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package pebble

import (
	"errors"
	"fmt"
	"runtime"
)

// tryLock fails: this system only has locks of the process, which let one process open a directory
// twice, and end when somebody reads LOCK.
func tryLock(uintptr, bool) error {
	return fmt.Errorf("locks of open files on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func unlock(uintptr) error { return nil }
