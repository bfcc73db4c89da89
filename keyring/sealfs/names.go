package sealfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
)

// Rename implements vfs.FS. A file that gets another last element of its path gets the name into
// its head first, durably, so that at every moment, and after a crash, the file opens under the name
// that it has. The old name stays good for it until the slot is needed. If the two are in different
// directories, both are synced when it returns.
func (f *FS) Rename(oldname, newname string) error {
	return f.renamed(oldname, newname, func() error {
		if err := f.under.Rename(oldname, newname); err != nil {
			return err
		}
		f.moved(oldname, newname)
		if f.under.PathDir(oldname) == f.under.PathDir(newname) {
			return nil
		}
		// Not that the file has two names on the disk, of which one is in a directory that nobody
		// syncs when the slot is needed.
		return errors.Join(f.syncDir(newname), f.syncDir(oldname))
	})
}

// Link implements vfs.FS, for files of layout [Once] that are not being written, and empty ones. Any
// other is refused, for Pebble to copy it.
func (f *FS) Link(oldname, newname string) error {
	return f.renamed(oldname, newname, func() error {
		u, err := f.under.Open(oldname)
		if err != nil {
			return err
		}
		h, err := readHead(u)
		var at fileAt
		if err == nil {
			at, err = f.at(h.id, oldname, u)
		}
		if cerr := u.Close(); err == nil {
			err = cerr
		}
		empty := errors.Is(err, errUnwritten) && f.opts.Layout(f.under.PathBase(oldname)) == Empty
		if !empty && (err != nil || !f.fixed(h, at)) {
			return errors.Join(fmt.Errorf("sealfs: link %s: %w", oldname, errNoLink), err)
		}
		return f.under.Link(oldname, newname)
	})
}

// renamed calls do, which gives a file another name, when the file's head has it.
func (f *FS) renamed(oldname, newname string, do func() error) error {
	if err := f.free(newname); err != nil {
		return err
	}
	return f.retry(func() error {
		f.names.Lock()
		defer f.names.Unlock()
		defer during(&f.moves)()
		if base := f.under.PathBase(newname); base != f.under.PathBase(oldname) {
			if err := f.addName(oldname, base); err != nil {
				return err
			}
		}
		return do()
	})
}

// during counts the beginning of a change, and its end when over is called.
func during(changes *atomic.Uint64) (over func()) {
	changes.Add(1)
	return func() { changes.Add(1) }
}

// addName puts a name into a file's head. What has no head needs none: a directory, an empty file,
// one that is not sealed and so opens under no name. f.names is held.
func (f *FS) addName(name, base string) error {
	u, err := f.under.Open(name)
	if err != nil {
		return err
	}
	if fi, err := u.Stat(); err != nil || fi.IsDir() {
		return errors.Join(err, u.Close())
	}
	o, err := f.openHead(name, u)
	if cerr := u.Close(); err == nil && cerr != nil {
		err = cerr
		o.key.release()
	}
	if errors.Is(err, errUnwritten) || errors.Is(err, ErrNotSealed) {
		return nil
	}
	if err != nil {
		return ofFile(name, err)
	}
	defer o.key.release()
	var slot []byte
	free := -1
	if err := o.key.use(func(a *dek.AEAD) error {
		if o.head.hasName(a, base) {
			return nil
		}
		slot = sealName(a, base)
		free = freeName(o.head, a, f.under.PathBase(name), f.fixed(o.head, o.at))
		return nil
	}); err != nil || slot == nil {
		return err
	}
	if free >= 0 {
		if o.head.names[free] != nil {
			// It may be that of a name that the file still has on the disk.
			if err := f.syncDir(name); err != nil {
				return err
			}
		}
		return f.patch(name, o.head, nameSlotsAt+free*nameSlotSize, slot)
	}
	// All slots may belong to links of this file: it becomes a file of its own, with two names.
	var own []byte
	if err := o.key.use(func(a *dek.AEAD) error {
		own = sealName(a, f.under.PathBase(name))
		return nil
	}); err != nil {
		return err
	}
	o.head.names = [nameSlots][]byte{own, slot}
	return f.replaceHead(name, o.head)
}

// freeName returns a name slot that may be filled, or -1. A file whose slots are not fixed has one
// name at a time, so that any may be that does not hold that one, once the disk has no other either.
func freeName(h *head, a *dek.AEAD, base string, fixed bool) int {
	for i, n := range h.names {
		if n == nil {
			return i
		}
	}
	if fixed {
		return -1
	}
	want := nameSum(base)
	for i, n := range h.names {
		if got, err := a.Open(nil, n, []byte{ofName}); err != nil || string(got) != string(want[:]) {
			return i
		}
	}
	return -1
}

