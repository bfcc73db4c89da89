package audit

import (
	"errors"
	"io"
	"os"
)

// files is what changes a log's directory. Tests put another in the place of system:
// one that fails, or one that watches whether what must be durable was synced.
type files interface {
	mkdir(dir string) error
	open(path string, create bool) (file, error)
	rename(from, to string) error
	remove(path string) error // what is not there is removed
	syncDir(dir string) error // makes the names in it durable
}

// file is what a log needs of an [*os.File].
type file interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// system is the operating system's files.
type system struct{}

func (system) mkdir(dir string) error { return os.Mkdir(dir, 0o700) }

func (system) open(path string, create bool) (file, error) {
	flags := os.O_WRONLY | noFollow
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	return os.OpenFile(path, flags, 0o600)
}

func (system) rename(from, to string) error { return os.Rename(from, to) }

func (system) remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (system) syncDir(dir string) error { return syncDir(dir) }
