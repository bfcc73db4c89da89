package pebble

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Create implements [vfs.FS]. Pebble creates a MANIFEST, then the marker file that names it, and
// then syncs the directory once. If the file system does not keep the order of directory entries, a
// crash can leave a marker without its MANIFEST, and with it no store. So Create syncs the
// directory before it creates a marker: once for each MANIFEST, which is rare.
func (f purgeFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(f.PathBase(name), "marker.manifest.") {
		if err := f.syncDir(f.PathDir(name)); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.Create(name, category)
	return inSteps(file, err, name)
}

// syncDir makes durable which files a directory has.
func (f purgeFS) syncDir(dir string) error {
	d, err := f.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
