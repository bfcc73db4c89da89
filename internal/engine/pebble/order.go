package pebble

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Create implements [vfs.FS]. Pebble creates a manifest, then the marker file that
// names it, and syncs the directory once, after both. On a file system that does not
// keep the order of directory entries, a crash in between can leave a marker of a
// manifest that is not there, and with it no store. Here the directory is synced
// before a marker is created: once for each manifest, which is seldom.
func (f purgeFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(f.PathBase(name), "marker.manifest.") {
		d, err := f.OpenDir(f.PathDir(name))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.Create(name, category)
	return inSteps(file, err, name)
}
