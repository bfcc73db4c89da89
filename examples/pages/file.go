// Pages is keyring and dek alone, under a plain page file: what a program writes
// that has storage of its own and wants no second one.
//
//	go run ./examples/pages
//
// The file has 4 KiB pages. Each is sealed under a DEK of its own, a fresh one each
// time that it is written; the DEKs are wrapped, in a file beside it; the keyring's
// document is a third. journal.go makes a change of several pages one change.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// PageSize is the size of a page in bytes, and pageSlot and recordSlot are what a
// page and its DEK's record take in the files. An all-zero record is a page that was
// never written.
const (
	PageSize   = 4096
	pageSlot   = PageSize + dek.Overhead
	recordSlot = keyring.RecordSize
)

// ErrDamaged says that a page, or its record, is not what was written.
var ErrDamaged = errors.New("pages: damaged page")

// File is a page file. It is safe for concurrent use: any number of readers, and one
// writer at a time.
type File struct {
	keys           *keyring.Keyring
	mu             sync.RWMutex
	pages, records *os.File
	journal        *journal
	broken         error // a change is in the journal and may be half in the files
}

// OpenFile opens the page file in dir, which it creates if it is not there. If the
// vault refuses the key, that is the error; see keyring.Options.RequireAccess for
// the other way.
func OpenFile(ctx context.Context, dir string, k *kek.KEK, opts *keyring.Options) (f *File, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f = &File{}
	defer func() {
		if err != nil {
			f, err = nil, errors.Join(err, f.Close())
		}
	}()
	// The document is first: there is no page without it.
	path := filepath.Join(dir, "keyring")
	open := keyring.Open
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		open = keyring.Create
	}
	if f.keys, err = open(ctx, keyring.FileStorage(path), k, opts); err != nil {
		return f, err
	}
	if f.pages, err = os.OpenFile(filepath.Join(dir, "pages"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return f, err
	}
	if f.records, err = os.OpenFile(filepath.Join(dir, "records"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return f, err
	}
	if f.journal, err = openJournal(filepath.Join(dir, "journal")); err != nil {
		return f, err
	}
	if err := syncDir(dir); err != nil {
		return f, err
	}
	// What a crash left half done is done again. It is sealed, so that this needs no
	// key.
	return f, f.journal.replay(f.apply)
}

// number is what a page, and its DEK, are bound to.
func number(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte("page"), n) }

// Read appends page n, PageSize bytes, to dst. A page that was never written is
// zeros. Without access to the key the error matches keyring.ErrInaccessible.
func (f *File) Read(ctx context.Context, n uint32, dst []byte) ([]byte, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.broken != nil {
		return nil, f.broken
	}
	// The hold makes sure that a lock of the keyring is announced only after this
	// has ended.
	h, err := f.keys.Acquire()
	if err != nil {
		return nil, err
	}
	defer func() { h.Release() }()
	record, sealed := make([]byte, recordSlot), make([]byte, pageSlot)
	if written, err := readSlot(f.records, record, n); err != nil || !written {
		return append(dst, make([]byte, PageSize)...), err
	}
	if written, err := readSlot(f.pages, sealed, n); err != nil || !written {
		return nil, errors.Join(err, fmt.Errorf("%w: page %d has a record and no data", ErrDamaged, n))
	}
	var key dek.Key
	defer key.Destroy()
	var b keyring.Binding
	b.Set(number(n))
	if err := h.OpenDEK(ctx, &key, record, &b); err != nil {
		return nil, fmt.Errorf("page %d: %w", n, err)
	}
	out, err := key.Open(dst, sealed, number(n))
	if err != nil {
		return nil, fmt.Errorf("%w: page %d: %w", ErrDamaged, n, err)
	}
	return out, nil
}

