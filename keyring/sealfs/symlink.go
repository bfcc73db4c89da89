package sealfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// leadsTo reports whether a path is a symbolic link into one of the directories, all of which are gone
// through. Any other link is an error: what it leads to may be anybody's, and not to be written to; or it
// may be files of the keyring, which would be lost if they were passed over, also where it leads nowhere at
// the moment. A vfs.FS does not tell a link from what it leads to; the operating system does.
func (f *FS) leadsTo(path string, dirs []string) (bool, error) {
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		return false, nil // Stat says what is wrong
	}
	if fi, err := f.under.Stat(path); err == nil && fi.Sys() == nil {
		return false, nil // of a file system in memory, say, which has nothing to do with the path
	}
	to, err := filepath.EvalSymlinks(path)
	for _, dir := range dirs {
		if err != nil {
			break
		}
		var real, rel string
		if real, err = filepath.EvalSymlinks(dir); err != nil {
			break
		}
		if rel, err = relative(real, to); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			return true, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("%s is a symbolic link of which it is not known where it leads; remove it: %w", path, err)
	}
	return false, fmt.Errorf("%s is a symbolic link to %s, which is in none of the directories; name the one that it is in too, or remove the link", path, to)
}

// relative is filepath.Rel of two paths one of which may be absolute.
func relative(from, to string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	if to, err = filepath.Abs(to); err != nil {
		return "", err
	}
	return filepath.Rel(from, to)
}
