package sealfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/blockseal/blockseal/keyring"
)

// batch is how many pages are read or written at once.
func (f *File) batch() int64 { return max(1, readWindow/(f.shared.page+pageOverhead)) }

// readPages appends the content of n pages from page i on to dst.
func (f *File) readPages(dst []byte, i, n int64) ([]byte, error) {
	p := f.shared
	stored := p.page + pageOverhead
	s := f.fs.borrow()
	defer f.fs.scratch.Put(s)
	sealed := s.room(int(n * stored))
	if k, err := f.under.ReadAt(sealed, f.pageAt(i)); k < len(sealed) {
		if err == nil || errors.Is(err, io.EOF) {
			return dst, corrupt(f.name, "page %d is missing", i+int64(k)/stored)
		}
		return dst, err
	}
	dst = slices.Grow(dst, int(n*p.page)) // so that no copy of the content is left behind where it was not cleared
	err := p.key.useAlone(func() error {
		for j := range n {
			out, err := p.key.openRun(dst, sealed[j*stored:(j+1)*stored], putPageAAD(&s.aad, i+j))
			if err != nil {
				return fmt.Errorf("page %d does not open: it was altered or exchanged, or its writing was cut off by a crash: %w", i+j, keyring.ErrCorrupt)
			}
			dst = out
		}
		return nil
	})
	return dst, ofFile(f.name, err) // dst as it is after that
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	end, err := f.begin(false)
	if err != nil {
		return 0, err
	}
	defer end()
	if off < 0 {
		return 0, fmt.Errorf("sealfs: %s: a negative offset", f.name)
	}
	p := f.shared
	n := 0
	s := f.fs.borrow()
	defer f.fs.giveBack(s)
	for n < len(b) && off < p.sizes.size {
		first := off / p.page
		last := (min(off+int64(len(b)-n), p.sizes.size) - 1) / p.page
		count := min(last-first+1, f.batch())
		if whole := f.whole(b[n:], off, p.sizes.size); whole > 0 {
			if _, err := f.readPages(b[n:n], first, whole); err != nil {
				return n, err
			}
			k := whole * p.page
			n, off = n+int(k), off+k
			continue
		}
		s.roomForContent(int(count * p.page))
		if s.plain, err = f.readPages(s.plain, first, count); err != nil {
			return n, err
		}
		from := off - first*p.page
		k := copy(b[n:], s.plain[from:min(int64(len(s.plain)), p.sizes.size-first*p.page)])
		n, off = n+k, off+int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// whole is how many pages, of one batch, are whole in b, which begins at an offset of the content, and all in
// front of an end: those are opened, and sealed, where they are.
func (f *File) whole(b []byte, off, end int64) int64 {
	p := f.shared
	if off%p.page != 0 {
		return 0
	}
	return min(min(int64(len(b)), end-off)/p.page, f.batch())
}

// WriteAt implements io.WriterAt. A write behind the end puts zeros in between, all of which it
// writes. After an error part of it may be written, from the start.
func (f *File) WriteAt(b []byte, off int64) (int, error) {
	end, err := f.begin(true)
	if err != nil {
		return 0, err
	}
	defer end()
	if off < 0 || off > maxSize-int64(len(b)) {
		return 0, fmt.Errorf("sealfs: %s: an offset of %d", f.name, off)
	}
	if len(b) == 0 {
		return 0, nil
	}
	if err := f.fill(off); err != nil {
		return 0, err
	}
	return f.write(b, off)
}

// fill writes zeros from the end of the content to an offset.
func (f *File) fill(to int64) error {
	zeros := make([]byte, min(f.batch()*f.shared.page, max(0, to-f.shared.sizes.size)))
	for f.shared.sizes.size < to {
		n := min(int64(len(zeros)), to-f.shared.sizes.size)
		if _, err := f.write(zeros[:n], f.shared.sizes.size); err != nil {
			return err
		}
	}
	return nil
}

// write writes b at an offset that is not behind the end. The turn is taken.
func (f *File) write(b []byte, off int64) (n int, err error) {
	p := f.shared
	if grows := off+int64(len(b)) > p.sizes.size; grows {
		if err := f.tidy(); err != nil {
			return 0, err
		}
		p.tidy = false // if it ends in the middle
		defer func() { p.tidy = err == nil }()
	}
	s := f.fs.borrow()
	defer f.fs.giveBack(s)
	for n < len(b) {
		first := off / p.page
		last := (off + int64(len(b)-n) - 1) / p.page
		count := min(last-first+1, f.batch())
		stop := min((first+count)*p.page, off+int64(len(b)-n)) // of this batch, in the content
		var pages []byte
		if whole := f.whole(b[n:], off, maxSize); whole > 0 {
			count, stop = whole, off+whole*p.page
			pages = b[n : n+int(whole*p.page)]
		} else {
			s.roomForContent(int(count * p.page))
			s.plain = s.plain[:count*p.page]
			pages = s.plain
			clear(pages)
			if err := f.around(pages, off, stop, first, count); err != nil {
				return n, err
			}
			copy(pages[off-first*p.page:stop-first*p.page], b[n:])
		}
		if err := f.writePages(pages, first, count, stop%p.page != 0); err != nil {
			return n, err
		}
		k := int(stop - off)
		if stop > p.sizes.size {
			if err := f.resize(stop); err != nil {
				return n, err
			}
		}
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// around puts into zeroed room for count pages from first on what there is of the content in the first
// and the last of them before off and behind stop.
func (f *File) around(dst []byte, off, stop, first, count int64) error {
	p := f.shared
	for i := first; i < first+count; i += max(1, count-1) {
		begin, end := i*p.page, min((i+1)*p.page, p.sizes.size)
		if begin >= p.sizes.size || (off <= begin && stop >= end) {
			continue // not there yet, or written over as a whole
		}
		page := dst[begin-first*p.page:][:p.page:p.page]
		there, err := f.fromKept(page, i)
		if err == nil && !there {
			_, err = f.readPages(page[:0], i, 1)
		}
		if err != nil {
			return err
		}
		clear(page[end-begin:])
	}
	return nil
}

// writePages seals pages and writes them, and keeps the last one if it is told to.
func (f *File) writePages(plain []byte, first, count int64, keep bool) error {
	p := f.shared
	s := f.fs.borrow()
	defer f.fs.scratch.Put(s)
	sealed := s.room(int(count * (p.page + pageOverhead)))[:0]
	if err := p.key.useAlone(func() (err error) {
		for j := range count {
			if sealed, err = p.seal(sealed, plain[j*p.page:(j+1)*p.page], putPageAAD(&s.aad, first+j)); err != nil {
				return err
			}
		}
		p.key.kept.replaced(p, plain, first, count, keep)
		return nil
	}); err != nil {
		return ofFile(f.name, err)
	}
	_, err := f.under.WriteAt(sealed, f.pageAt(first))
	if err != nil {
		p.dropKept() // what is on disk is not known
	}
	return err
}

// seal appends what is sealed under the key of the current run. It is called by useAlone of p.key.
func (p *pageFile) seal(dst, plain, aad []byte) ([]byte, error) {
	if p.seals == 0 || p.seals >= maxRunSeals {
		rand.Read(p.salt[:])
		p.seals = 0
	}
	p.seals++
	a, err := p.key.run(p.salt)
	if err != nil {
		return dst, err
	}
	return a.Seal(append(dst, p.salt[:]...), plain, aad), nil
}

// resize writes a size record. What is in front of the size was written before.
func (f *File) resize(size int64) error {
	p := f.shared
	next := sizes{p.sizes.sequence + 1, size, min(p.sizes.durable, size)}
	if err := f.putSizes(next); err != nil {
		return err
	}
	p.sizes = next
	return nil
}

// putSizes writes a size record, to where the one that is kept is not.
func (f *File) putSizes(s sizes) error {
	p := f.shared
	if !p.firm {
		// The one that is kept was written by a process that may have synced nothing.
		if err := f.syncBeneath(f.under.Sync); err != nil {
			return err
		}
	}
	slot := 1 - p.keep
	var b []byte
	if err := p.key.useAlone(func() (err error) {
		b, err = p.seal(nil, s.encode(), sizeAAD(slot))
		return err
	}); err != nil {
		return ofFile(f.name, err)
	}
	if _, err := f.under.WriteAt(b, []int64{sizeSlot0, sizeSlot1}[slot]); err != nil {
		p.err = err // which record counts on disk is not known
		return err
	}
	p.written = true
	return nil
}

// syncBeneath syncs the file beneath.
func (f *File) syncBeneath(under func() error) error {
	p := f.shared
	if err := under(); err != nil {
		p.err = err // the next one may say that all is well, of bytes that the system gave up
		return err
	}
	if p.written {
		p.keep, p.written = 1-p.keep, false
	}
	p.firm = true
	return nil
}

// tidy sees to it that nothing is on disk behind the end that opens, durably. The turn is taken.
func (f *File) tidy() error {
	p := f.shared
	if p.tidy {
		return nil
	}
	if err := f.tidyLastPage(); err != nil {
		return err
	}
	fi, err := f.under.Stat()
	if err != nil {
		return err
	}
	if end := f.pageAt(f.pagesOf(p.sizes.size)); fi.Size() > end {
		if cut, ok := f.under.(interface{ Truncate(int64) error }); ok {
			err = cut.Truncate(end)
		} else {
			err = f.overwrite(end, fi.Size())
		}
		if err != nil {
			return err
		}
	}
	if err := f.syncBeneath(f.under.Sync); err != nil {
		return err
	}
	p.tidy = true
	return nil
}

// tidyLastPage overwrites what the last page has behind the end.
func (f *File) tidyLastPage() error {
	p := f.shared
	n := p.sizes.size % p.page
	if n == 0 {
		return nil
	}
	i := p.sizes.size / p.page
	plain, err := f.readPages(nil, i, 1)
	if errors.Is(err, keyring.ErrCorrupt) {
		return nil // nothing of it is read
	}
	defer clear(plain)
	if err != nil || zero(plain[n:]) {
		return err
	}
	clear(plain[n:])
	return f.writePages(plain, i, 1, false)
}

// overwrite puts zeros over what is on disk between two places.
func (f *File) overwrite(from, to int64) error {
	b := make([]byte, min(readWindow, to-from))
	for ; from < to; from += int64(len(b)) {
		b = b[:min(int64(len(b)), to-from)]
		if _, err := f.under.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if zero(b) {
			continue
		}
		clear(b)
		if _, err := f.under.WriteAt(b, from); err != nil {
			return err
		}
	}
	return nil
}

// Truncate makes the content shorter, or longer by zeros, all of which it writes. What is cut off is
// gone, and what is left is durable, when it returns: the file beneath is made shorter or, on a file system that cannot,
// overwritten with zeros, which takes as long as writing it. After an error, and after a crash, the size
// may be the old or the new one, and nothing that was cut off comes back when the file grows.
func (f *File) Truncate(size int64) error {
	end, err := f.begin(true)
	if err != nil {
		return err
	}
	defer end()
	p := f.shared
	switch {
	case size < 0 || size > maxSize:
		return fmt.Errorf("sealfs: %s: a size of %d", f.name, size)
	case size >= p.sizes.size:
		return f.fill(size)
	}
	p.dropKept()
	if err := f.resize(size); err != nil {
		return err
	}
	p.tidy = false
	// The record first: a file that is shorter than its record says was cut off by somebody.
	if err := f.syncBeneath(f.under.Sync); err != nil {
		return err
	}
	if err := f.saveDurable(); err != nil {
		return err
	}
	return f.tidy()
}

// saveDurable writes a size record that says that all content is durable, if none has said so.
func (f *File) saveDurable() error {
	p := f.shared
	if p.sizes.durable == p.sizes.size {
		return nil
	}
	next := sizes{p.sizes.sequence + 1, p.sizes.size, p.sizes.size}
	if err := f.putSizes(next); err != nil {
		return err
	}
	p.sizes = next
	return nil
}

// Sync makes durable what was written. If the size has changed since the last one it takes access,
// for a record of that, and syncs the file beneath twice; without access it fails then.
func (f *File) Sync() error { return f.sync(f.under.Sync) }

func (f *File) sync(under func() error) error {
	end, err := f.begin(false)
	if err != nil {
		return err
	}
	defer end()
	p := f.shared
	if f.readOnly {
		return under()
	}
	if p.err != nil {
		return f.failedBefore()
	}
	if err := f.syncBeneath(under); err != nil {
		return err
	}
	if p.sizes.durable == p.sizes.size {
		return nil
	}
	// The pages are on the disk, and not before is that said: if the record were there first, a crash
	// would leave a file that is cut off.
	if err := f.saveDurable(); err != nil {
		return err
	}
	return f.syncBeneath(under)
}

// Close closes the file. It syncs nothing.
func (f *File) Close() error {
	end, err := f.begin(false)
	if err != nil {
		return err
	}
	defer end()
	f.closed = true
	f.shared.dropKept()
	f.fs.forgetPages(f.shared)
	f.shared.key.release()
	return f.under.Close()
}