// patch writes some bytes of the head of a file, durably: of the one whose head h is, or, if h is nil, of
// whichever has the name.
func (f *FS) patch(name string, h *head, at int, b []byte) error {
	u, err := f.under.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if h != nil {
		var fixed [fixedSize]byte
		if n, err := u.ReadAt(fixed[:], 0); n < fixedSize || fixed != h.fixed {
			return errors.Join(errReplaced, err, u.Close())
		}
	}
	if _, err := u.WriteAt(b, int64(at)); err != nil {
		return errors.Join(err, u.Close())
	}
	return errors.Join(u.Sync(), u.Close())
}

// errReplaced says that somebody else writes the directory.
var errReplaced = errors.New("another file was put in its place meanwhile, and was left as it is")

// replaceSuffix is what the name ends with of a file that is to take another's place. No other file
// may have such a name: a rotation removes what a crash left.
const replaceSuffix = ".sealfs-new"

// free refuses a name that nobody may give to a file.
func (f *FS) free(name string) error {
	if strings.HasSuffix(name, replaceSuffix) {
		return fmt.Errorf("sealfs: %s: names that end with %s are the file system's own: %w", name, replaceSuffix, os.ErrInvalid)
	}
	return nil
}

// replaceHead puts a copy of a file with another head in its place, for when the head has no room
// left. What else has the file as it was, a checkpoint for example, keeps it. What is sealed is
// copied as it is. f.names is held.
func (f *FS) replaceHead(name string, h *head) error {
	tmp := name + replaceSuffix
	err := func() error {
		from, err := f.under.Open(name, vfs.SequentialReadsOption)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := f.under.Create(tmp, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		if err := copyFrom(to, from, h.encode()); err != nil {
			return errors.Join(err, to.Close())
		}
		return errors.Join(to.Sync(), to.Close())
	}()
	if err == nil {
		err = f.under.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, ignoreNotExist(f.under.Remove(tmp)))
	}
	return f.syncDir(name)
}

// copyFrom writes a head, and what is behind it in another file.
func copyFrom(to, from vfs.File, head []byte) error {
	if _, err := to.Write(head); err != nil {
		return err
	}
	buf := make([]byte, writeBuffer)
	for at := int64(headSize); ; {
		n, err := from.ReadAt(buf, at)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// syncDir makes a file's name durable.
func (f *FS) syncDir(name string) error {
	d, err := f.under.OpenDir(f.under.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReuseForWrite implements vfs.FS: a log that is not needed any more becomes a new one, in the
// bytes that it has on disk, under a DEK of its own, so that what is left of the old one opens
// no more. The head is durable before the name is changed: a crash in between leaves a log without
// frames under the old name. Errors: those of the file system; keyring.ErrCorrupt if oldname is no
// log.
func (f *FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.free(newname); err != nil {
		return nil, err
	}
	if l := f.opts.Layout(f.under.PathBase(newname)); l != Log {
		// Nothing but logs is overwritten in place.
		if err := f.Remove(oldname); err != nil {
			return nil, err
		}
		return f.Create(newname, category)
	}
	h := newHead(Log, 0)
	var w *logWriter
	err := f.newKey(h, []string{f.under.PathBase(newname), f.under.PathBase(oldname)}, func(k *fileKey) error {
		f.names.Lock()
		defer f.names.Unlock()
		if err := f.checkIsLog(oldname); err != nil {
			return ofFile(oldname, err)
		}
		defer during(&f.moves)()
		b := h.encode()
		if err := f.patch(oldname, nil, 0, b); err != nil {
			return err
		}
		u, err := f.under.ReuseForWrite(oldname, newname, category)
		if err != nil {
			return err
		}
		f.moved(oldname, newname)
		// Again, for where it writes on, and if the file beneath was made anew.
		fi, err := u.Stat()
		if err == nil {
			_, err = u.Write(b)
		}
		if err == nil && fi.Size() < headSize {
			err = u.Sync()
		}
		var at fileAt
		if err == nil {
			at, err = f.at(h.id, newname, u)
		}
		if err != nil {
			return errors.Join(err, u.Close())
		}
		w = f.newLogWriter(at, newname, u, k)
		return nil
	})
	if err != nil {
		return nil, ofFile(newname, err)
	}
	return w, nil
}

// checkIsLog looks whether a file is a log, by what its head says in clear: what is overwritten
// is lost anyway.
func (f *FS) checkIsLog(name string) error {
	u, err := f.under.Open(name)
	if err != nil {
		return err
	}
	h, err := readHead(u)
	if cerr := u.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, errUnwritten) {
		return nil
	}
	if err == nil && h.layout != Log {
		err = fmt.Errorf("it is of layout %v, and only logs are reused: %w", h.layout, keyring.ErrCorrupt)
	}
	return err
}
