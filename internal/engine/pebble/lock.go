package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Lock is the right of one writer, or of one of any number of readers, to a directory.
type Lock struct{ l *pebble.Lock }

// LockDir locks dir, which exists: for a writer, who excludes everybody else, or shared, for a
// reader beside other readers. It does not wait. The lock is one of the file LOCK in dir, which is
// made if it is missing, never truncated and never removed. docs/design.md, section 10, has the
// argument.
//
// On the operating system's file system, however fs wraps it, the lock belongs to the open file
// (see tryLock): it holds between processes and within one, whatever the path, and ends with Close
// or the process. A writer also acquires FS.Lock of an fs that wraps the operating system's; that
// truncates LOCK by its contract. FS has no shared lock for a reader.
//
// On any other file system, such as one in memory, the lock is FS.Lock alone: it knows neither
// other spellings of the path nor readers, so that one user at a time has the directory open.
//
// On a read-only medium where LOCK is missing, a shared lock is nothing: nobody can write through
// this mount. It does not keep out who mounts the medium for writing elsewhere.
//
// ErrLocked says that somebody else has the directory open in a way that excludes this one. Any
// other error has its cause in the chain and says what to do.
func LockDir(dir string, fs vfs.FS, shared bool) (*Lock, error) {
	l, err := pebble.LockDirectory(dir, lockFS{fs, shared})
	switch {
	case err == nil:
		return &Lock{l}, nil
	case !errors.Is(err, errHeld):
		return nil, fmt.Errorf("engine: the lock cannot be acquired: %w%s", err, remedy(err, shared))
	}
	return nil, fmt.Errorf("%w: %w", ErrLocked, err)
}

// Close releases the lock.
func (l *Lock) Close() error { return l.l.Close() }

// errHeld says that another open file has the lock.
var errHeld = errors.New("somebody else holds it")

// lockFS is a file system for [pebble.LockDirectory].
type lockFS struct {
	vfs.FS
	shared bool
}

// Lock implements [vfs.FS].
func (f lockFS) Lock(name string) (c io.Closer, err error) {
	dir, err := f.Stat(f.PathDir(name))
	if err != nil {
		return nil, err
	}
	// An Unwrap is no proof, because a wrapper that embeds a vfs.FS has the Unwrap of that. But
	// what the operating system says of a file has a Sys.
	switch onDisk := vfs.Root(f.FS) == vfs.Default || dir.Sys() != nil; {
	case !onDisk:
		c, err = f.FS.Lock(name)
	case f.shared || f.FS == vfs.Default:
		c, err = f.lockFile(name)
	default:
		c, err = f.lockBoth(name)
	}
	switch {
	case err == nil:
		return c, nil
	case f.shared && isReadOnlyMedium(err):
		return notNeeded{}, nil
	case isHeld(err) && !errors.Is(err, errHeld):
		return nil, &fs.PathError{Op: lockOp, Path: name, Err: errHeld}
	}
	return nil, err
}

// lockBoth acquires the file system's own lock, which may fail by the user's rules, and ours. If
// theirs comes down to [vfs.Default], it is a lock of the process, which excludes ours and adds
// nothing to it: then ours replaces it.
func (f lockFS) lockBoth(name string) (io.Closer, error) {
	theirs, err := f.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	ours, err := f.lockFile(name)
	if err == nil {
		return bothLocks{ours, theirs}, nil
	}
	if closed := theirs.Close(); closed != nil || !isHeld(err) {
		return nil, errors.Join(err, closed)
	}
	return f.lockFile(name)
}

// lockFile acquires the lock of a file that the operating system has open.
func (f lockFS) lockFile(name string) (io.Closer, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, err
	}
	if file.Fd() == vfs.InvalidFd {
		// The file system keeps the descriptor to itself, as one that encrypts does.
		if err := file.Close(); err != nil {
			return nil, err
		}
		if _, err := os.Stat(name); err != nil {
			return f.FS.Lock(name) // the file is not where its name says either
		}
		if file, err = (lockFS{vfs.Default, f.shared}).open(name); err != nil {
			return nil, err
		}
	}
	if err := tryLock(file.Fd(), f.shared); err != nil {
		if f.shared && isHeld(err) {
			err = fmt.Errorf("%w, to write", errHeld)
		}
		return nil, errors.Join(&fs.PathError{Op: lockOp, Path: name, Err: err}, file.Close())
	}
	return fileLock{file}, nil
}

// lockOp is PathError.Op of a lock that was refused after its file was opened.
const lockOp = "lock"

// open opens a file to lock, and makes it if it is missing.
func (f lockFS) open(name string) (vfs.File, error) {
	if f.shared {
		if file, err := f.Open(name); !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
	return f.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
}

type fileLock struct{ vfs.File }

// Close implements [io.Closer]. It unlocks first: a child process that is being started has the
// open file too, until it runs its program, and would keep the lock for as long.
func (l fileLock) Close() error { return errors.Join(unlock(l.Fd()), l.File.Close()) }

type bothLocks struct{ ours, theirs io.Closer }

func (b bothLocks) Close() error { return errors.Join(b.ours.Close(), b.theirs.Close()) }

type notNeeded struct{}

func (notNeeded) Close() error { return nil }

// remedy says what to do about an error; "" if it does not know.
func remedy(err error, shared bool) string {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	var path *fs.PathError
	refused := errors.As(err, &path) && path.Op == lockOp
	switch {
	case isReadOnlyMedium(err):
		return ": the medium is read-only, where a store can be opened with ReadOnly"
	case vfs.IsNoSpaceError(err) || is(syscall.ENOSPC, syscall.EDQUOT):
		return ": make room, or inodes, for an empty file on the disk"
	case is(syscall.EMFILE, syscall.ENFILE):
		return ": the process, or the machine, has too many files open; raise the limit or close some"
	case is(fs.ErrPermission) && shared:
		return ": this user may not read LOCK, or not make it where it is missing"
	case is(fs.ErrPermission):
		return ": this user may not write there; who may only read can open the store with ReadOnly"
	case is(syscall.ENOLCK):
		return ": the kernel has no locks left, or the file server has no service for locks"
	case refused && is(syscall.EINVAL, errors.ErrUnsupported):
		return ": the file system, or the kernel, has no locks of open files; keep the store on another one"
	}
	return ""
}
