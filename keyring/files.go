package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// errHeld says that somebody else has the lock.
var errHeld = errors.New("the lock is held")

// errGone says that a lock keeps nobody out any more.
var errGone = errors.New("the lock's file was removed while a process had it, which nobody may do")

// fileLock is a lock that somebody has.
type fileLock interface {
	io.Closer
	// still returns errGone if the lock's file was removed or replaced: then the next one locks
	// another.
	still() error
}

// lockFile locks a file, which it makes if it is missing, and waits for that for as long as
// ctx allows.
func lockFile(ctx context.Context, path string) (fileLock, error) {
	const pause = 5 * time.Millisecond
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l, err := tryLock(path)
		if !errors.Is(err, errHeld) && !errors.Is(err, errGone) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is held by another process: %w", path, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// readFile reads a file of at most so many bytes, and one more if there are more. A link is refused:
// who replaces the file would put one in the link's place, which may be on another disk, and the
// link has a lock of its own. So is what may never end, or never begin.
func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, errors.New("it is a link; give the path of the file itself")
	case !info.Mode().IsRegular():
		return nil, corrupt("it is not a regular file")
	}
	file, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most+1))
}

// openFile opens a regular file. Another one may have come in its place since somebody looked.
func openFile(path string) (*os.File, error) {
	file, err := openPlainly(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = corrupt("it is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// replaceFile makes b the file, durably. Its lock is held, so that what is at the new file's
// name was left by somebody who was killed.
func replaceFile(path string, b []byte) (err error) {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}
