// Pages is keyring and dek alone, under a plain page file: what a program writes
// that has storage of its own and wants no second one.
//
//	go run ./examples/pages
//
// The file has 4 KiB pages. Each is sealed under a DEK of its own, a fresh one each
// time that it is written; the DEKs are wrapped, in a file beside it; the keyring's
// document is a third. journal.go makes a change of several pages one change.
//
// What is not noticed: a page that was put back together with the record that it had
// at the time, until RotateEpoch, and one that was zeroed together with its record,
// which then was never written. Who may write the files can do both, and RotateEpoch
// helps only if the keyring's document is not put back too: keyring.Options.Anchor
// notices that.
//
// One File at a time has a page file open. Where there is flock it is made sure of
// (lock_unix.go); elsewhere it is up to the program.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// PageSize is the size of a page in bytes, and pageSlot and recordSlot are what a
// page and its DEK's record take in the files. A page that was never written is zeros
// in both.
const (
	PageSize   = 4096
	pageSlot   = PageSize + dek.Overhead
	recordSlot = keyring.RecordSize
)

var (
	// ErrDamaged says that a page, or its record, is not what was written.
	ErrDamaged = errors.New("pages: damaged page")
	// ErrOpen says that the page file is open already, here or in another process.
	ErrOpen = errors.New("pages: open already")
	// ErrWrapping says that DEKs are to be wrapped ByKEK: such a record is larger than
	// its slot.
	ErrWrapping = errors.New("pages: DEKs can be wrapped ByKeyring only")
)

// File is a page file. It is safe for concurrent use: any number of readers, and one
// writer at a time.
type File struct {
	keys           *keyring.Keyring
	mu             sync.RWMutex
	lock           io.Closer
	pages, records *os.File
	journal        *journal
	broken         error // a change may be in the journal, or half in the files
}

// OpenFile opens the page file in dir, which it creates if it is not there. If the
// vault refuses the key or does not answer, a file that is there is opened locked:
// pages are inaccessible until a check of the keyring, or Revalidate, finds the vault
// willing. With keyring.Options.RequireAccess, and for a new file, that is an error.
// Errors beside those of the keyring: ErrOpen, ErrWrapping.
func OpenFile(ctx context.Context, dir string, k *kek.KEK, opts *keyring.Options) (f *File, err error) {
	if opts != nil && opts.Wrapping == keyring.ByKEK {
		return nil, ErrWrapping // before it is in the document
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f = &File{}
	defer func() {
		if err != nil {
			f, err = nil, errors.Join(err, f.Close())
		}
	}()
	if f.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return f, err
	}
	// The document is first: there is no page without it.
	path := filepath.Join(dir, "keyring")
	open := keyring.Open
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		open = keyring.Create
	}
	if f.keys, err = open(ctx, keyring.FileStorage(path), k, opts); err != nil {
		return f, err
	}
	// A keyring that is locked does not know. commit looks at each record.
	if f.keys.Wrapping() == keyring.ByKEK {
		return f, ErrWrapping
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
	hasRecord, err := readSlot(f.records, record, n)
	if err != nil {
		return nil, fmt.Errorf("record of page %d: %w", n, err)
	}
	hasData, err := readSlot(f.pages, sealed, n)
	switch {
	case err != nil:
		return nil, fmt.Errorf("page %d: %w", n, err)
	case hasRecord != hasData:
		return nil, fmt.Errorf("%w: page %d has data: %t, and a record: %t", ErrDamaged, n, hasData, hasRecord)
	case !hasRecord:
		return append(dst, make([]byte, PageSize)...), nil
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

// Write replaces pages, all of them or none, durably. After an error of the disk it is
// open which of the two: the file then refuses everything, and opening it again tells.
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
	for _, s := range change {
		if len(s.record) != recordSlot {
			return fmt.Errorf("%w: page %d: a record of %d bytes", ErrWrapping, s.n, len(s.record))
		}
	}
	err := f.journal.write(change)
	// From here on the change is made if it is whole in the journal, whatever happens:
	// if not now, when the file is opened again. After an error nobody knows whether it
	// is. Another change would be written over it, so that there must be none before
	// replay has looked.
	if err == nil {
		err = f.apply(change)
	}
	if err == nil {
		err = f.journal.clear()
	}
	if err != nil {
		f.broken = fmt.Errorf("pages: close the file and open it again: %w", err)
	}
	return f.broken
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
	_, err := f.keys.RotateEpoch(ctx, func(_ context.Context, rewrap keyring.Rewrap) error {
		change, err := f.rewrap(rewrap)
		if err != nil || len(change) == 0 {
			return err
		}
		return f.commit(change)
	})
	return err
}

// rewrap returns the slots whose records are to be replaced, with the records for them.
func (f *File) rewrap(again keyring.Rewrap) (change []slot, err error) {
	info, err := f.records.Stat()
	if err != nil {
		return nil, err
	}
	// A last slot that was cut counts: it is an error before its epoch goes.
	for n := range uint32((info.Size() + recordSlot - 1) / recordSlot) {
		record := make([]byte, recordSlot)
		written, err := readSlot(f.records, record, n)
		if err != nil {
			return nil, fmt.Errorf("record of page %d: %w", n, err)
		}
		if !written {
			continue
		}
		s := slot{n: n}
		if s.record, err = again(record, number(n)); err != nil {
			return nil, fmt.Errorf("page %d: %w", n, err)
		}
		if s.record != nil {
			change = append(change, s)
		}
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
	if f.lock != nil {
		errs = append(errs, f.lock.Close())
	}
	f.broken = os.ErrClosed
	return errors.Join(errs...)
}

// readSlot reads slot n of a file, and reports whether anything was ever written to
// it. Slots are written whole, if need be by replay: one that the file ends in was cut.
func readSlot(file *os.File, slot []byte, n uint32) (written bool, err error) {
	switch got, err := file.ReadAt(slot, int64(n)*int64(len(slot))); {
	case errors.Is(err, io.EOF) && got == 0:
		return false, nil // the end of the file is a hole without end
	case errors.Is(err, io.EOF):
		return false, fmt.Errorf("%w: the file ends in its slot", ErrDamaged)
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
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
