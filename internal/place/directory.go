package place

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/inner"
)

// Has reports whether there is a store in dir. If not, dir is absent or empty, and a store may be
// created in it; anything else is an error.
func Has(fsys vfs.FS, dir string) (bool, error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("block: %w", err)
	}
	if slices.Contains(names, identityName) {
		_, err := readIdentity(fsys, dir) // it is read again under the lock
		return err == nil, err
	}
	for _, n := range names {
		// A creation that was cut off before the identity file leaves these.
		if n != "LOCK" && n != identityName+".new" {
			return false, fmt.Errorf("block: there is %q in %s, and no %s: %w; to create a store, name a directory that is empty or not there, such as a subdirectory",
				n, dir, identityName, ErrNotStore)
		}
	}
	return false, nil
}

// Absolute returns the absolute path of dir, which stays right when the process changes its working
// directory. Other file systems than the operating system's have paths of their own kind.
func Absolute(fsys vfs.FS, dir string) (string, error) {
	if fsys != vfs.Default || dir == "" {
		return dir, nil
	}
	return filepath.Abs(dir)
}

// resolved returns the path of dir without symbolic links.
func resolved(fsys vfs.FS, dir string) string {
	abs, err := Absolute(fsys, dir)
	if err != nil || fsys != vfs.Default {
		return dir
	}
	if path, err := filepath.EvalSymlinks(abs); err == nil {
		return path
	}
	return abs
}

// copiedByHand reports whether somebody copied a store's files to dir by other means than
// Checkpoint: the store that the identity file names is still at the path in it. If that is gone,
// nobody can tell a copy from a store that was moved.
func copiedByHand(fsys vfs.FS, dir string, id identity) bool {
	here := resolved(fsys, dir)
	if id.path == here {
		return false
	}
	if fsys == vfs.Default {
		was, err := os.Stat(id.path)
		is, err2 := os.Stat(dir)
		if err != nil || err2 != nil || os.SameFile(was, is) { // the same directory, such as another mount of it
			return false
		}
	}
	file, err := fsys.Stat(fsys.PathJoin(id.path, identityName))
	if err != nil || !file.Mode().IsRegular() {
		return false
	}
	other, err := readIdentity(fsys, id.path)
	return err == nil && other.instance == id.instance
}

// makeDir makes a directory and the missing ones above it, and makes each durable in its parent: a
// store that was acknowledged must not vanish with its directory.
func makeDir(fsys vfs.FS, dir string) error {
	var missing []string
	for d := dir; ; d = fsys.PathDir(d) {
		if _, err := fsys.Stat(d); err == nil || !errors.Is(err, fs.ErrNotExist) || d == fsys.PathDir(d) {
			break
		}
		missing = append(missing, d)
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range missing {
		if err := syncDir(fsys, fsys.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes the list of a directory's files durable.
func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// InstanceAt returns the instance in the identity file of a directory.
func InstanceAt(fsys vfs.FS, dir string) (inner.InstanceID, error) {
	id, err := readIdentity(fsys, dir)
	return id.instance, err
}

// MakeDir makes the directory, durably.
func (p *Place) MakeDir() error { return makeDir(p.fs, p.dir) }
