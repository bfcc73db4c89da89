package sealfs

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/keyring"
)

// FileOptions are the options of one file of pages.
type FileOptions struct {
	// PageSize is how many bytes of content a page of a new file has, 64 to 65,536. What is
	// written is whole pages: a write of less reads the page first, unless it goes on in the page
	// in which the last write ended, which is kept in memory. On disk a page has 44 bytes more.
	// Default: [DefaultPageSize], which makes that 4,096, so that on most disks a page is written
	// whole or not at all.
	PageSize int
	// ReadOnly opens a file for reading.
	ReadOnly bool
	// MustExist makes OpenFile fail, with an error that matches fs.ErrNotExist, instead of making
	// a file. ReadOnly implies it.
	MustExist bool
}

// File is a file of pages: random access to content that is sealed a page at a time.
//
// Its methods are safe for concurrent use, and take turns, also those of other Files on the same
// file. Without access they fail with an error that matches keyring.ErrInaccessible, and change
// nothing; they do not wait, whatever Options.NoAccess says.
//
// What was written is durable when Sync has returned. A page that was being written when the machine
// stopped may be neither the old nor the new one: reading it is an error that matches
// keyring.ErrCorrupt, until it is written whole. A database on top has a journal for that, as it has
// on a plain file. What was not synced of a file that grew may be missing at its end, or be zeros within
// the page that was the last one.
//
// When a Sync, or the write of a size, has failed, every write and Sync fails until the file was closed
// by all and opened again: what is on the disk is not known.
type File struct {
	fs       *FS
	name     string
	under    vfs.File
	shared   *pageFile
	readOnly bool
	closed   bool
}

// OpenFile opens a file of pages for reading and writing, and makes it if it is not there. nil
// options are the defaults. Errors, beside the file system's: keyring.ErrCorrupt if it is damaged,
// cut off, or another file's content; ErrNotSealed; keyring.ErrInaccessible.
func (f *FS) OpenFile(name string, opts *FileOptions) (*File, error) {
	return f.openFile(name, vfs.WriteCategoryUnspecified, opts)
}

func (f *FS) openFile(name string, category vfs.DiskWriteCategory, opts *FileOptions) (*File, error) {
	var o FileOptions
	if opts != nil {
		o = *opts
	}
	if o.PageSize == 0 {
		o.PageSize = DefaultPageSize
	}
	if o.PageSize < minPage || o.PageSize > maxPage {
		return nil, fmt.Errorf("sealfs: %s: FileOptions.PageSize is %d; it has to be from %d to %d", name, o.PageSize, minPage, maxPage)
	}
	if err := f.free(name); err != nil {
		return nil, err
	}
	for {
		file, err := f.openThere(name, category, o.ReadOnly)
		if !errors.Is(err, os.ErrNotExist) || o.MustExist || o.ReadOnly {
			return file, err
		}
		if err := f.createPages(name, category, o.PageSize); err != nil {
			return nil, err
		}
	}
}

