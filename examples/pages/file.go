// Pages is a page file of one's own under a customer's key: what a program writes that has storage of
// its own and wants no second one.
//
//	go run ./examples/pages
//
// The file has 4 KiB pages. keyring/sealfs seals them, each with its number, under the file's DEK, and
// opens nothing that was altered, moved or cut off. What it does not do is to make a change of several
// pages one change: journal.go does, in a second file, which is sealed too. The keyring's document is a third.
//
// What is not noticed: a page that was put back as it was at another time, and all files put back
// together. keyring.Options.Anchor notices that the keyring's document was.
//
// One File at a time has a page file open. Where there is flock it is made sure of
// (lock_unix.go); elsewhere it is up to the program.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// PageSize is the size of a page in bytes. On disk one has 44 more.
const PageSize = 4096

// ErrOpen says that the page file is open already, here or in another process.
var ErrOpen = errors.New("pages: open already")

// File is a page file. It is safe for concurrent use; reads and writes take turns.
type File struct {
	keys *keyring.Keyring
	lock io.Closer
	fs   *sealfs.FS
	dir  string

	mu      sync.Mutex
	pages   *sealfs.File // nil: there was no access since the file was opened
	journal *journal
	broken  error // a change may be in the journal, or half in the file
}

// OpenFile opens the page file in dir, which it creates if it is not there. If the
// vault refuses the key or does not answer, a file that is there is opened locked:
// pages are inaccessible until a check of the keyring, or Revalidate, finds the vault
// willing. With keyring.Options.RequireAccess, and for a new file, that is an error.
// Errors beside those of the keyring and of sealfs: ErrOpen.
func OpenFile(ctx context.Context, dir string, k *kek.KEK, opts *keyring.Options) (f *File, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f = &File{dir: dir}
	defer func() {
		if err != nil {
			f, err = nil, errors.Join(err, f.Close())
		}
	}()
	if f.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return f, err
	}
	// The document is first: there is no page without it.
	if f.keys, err = keyring.OpenOrCreate(ctx, keyring.FileStorage(filepath.Join(dir, "keyring")), k, opts); err != nil {
		return f, err
	}
	if f.fs, err = sealfs.New(vfs.Default, f.keys, nil); err != nil {
		return f, err
	}
	if err = f.ready(); errors.Is(err, keyring.ErrInaccessible) {
		err = nil // the first read or write that has access does it
	}
	return f, err
}

// ready opens the files, and makes them the first time, for which it takes access. What a crash left half
// done is done again. f.mu is held, or nobody else has f.
func (f *File) ready() error {
	if f.broken != nil {
		return f.broken
	}
	if f.pages != nil {
		return nil
	}
	o := &sealfs.FileOptions{PageSize: PageSize}
	pages, err := f.fs.OpenFile(f.fs.PathJoin(f.dir, "pages"), o)
	if err != nil {
		return err
	}
	file, err := f.fs.OpenFile(f.fs.PathJoin(f.dir, "journal"), o)
	if err != nil {
		return errors.Join(err, pages.Close())
	}
	f.pages, f.journal = pages, &journal{file}
	if err := f.journal.replay(f.apply); err != nil {
		f.pages, f.journal = nil, nil
		return errors.Join(err, pages.Close(), file.Close())
	}
	return nil
}

// Read appends page n, PageSize bytes, to dst. A page that was never written is
// zeros. Without access to the key the error matches keyring.ErrInaccessible, and of a page that is
// not what was written keyring.ErrCorrupt.
func (f *File) Read(n uint32, dst []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ready(); err != nil {
		return nil, err
	}
	page := make([]byte, PageSize)
	// Behind the end there are zeros.
	if _, err := f.pages.ReadAt(page, int64(n)*PageSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("page %d: %w", n, err)
	}
	return append(dst, page...), nil
}

// Write replaces pages, all of them or none, durably. After an error of the disk it is
// open which of the two: the file then refuses everything, and opening it again tells. If access
// ends in the middle the next read that has access tells.
func (f *File) Write(pages map[uint32][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ready(); err != nil {
		return err
	}
	var change []slot
	for n, page := range pages {
		if len(page) != PageSize {
			return fmt.Errorf("pages: page %d has %d bytes, not %d", n, len(page), PageSize)
		}
		change = append(change, slot{n, page})
	}
	// That nothing was done is known only before the journal is written.
	hold, err := f.keys.Acquire()
	if err != nil {
		return err
	}
	hold.Release()
	return f.commit(change)
}

// commit makes a change durable in the journal, and then in the file. f.mu is held.
func (f *File) commit(change []slot) error {
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
	if errors.Is(err, keyring.ErrInaccessible) {
		// The next read or write that has access looks.
		err = errors.Join(err, f.pages.Close(), f.journal.file.Close())
		f.pages, f.journal = nil, nil
		return err
	}
	if err != nil {
		f.broken = fmt.Errorf("pages: close the file and open it again: %w", err)
	}
	return f.broken
}

// apply writes pages to the file. A page that a crash tears is in the journal still.
func (f *File) apply(change []slot) error {
	for _, s := range change {
		if _, err := f.pages.WriteAt(s.page, int64(s.n)*PageSize); err != nil {
			return err
		}
	}
	return f.pages.Sync()
}

// RotateEpoch wraps the files' DEKs by a fresh epoch key and destroys the old ones, without touching a page.
func (f *File) RotateEpoch(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ready(); err != nil {
		return err
	}
	_, err := f.fs.RotateEpoch(ctx, f.dir)
	return err
}

// Keys is the keyring: its state, and the rotation of its KEK.
func (f *File) Keys() *keyring.Keyring { return f.keys }

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	if f.pages != nil {
		errs = append(errs, f.pages.Close(), f.journal.file.Close())
		f.pages = nil
	}
	if f.keys != nil {
		errs = append(errs, f.keys.Close())
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Close())
	}
	f.broken = os.ErrClosed
	return errors.Join(errs...)
}
