package sealfs

import (
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fileAt names one file beneath. The id in the head does not: a copy, byte by byte, has the same, and
// is another file, with another size. Which file it is the operating system says; another file system,
// as one in memory, is taken at its paths, which are kept as the files move.
type fileAt struct {
	id    fileID
	inode inode
	path  string // "" if there is an inode
}

// inode is a file's number, on its device. The zero inode is none.
type inode struct{ device, number uint64 }

// at returns which file one is.
func (f *FS) at(id fileID, name string, u vfs.File) (fileAt, error) {
	n, err := inodeOf(u)
	if err != nil {
		return fileAt{}, err
	}
	if n != (inode{}) {
		return fileAt{id: id, inode: n}, nil
	}
	return fileAt{id: id, path: filepath.Clean(name)}, nil
}

// openFiles is what an FS keeps of files that are open, of one layout. FS.mu is held.
type openFiles[T comparable] struct {
	byPlace map[fileAt]T
	places  map[T]fileAt
}

func newOpenFiles[T comparable]() openFiles[T] {
	return openFiles[T]{byPlace: map[fileAt]T{}, places: map[T]fileAt{}}
}

func (o openFiles[T]) get(at fileAt) T { return o.byPlace[at] }

func (o openFiles[T]) put(at fileAt, t T) {
	if was, ok := o.byPlace[at]; ok {
		delete(o.places, was)
	}
	o.byPlace[at] = t
	o.places[t] = at
}

func (o openFiles[T]) drop(t T) {
	if at, ok := o.places[t]; ok {
		delete(o.places, t)
		delete(o.byPlace, at)
	}
}

// moved says that a file or a directory has another path now, and what had that one before has none.
// from "" is a new file, and to "" that it was removed.
func (o openFiles[T]) moved(from, to string) {
	type move struct {
		t  T
		at fileAt
	}
	var moves []move
	for t, at := range o.places {
		rest, within := inPath(at.path, from)
		if _, replaced := inPath(at.path, to); !within && !replaced {
			continue
		}
		at.path = ""
		if within && to != "" {
			at.path = to + rest
		}
		moves = append(moves, move{t, at})
	}
	for _, m := range moves {
		o.drop(m.t)
	}
	for _, m := range moves {
		if m.at.path != "" {
			o.put(m.at, m.t)
		}
	}
}

// inPath reports whether a path is that of a file or within a directory, and what it has more.
func inPath(path, of string) (rest string, ok bool) {
	if of == "" || path == "" {
		return "", false
	}
	rest, ok = strings.CutPrefix(path, of)
	return rest, ok && (rest == "" || rest[0] == '/' || rest[0] == filepath.Separator)
}

// moved is openFiles.moved for all layouts.
func (f *FS) moved(from, to string) {
	clean := func(name string) string {
		if name == "" {
			return ""
		}
		return filepath.Clean(name)
	}
	from, to = clean(from), clean(to)
	if from == to {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs.moved(from, to)
	f.tables.moved(from, to)
	f.pages.moved(from, to)
}

// forget says that nobody is writing a file any more.
func (f *FS) forget(file vfs.File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch w := file.(type) {
	case *logWriter:
		f.logs.drop(w)
	case *onceWriter:
		f.tables.drop(w)
	}
}

// fixed reports whether a file's slots stay as they are once they were filled: those of a file of
// layout Once may be a checkpoint's as well, unless it is being written, and so was linked nowhere.
func (f *FS) fixed(h *head, at fileAt) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return h.layout == Once && f.tables.get(at) == nil
}
