package pebble

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

// File is a file of an engine that is at rest.
type File struct {
	Name string
	Size uint64
	Sum  [sha256.Size]byte // SHA-256 of its content
}

// listed reports whether an inventory lists a file: all of Pebble's files but tables and blob
// files, which the MANIFEST names with their sizes. None of the listed files is written twice, and
// no number is used twice. Files that Pebble does not know by name (rsync.log, ._000012.log) belong
// to others.
func listed(name string) bool {
	if _, _, ok := wal.ParseLogFilename(name); ok {
		return true
	}
	for _, prefix := range []string{"MANIFEST-", "OPTIONS-", "REMOTE-OBJ-CATALOG-"} {
		if digits, ok := strings.CutPrefix(name, prefix); ok {
			return number(digits)
		}
	}
	for _, prefix := range []string{"marker.manifest.", "marker.format-version.", "marker.remote-obj-catalog."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			count, value, ok := strings.Cut(rest, ".")
			return ok && number(count) && strings.Trim(value, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == ""
		}
	}
	return false
}

func number(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

// Inventory returns the files of a closed engine in ascending order of their names, without tables
// and blob files. Those are named in the MANIFEST, whose content the inventory has.
func Inventory(dir string, fs vfs.FS) ([]File, error) {
	if fs == nil {
		fs = vfs.Default
	}
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	var files []File
	buf := make([]byte, 1<<18) // for all of them: most have a few hundred bytes
	slices.Sort(names)
	for _, name := range names {
		if !listed(name) {
			continue
		}
		if st, err := fs.Stat(fs.PathJoin(dir, name)); err != nil || st.IsDir() {
			if err != nil {
				return nil, err
			}
			continue
		}
		f, err := readFile(fs, fs.PathJoin(dir, name), buf)
		if err != nil {
			return nil, err
		}
		f.Name = name
		files = append(files, f)
	}
	return files, nil
}

func readFile(fs vfs.FS, path string, buf []byte) (f File, err error) {
	r, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return f, err
	}
	defer r.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(sum, onlyReader{r}, buf)
	if err != nil {
		return f, err
	}
	f.Size = uint64(n)
	sum.Sum(f.Sum[:0])
	return f, nil
}

type onlyReader struct{ io.Reader }

// compare describes the files that are missing, changed or too many. A file too many belongs to
// another history of the engine: a checkpoint was copied over it, for one.
func compare(want, have []File) (problems []string) {
	there := map[string]File{}
	for _, f := range have {
		there[f.Name] = f
	}
	for _, f := range want {
		switch h, ok := there[f.Name]; {
		case !ok:
			problems = append(problems, f.Name+" is missing")
		case h.Size != f.Size:
			problems = append(problems, fmt.Sprintf("%s has %d bytes, not %d", f.Name, h.Size, f.Size))
		case h.Sum != f.Sum:
			problems = append(problems, f.Name+" has another content")
		}
		delete(there, f.Name)
	}
	for _, f := range have {
		if _, ok := there[f.Name]; ok {
			problems = append(problems, f.Name+" is of another history")
		}
	}
	return problems
}
