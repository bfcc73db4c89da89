package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// files is what changes the file system. Tests put another in the place of system,
// which watches whether what must be durable was synced.
type files interface {
	mkdir(dir string) error
	create(path string) (file, error) // a new, empty file, in the place of what is there
	rename(from, to string) error
	syncDir(dir string) error // makes the names in it durable
}

// file is what a change needs of an [*os.File].
type file interface {
	io.WriteCloser
	Sync() error
}

// system is the operating system's files.
type system struct{}

func (system) mkdir(dir string) error { return os.Mkdir(dir, 0o700) }

func (system) create(path string) (file, error) {
	// Whoever can write to the directory may have put something under the name that leads
	// elsewhere: what was there is removed, which follows no link, and then the file must
	// be new. It is the rest of a change that died; the caller holds the lock, so that
	// nobody is writing it.
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory, where the vault's next file is to be written: remove it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return openNew(path)
}

// openNew makes a file that must not exist, nor a link in its place, dangling or not.
func openNew(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
}

func (system) rename(from, to string) error { return rename(from, to) }

func (system) syncDir(dir string) error { return syncDir(dir) }

// prepare makes the directory, or checks that it may become a vault. Parents that it
// makes are durable when it returns. The directory's own name is not yet: Create syncs
// that in any case, since whoever made the directory may have died before.
func (d *directory) prepare() error {
	if err := makeDurable(d.fs, filepath.Dir(d.path)); err != nil {
		return err
	}
	if err := d.fs.mkdir(d.path); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.checkEmpty()
}

// makeDurable makes a directory and its parents, those that are missing, and syncs the
// directory that each is in.
func makeDurable(files files, dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDurable(files, parent); err != nil {
			return err
		}
	}
	switch err := files.mkdir(dir); {
	case err == nil:
		return files.syncDir(parent)
	case errors.Is(err, fs.ErrExist):
		return nil // by somebody else, who syncs it; if it is no directory, what comes next says so
	default:
		return err
	}
}

// checkEmpty permits what a Create that was killed leaves behind.
func (d *directory) checkEmpty() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case vaultName:
			return fmt.Errorf("there is a vault: %w", ErrExists)
		case tempName, lockName, lockName + ".held":
		default:
			return fmt.Errorf("the directory is not empty: it has %q: %w", e.Name(), ErrExists)
		}
	}
	return nil
}
