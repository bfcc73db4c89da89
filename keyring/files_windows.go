package keyring

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// errSharingViolation is ERROR_SHARING_VIOLATION: somebody has the file open.
const errSharingViolation = syscall.Errno(32)

// tryLock locks a file against every other tryLock, here and in other processes, until it
// is closed or the process ends: it is opened so that nobody else can open it. It returns
// errHeld without waiting.
func tryLock(path string) (fileLock, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	const nobodyElse = 0
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, nobodyElse, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errSharingViolation) {
		return nil, errHeld
	}
	if err != nil {
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return opened{os.NewFile(uintptr(h), path)}, nil
}

// opened is a lock that is a file which nobody else can open, and so not remove either.
type opened struct{ *os.File }

func (opened) still() error { return nil }

// links is 1: Windows does not say it with a file's other properties.
func links(fs.FileInfo) uint64 { return 1 }

// openPlainly opens a file to read it.
func openPlainly(path string) (*os.File, error) { return os.Open(path) }

// rename replaces a file. Windows refuses to while somebody has the old one open, which
// readers do for as long as it takes to read it.
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

// syncDir does nothing: directories cannot be synced.
func syncDir(string) error { return nil }
