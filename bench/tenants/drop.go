package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/block"
)

// drop is what Drop of one of many stores takes, and what it writes.
type drop struct {
	Stores  int             `json:"stores"`  // in the DB, of dropBlocks blocks each
	Blocks  int             `json:"blocks"`  // in the store that is dropped, of dropSize bytes each
	Took    []time.Duration `json:"took"`    // of each of some stores of that size
	Written []int64         `json:"written"` // bytes, by the whole DB meanwhile
}

const (
	dropSize   = 4096
	dropBlocks = 16
	dropEach   = 5 // stores of each size that are dropped
)

// dropSizes are how many blocks the stores have that are dropped.
func dropSizes() []int { return []int{1, dropBlocks, 16 * dropBlocks, 128 * dropBlocks} }

func measureDrop(ctx context.Context, l *lab, dir string, m *measurements) error {
	for _, stores := range []int{l.open / 4, l.open} {
		some, err := l.drop(ctx, filepath.Join(dir, fmt.Sprint(stores)), stores)
		if err != nil {
			return err
		}
		m.Drop = append(m.Drop, some...)
	}
	return nil
}

func (l *lab) drop(ctx context.Context, dir string, stores int) (all []drop, err error) {
	fs := &counting{FS: vfs.Default}
	o := l.dbOptions(l.vault)
	o.Pebble.FS = fs
	open := func() (*block.DB, error) { return block.OpenDB(ctx, dir, o) }
	db, err := open()
	if err != nil {
		return nil, err
	}
	make := func(name string, blocks int) error {
		_, _, err := l.create(ctx, db, name, func(s *block.Store) error { return fill(ctx, s, blocks, dropSize) })
		return err
	}
	// The ones to drop lie among the others.
	dropped := func(blocks, i int) string { return fmt.Sprintf("dropped-%d-%d", blocks, i) }
	every := max(1, stores/(dropEach*len(dropSizes())))
	for i := range max(stores, every*dropEach*len(dropSizes())) {
		if err := make(name(i), dropBlocks); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		if n := i / every; i%every == 0 && n < dropEach*len(dropSizes()) {
			blocks := dropSizes()[n%len(dropSizes())]
			if err := make(dropped(blocks, n/len(dropSizes())), blocks); err != nil {
				return nil, errors.Join(err, db.Close())
			}
		}
	}
	// What is in the log comes to the engine's tables.
	if err := db.Close(); err != nil {
		return nil, err
	}
	if db, err = open(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// The first one meets what making them has left: it counts for no size.
	if _, err := db.Drop(ctx, name(0)); err != nil {
		return nil, err
	}
	for _, blocks := range dropSizes() {
		d := drop{Stores: stores, Blocks: blocks}
		for i := range dropEach {
			before, start := fs.written.Load(), time.Now()
			r, err := db.Drop(ctx, dropped(blocks, i))
			if err != nil {
				return nil, err
			}
			if r.Pinned {
				return nil, fmt.Errorf("the receipt of %s says that it is pinned", r.Name)
			}
			d.Took, d.Written = append(d.Took, time.Since(start)), append(d.Written, fs.written.Load()-before)
			fmt.Fprintf(l.progress, "%d blocks of %d stores: %v, %d bytes written\n", blocks, stores, d.Took[i], d.Written[i])
		}
		all = append(all, d)
	}
	return all, nil
}

// counting is a file system that counts the bytes which are written to it.
type counting struct {
	vfs.FS
	written atomic.Int64
}

func (c *counting) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &countedFile{f, c}, nil
}

func (c *counting) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.Create(name, category))
}

func (c *counting) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return c.file(c.FS.OpenReadWrite(name, category, opts...))
}

func (c *counting) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.ReuseForWrite(oldname, newname, category))
}

func (c *counting) Unwrap() vfs.FS { return c.FS }

type countedFile struct {
	vfs.File
	fs *counting
}

func (f *countedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.fs.written.Add(int64(n))
	return n, err
}

func (f *countedFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.fs.written.Add(int64(n))
	return n, err
}
