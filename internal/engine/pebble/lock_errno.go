//go:build !windows

package pebble

import (
	"errors"
	"strings"
	"syscall"
)

// isHeld reports whether an error says that somebody else has a lock. The text is [vfs.Default]'s,
// for a second lock of the process by the same name.
func isHeld(err error) bool {
	return errors.Is(err, errHeld) || errors.Is(err, syscall.EAGAIN) ||
		err != nil && strings.Contains(err.Error(), "lock held by current process")
}

func isReadOnlyMedium(err error) bool { return errors.Is(err, syscall.EROFS) }
