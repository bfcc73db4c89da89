package sealfs

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// listing is what the directories of a database have.
type listing struct {
	files []string // with content, to be migrated
	left  []string // what a crash left of one that was to take another's place
	marks []string
}

// list lists the directories, and refuses what is not Pebble's. It opens neither LOCK nor markers: a
// process that closes any handle of a file loses its locks of it.
func (m *migration) list() (listing, error) {
	var out listing
	under := m.fs.under
	for _, dir := range m.dirs {
		names, err := under.List(dir)
		if err != nil {
			return listing{}, err
		}
		slices.Sort(names)
		documents := map[string]bool{}
		for _, name := range names {
			path := under.PathJoin(dir, name)
			if _, err := m.fs.leadsTo(path, nil); err != nil {
				return listing{}, err
			}
			fi, err := under.Stat(path)
			switch {
			case err != nil:
				return listing{}, err
			case fi.IsDir() && slices.ContainsFunc(m.dirs, func(d string) bool { return under.PathJoin(d) == under.PathJoin(path) }):
			case fi.IsDir():
				return listing{}, fmt.Errorf("%s is a directory that was not named: name it if the database has files there, else move it elsewhere", path)
			case !fi.Mode().IsRegular():
				return listing{}, fmt.Errorf("%s is no file (%v); remove it", path, fi.Mode().Type())
			case name == sealingMark || name == unsealingMark:
				if dir != m.dirs[0] {
					return listing{}, fmt.Errorf("%s has a mark of its own: it is the directory of another database, whose migration was cut off", dir)
				}
				out.marks = append(out.marks, name)
			case strings.HasSuffix(name, replaceSuffix) && ofPebble(strings.TrimSuffix(name, replaceSuffix)):
				out.left = append(out.left, path)
			case strings.HasPrefix(name, "SHARED-CACHE-"), strings.HasPrefix(name, "REMOTE-OBJ-CATALOG-"):
				return listing{}, fmt.Errorf("%s belongs to a database with tables in remote storage, which no file system seals", path)
			case m.fs.opts.Layout(name) == Empty:
				if fi.Size() > 0 && name != "LOCK" {
					return listing{}, corrupt(path, "it has %d bytes, and files of its name are empty", fi.Size())
				}
			case ofPebble(name):
				out.files = append(out.files, path)
			default:
				is, err := m.isDocument(path)
				if err != nil {
					return listing{}, err
				}
				if documents[name] = is; !is && !documents[strings.TrimSuffix(name, ".lock")] {
					return listing{}, fmt.Errorf("%s is no file of Pebble's; move it elsewhere", path)
				}
			}
		}
	}
	return out, nil
}

func (m *migration) isDocument(path string) (bool, error) {
	u, err := m.fs.under.Open(path)
	if err != nil {
		return false, err
	}
	return isDocument(u), u.Close()
}

func isManifest(base string) bool {
	n, ok := strings.CutPrefix(base, "MANIFEST-")
	return ok && isNumber(n)
}