// createPages makes a file of no content beside, and gives it the name when it is whole, so that
// nobody ever finds half of one.
func (f *FS) createPages(name string, category vfs.DiskWriteCategory, page int) error {
	tmp := name + replaceSuffix
	h := newHead(Pages, uint32(page))
	return ofFile(name, f.newKeyNow(h, []string{f.under.PathBase(name)}, func(k *fileKey) error {
		f.names.Lock()
		defer f.names.Unlock()
		if _, err := f.under.Stat(name); err == nil {
			k.release()
			return nil // somebody was faster
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		defer during(&f.moves)()
		u, err := f.under.Create(tmp, category)
		if err != nil {
			return err
		}
		_, err = u.Write(h.encode())
		if err == nil {
			err = u.Sync()
		}
		if err = errors.Join(err, u.Close()); err == nil {
			err = f.under.Rename(tmp, name)
		}
		if err != nil {
			return errors.Join(err, ignoreNotExist(f.under.Remove(tmp)))
		}
		if err := f.syncDir(name); err != nil {
			return err
		}
		k.release()
		return nil
	}))
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (f *FS) openThere(name string, category vfs.DiskWriteCategory, readOnly bool) (*File, error) {
	for {
		o, err := f.open(name)
		if err != nil {
			return nil, err
		}
		ok := true
		if !readOnly && o.pages != nil {
			ok, err = f.toWrite(name, category, &o)
		}
		var file *File
		if err == nil && ok {
			file, err = f.openPages(name, o, readOnly)
		}
		if err == nil && ok {
			return file, nil
		}
		if err = errors.Join(err, o.close()); err != nil {
			return nil, err
		}
	}
}

// toWrite puts a handle for writing in the place of the one beneath, of the same file: false if the name
// is another one's by now. Nobody gives a name to a file meanwhile or takes it away, because
// OpenReadWrite makes what is not there.
func (f *FS) toWrite(name string, category vfs.DiskWriteCategory, o *opened) (ok bool, err error) {
	f.names.Lock()
	defer f.names.Unlock()
	if _, err := f.under.Stat(name); err != nil {
		return false, err
	}
	u, err := f.under.OpenReadWrite(name, category)
	if err != nil {
		return false, err
	}
	h, err := readHead(u)
	at := fileAt{}
	if err == nil {
		at, err = f.at(h.id, name, u)
	}
	if err != nil {
		return false, errors.Join(ofFile(name, err), u.Close())
	}
	f.mu.Lock()
	ok = f.pages.get(at) == o.pages
	f.mu.Unlock()
	if !ok {
		return false, u.Close()
	}
	was := o.under
	o.under = u
	return true, was.Close()
}

// openPages makes a handle of an opened file, which it takes over; after an error it has not.
func (f *FS) openPages(name string, o opened, readOnly bool) (*File, error) {
	if o.dir || o.empty || o.head == nil || o.head.layout != Pages {
		layout := Log
		switch {
		case o.dir:
			return nil, fmt.Errorf("sealfs: %s is a directory: %w", name, errors.ErrUnsupported)
		case o.empty:
			layout = Empty
		case o.head != nil:
			layout = o.head.layout
		}
		return nil, fmt.Errorf("sealfs: %s is of layout %v, not of pages: %w", name, layout, errors.ErrUnsupported)
	}
	p := o.pages
	file := &File{fs: f, name: name, under: o.under, shared: p, readOnly: readOnly}
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if !p.known {
		if err := file.recover(o.head); err != nil {
			return nil, err
		}
		p.known = true
	}
	return file, nil
}

func (f *FS) forgetPages(p *pageFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.refs--; p.refs == 0 {
		f.pages.drop(p)
	}
}

// recover finds out how much content there is. What the size record says is durable has to be there;
// of the rest, as much as opens from there on.
func (f *File) recover(h *head) error {
	p := f.shared
	if err := p.key.useAlone(func() (err error) {
		p.sizes, p.keep, err = p.key.openSizes(h)
		return err
	}); err != nil {
		return ofFile(f.name, err)
	}
	fi, err := f.under.Stat()
	if err != nil {
		return err
	}
	there := (fi.Size() - headSize) / (p.page + pageOverhead) // whole pages
	if there < f.pagesOf(p.sizes.durable) {
		return corrupt(f.name, "it was cut off: it has %d pages, and %d bytes of its content were durable", there, p.sizes.durable)
	}
	var buf []byte
	defer func() { clear(buf[:cap(buf)]) }()
	for i := f.pagesOf(p.sizes.durable); i < f.pagesOf(p.sizes.size); i++ {
		var err error
		if buf, err = f.readPages(buf[:0], i, 1); errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, io.EOF) {
			p.sizes.size = max(p.sizes.durable, i*p.page)
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// pagesOf is how many pages so much content has.
func (f *File) pagesOf(size int64) int64 { return (size + f.shared.page - 1) / f.shared.page }

// pageAt is where a page is on disk.
func (f *File) pageAt(i int64) int64 { return headSize + i*(f.shared.page+pageOverhead) }

// begin takes the turn, for a write or a read.
func (f *File) begin(write bool) (end func(), err error) {
	p := f.shared
	p.turn <- struct{}{}
	end = func() { <-p.turn }
	switch {
	case f.closed:
		err = fmt.Errorf("sealfs: %s: %w", f.name, os.ErrClosed)
	case write && f.readOnly:
		err = fmt.Errorf("sealfs: %s was opened for reading: %w", f.name, os.ErrPermission)
	case write && p.err != nil:
		err = f.failedBefore()
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

func (f *File) failedBefore() error {
	return fmt.Errorf("sealfs: %s: a write or a sync failed before: %w", f.name, f.shared.err)
}

// Size returns the size of the content in bytes.
func (f *File) Size() (int64, error) {
	end, err := f.begin(false)
	if err != nil {
		return 0, err
	}
	defer end()
	return f.shared.sizes.size, nil
}

// PageSize returns how many bytes of content a page has.
func (f *File) PageSize() int { return int(f.shared.page) }