// Write replaces pages, all of them or none, durably.
func (f *File) Write(ctx context.Context, pages map[uint32][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return f.broken
	}
	h, err := f.keys.Acquire()
	if err != nil {
		return err
	}
	defer func() { h.Release() }()
	var change []slot
	for n, page := range pages {
		if len(page) != PageSize {
			return fmt.Errorf("pages: page %d has %d bytes, not %d", n, len(page), PageSize)
		}
		s, err := seal(ctx, &h, n, page)
		if err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		change = append(change, s)
	}
	return f.commit(change)
}

func seal(ctx context.Context, h *keyring.Hold, n uint32, page []byte) (s slot, err error) {
	var key dek.Key
	defer key.Destroy()
	var b keyring.Binding
	b.Set(number(n))
	s.n = n
	if s.record, err = h.NewDEK(ctx, nil, &key, &b); err == nil {
		s.sealed = key.Seal(nil, page, number(n))
	}
	return s, err
}

// commit makes a change durable in the journal, and then in the files. f.mu is held.
func (f *File) commit(change []slot) error {
	if err := f.journal.write(change); err != nil {
		return err
	}
	// From here on the change is made, whatever happens: if not now, when the file is
	// opened again.
	err := f.apply(change)
	if err == nil {
		err = f.journal.clear()
	}
	if err != nil {
		f.broken = fmt.Errorf("pages: close the file and open it again: %w", err)
	}
	return err
}

// apply writes slots to the files.
func (f *File) apply(change []slot) error {
	for _, s := range change {
		if s.sealed != nil {
			if _, err := f.pages.WriteAt(s.sealed, int64(s.n)*pageSlot); err != nil {
				return err
			}
		}
		if _, err := f.records.WriteAt(s.record, int64(s.n)*recordSlot); err != nil {
			return err
		}
	}
	return errors.Join(f.pages.Sync(), f.records.Sync())
}

// RotateEpoch puts all DEKs under a fresh epoch key and destroys the old ones,
// without touching a page. What was overwritten before can then never be opened
// again, also not from an old copy of the page file. It stops the file meanwhile; a
// server would do a few hundred records at a time, as package block does.
func (f *File) RotateEpoch(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return f.broken
	}
	if err := f.keys.Rotate(ctx); err != nil {
		return err
	}
	h, err := f.keys.Acquire()
	if err != nil {
		return err
	}
	change, err := f.rewrap(ctx, &h)
	epoch := h.CurrentEpoch()
	h.Release() // before keyring.DropEpochs, which waits for holds
	if err != nil {
		return err
	}
	if err := f.commit(change); err != nil {
		return err
	}
	_, err = f.keys.DropEpochs(ctx, epoch)
	return err
}

func (f *File) rewrap(ctx context.Context, h *keyring.Hold) (change []slot, err error) {
	info, err := f.records.Stat()
	if err != nil {
		return nil, err
	}
	for n := range uint32(info.Size() / recordSlot) {
		record := make([]byte, recordSlot)
		written, err := readSlot(f.records, record, n)
		if err != nil {
			return nil, err
		}
		if !written {
			continue
		}
		var b keyring.Binding
		b.Set(number(n))
		s := slot{n: n}
		if s.record, err = h.Rewrap(ctx, nil, record, &b); err != nil {
			return nil, fmt.Errorf("page %d: %w", n, err)
		}
		change = append(change, s)
	}
	return change, nil
}

// Keys is the keyring: its state, and the rotation of its KEK.
func (f *File) Keys() *keyring.Keyring { return f.keys }

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	if f.keys != nil {
		errs = append(errs, f.keys.Close())
	}
	for _, file := range []*os.File{f.pages, f.records} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	if f.journal != nil {
		errs = append(errs, f.journal.close())
	}
	f.broken = os.ErrClosed
	return errors.Join(errs...)
}

// readSlot reads slot n of a file, and reports whether anything was ever written to
// it.
func readSlot(file *os.File, slot []byte, n uint32) (written bool, err error) {
	switch _, err := file.ReadAt(slot, int64(n)*int64(len(slot))); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return false, nil // the end of the file is a hole without end
	case err != nil:
		return false, err
	}
	for _, b := range slot {
		if b != 0 {
			return true, nil
		}
	}
	return false, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
