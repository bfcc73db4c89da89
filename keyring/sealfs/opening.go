package sealfs

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// opened is a file that was opened for reading: what is beneath, its head, its key, and what the FS
// has of it.
type opened struct {
	under vfs.File
	dir   bool // it is a directory
	empty bool // it is of layout Empty
	head  *head
	key   *fileKey
	at    fileAt
	log   *logWriter // that is writing it
	pages *pageFile  // of layout Pages: with one more reference
}

// open opens a file, authenticates its head and looks whether it may have the name. It does not wait for
// access. A log without a head is empty, and has none.
//
// The file is opened, its head read and the record in it opened, for which a vault may be asked, without
// names being held. If a head or a name was changed meanwhile, what was found may be of neither moment:
// the record may be of an epoch that is gone by now, in a file that has been replaced. Then it is done
// once more while nothing changes.
func (f *FS) open(name string) (opened, error) {
	moves, rewraps := f.moves.Load(), f.rewraps.Load()
	o, err := f.tryOpen(name)
	if moves%2 == 0 && rewraps%2 == 0 && f.moves.Load() == moves && f.rewraps.Load() == rewraps {
		return o, err
	}
	if err == nil {
		if err := o.close(); err != nil {
			return opened{}, err
		}
	}
	f.names.RLock()
	defer f.names.RUnlock()
	return f.tryOpen(name)
}

func (f *FS) tryOpen(name string) (opened, error) {
	u, err := f.under.Open(name)
	if err != nil {
		return opened{}, err
	}
	o, err := f.openUnder(name, u)
	if err != nil {
		return opened{}, errors.Join(err, u.Close())
	}
	return o, nil
}

func (f *FS) openUnder(name string, u vfs.File) (opened, error) {
	if fi, err := u.Stat(); err != nil {
		return opened{}, err
	} else if fi.IsDir() {
		return opened{under: u, dir: true}, nil
	}
	layout := f.opts.Layout(f.under.PathBase(name))
	if layout == Empty {
		return opened{under: u, empty: true}, nil
	}
	o, err := f.openHead(name, u)
	if err != nil && layout == Log {
		// Pebble meets a log that was being made after a crash.
		if is, serr := unmade(u, err); is || serr != nil {
			return opened{under: u}, serr
		}
	}
	if err != nil {
		return opened{}, ofFile(name, err)
	}
	f.attach(&o)
	return o, nil
}

// openHead reads a file's head, authenticates it and looks whether the file may have the name. It
// does not wait for access.
func (f *FS) openHead(name string, u vfs.File) (opened, error) {
	h, err := readHead(u)
	if err != nil {
		return opened{}, err
	}
	at, err := f.at(h.id, name, u)
	if err != nil {
		return opened{}, err
	}
	hold, err := f.acquire()
	if err != nil {
		return opened{}, err
	}
	defer func() { hold.Release() }()
	var key dek.Key
	defer key.Destroy()
	slot, err := h.openRecord(&hold, &key)
	if err != nil {
		return opened{}, ofKeyring(err)
	}
	k := &fileKey{fs: f, id: h.id, context: h.context(), record: h.records[slot]}
	if err := k.set(&key, hold.For(inner.Block{}).Session()); err != nil {
		return opened{}, err
	}
	if base := f.under.PathBase(name); !h.hasName(&k.aead, base) {
		k.forget()
		return opened{}, fmt.Errorf("it is another file's content: its head does not have the name %q: %w", base, keyring.ErrCorrupt)
	}
	return opened{under: u, head: h, key: f.share(k), at: at}, nil
}

// attach adds what the FS has of the file.
func (f *FS) attach(o *opened) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch o.head.layout {
	case Log:
		o.log = f.logs.get(o.at)
	case Pages:
		if o.pages = f.pages.get(o.at); o.pages == nil {
			o.pages = &pageFile{turn: make(chan struct{}, 1), key: o.key, page: int64(o.head.chunk)}
			f.pages.put(o.at, o.pages)
		}
		o.pages.refs++
	}
}

// close gives back everything that it has.
func (o *opened) close() error {
	if o.pages != nil {
		o.key.fs.forgetPages(o.pages)
	}
	if o.key != nil {
		o.key.release()
	}
	return o.under.Close()
}