// ofPebble reports whether a file of that name is one of Pebble's, with content.
func ofPebble(base string) bool {
	number, kind, _ := strings.Cut(base, ".")
	switch kind {
	case "sst", "blob":
		return isNumber(number)
	case "log":
		wal, index, two := strings.Cut(number, "-")
		return isNumber(wal) && (!two || isNumber(index))
	}
	if rest, ok := strings.CutSuffix(base, ".dbtmp"); ok {
		for _, prefix := range []string{"CURRENT.", "temporary.", "OPTIONS-"} {
			if n, ok := strings.CutPrefix(rest, prefix); ok && isNumber(n) {
				return true
			}
		}
	}
	n, ok := strings.CutPrefix(base, "OPTIONS-")
	return isManifest(base) || ok && isNumber(n) || base == "failover_source"
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

// fileState is what a file is, by its first bytes.
type fileState int

const (
	statePlain     fileState = iota + 1
	stateSealed              // it has a head, which may be damaged
	stateUnwritten           // it is empty, zeros, or cut off within a head: a plain file, or what a crash left of a sealed one
)

func (m *migration) stateOf(path string) (fileState, error) {
	u, err := m.fs.under.Open(path)
	if err != nil {
		return 0, err
	}
	fi, err := u.Stat()
	if err == nil {
		_, err = readHead(u)
	}
	if cerr := u.Close(); cerr != nil {
		return 0, cerr
	}
	switch {
	case fi == nil:
		return 0, err
	case err == nil:
		return stateSealed, nil
	case errors.Is(err, ErrNotSealed):
		return statePlain, nil
	case errors.Is(err, errUnwritten) && fi.Size() == 0 && m.fs.opts.Layout(m.fs.under.PathBase(path)) == Log:
		return 0, nil // an empty log, which is the same in both
	case errors.Is(err, errUnwritten):
		return stateUnwritten, nil
	}
	return 0, ofFile(path, err)
}

// migrateFile migrates one file, unless it is as it should be. Beneath a mark a file is sealed by a
// migration, whole, or it is plain; what looks cut off is plain, because run has begun only when no sealed
// one did.
func (m *migration) migrateFile(path string) (did bool, size int64, err error) {
	state, err := m.stateOf(path)
	if err != nil {
		return false, 0, err
	}
	sealed := state == stateSealed
	if sealed {
		// Also one that stays: a head that is another keyring's is found before the mark goes.
		file, err := m.fs.Open(path)
		if err != nil {
			return false, 0, err
		}
		if err := file.Close(); err != nil {
			return false, 0, err
		}
	}
	if sealed == m.seal {
		return false, 0, nil
	}
	tmp := path + replaceSuffix
	if m.seal {
		size, err = m.sealTo(tmp, path)
	} else {
		size, err = m.unsealTo(tmp, path)
	}
	if err == nil {
		err = m.fs.under.Rename(tmp, path)
	}
	if err != nil {
		return false, 0, errors.Join(err, ignoreNotExist(m.fs.under.Remove(tmp)))
	}
	return true, size, m.fs.syncDir(path)
}

// sealTo makes a sealed file of a plain one's content, whose head has the plain one's name, durably.
func (m *migration) sealTo(tmp, path string) (int64, error) {
	f := m.fs
	from, err := f.under.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	base := f.under.PathBase(path)
	layout := f.opts.Layout(base)
	h := newHead(layout, f.chunkOf(layout))
	var to sealedWriter
	if err := f.newKey(h, []string{base}, func(k *fileKey) error {
		u, err := f.under.Create(tmp, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		at, err := f.at(h.id, tmp, u)
		if err == nil {
			_, err = u.Write(h.encode())
		}
		switch {
		case err != nil:
		case layout == Log:
			to = f.newLogWriter(at, tmp, u, k)
		case layout == Once:
			to = newOnceWriter(f, at, tmp, u, k, int(h.chunk))
		default:
			err = fmt.Errorf("Options.Layout says %v: %w", layout, errors.ErrUnsupported)
		}
		if err != nil {
			return errors.Join(err, u.Close())
		}
		return nil
	}); err != nil {
		return 0, ofFile(path, err)
	}
	size, err := m.copy(to, from)
	if err == nil {
		err = to.complete()
	}
	return size, errors.Join(err, to.Close())
}

// unsealTo makes a plain file of a sealed one's content, durably. A log that was not closed ends with
// tornMark, at which Pebble applies its rule as it would in the sealed one.
func (m *migration) unsealTo(tmp, path string) (int64, error) {
	from, err := m.fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	to, err := m.fs.under.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	size, err := m.copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	return size, errors.Join(err, to.Close())
}

// copy copies a file, and stops when the context ends.
func (m *migration) copy(to io.Writer, from io.Reader) (size int64, err error) {
	buf := make([]byte, writeBuffer)
	defer clear(buf)
	for {
		if err := m.ctx.Err(); err != nil {
			return size, err
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return size, err
			}
			size += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

// sealedWriter is a sealed file that is being made for a migration. complete makes it durable, as one that is
// whole; after that there is nothing but Close.
type sealedWriter interface {
	vfs.File
	complete() error
}

// complete is Sync: that seals the last chunk as that.
func (w *onceWriter) complete() error { return w.Sync() }

// complete writes the closing frame, durably, which Close alone leaves out without access: an older log
// without one is taken for torn. The frames before are durable by then and it says so, so that damage
// of any of them is told from a torn end.
func (w *logWriter) complete() error {
	if err := w.Sync(); err != nil {
		return err
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := w.write(nil, w.fs.retry); err != nil {
		return err
	}
	err := w.under.Sync()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(errEnded, err) // Close writes no second one
	return err
}

// errEnded says that a log has its closing frame.
var errEnded = errors.New("the log was closed")
