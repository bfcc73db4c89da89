package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// blockSize is how much of a file is one block, and batchBytes how much is
// committed at a time.
const (
	blockSize  = 64 << 10
	batchBytes = 4 << 20
)

// file is one file of the tree, as it was sealed.
type file struct {
	name   string // relative to the tree
	size   int64
	digest [sha256.Size]byte
}

// blockID is the id of a file's n-th block: the name, a zero byte, and the number,
// big-endian, so that a file's blocks are neighbours and in order.
func (f file) blockID(n uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(f.name), 0), n)
}

// list finds the regular files of the tree and their total size.
func list(root string) (files []file, total int64, err error) {
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files = append(files, file{name: rel, size: info.Size()})
		total += info.Size()
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no files", root)
	}
	return files, total, err
}

// seal puts the tree into the store, in durable batches.
func (d *demo) seal(ctx context.Context) error {
	files, total, err := list(d.in)
	if err != nil {
		return err
	}
	d.files = files
	start := time.Now()
	bar := newBar(d.out, "sealing", total)
	defer bar.end()
	batch, pending := d.store.NewBatch(), 0
	defer func() { batch.Close() }()
	buf := make([]byte, blockSize)
	for i := range files {
		err := d.eachBlock(&files[i], buf, func(id, data []byte) error {
			if err := batch.Put(ctx, id, data); err != nil {
				return err
			}
			d.sum.blocks++
			d.sum.bytes += int64(len(data))
			bar.add(int64(len(data)))
			if pending += len(data); pending < batchBytes {
				return nil
			}
			err := batch.Commit(ctx)
			batch, pending = d.store.NewBatch(), 0
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := batch.Commit(ctx); err != nil {
		return err
	}
	d.sum.sealing = time.Since(start)
	bar.end()
	d.say("sealed   %d files as %d blocks, %s, each under its own AES-256 key", len(files), d.sum.blocks, size(d.sum.bytes))
	return nil
}

// eachBlock reads a file's blocks, and notes its size and digest on the way. An
// empty file is one empty block.
func (d *demo) eachBlock(f *file, buf []byte, put func(id, data []byte) error) error {
	in, err := os.Open(filepath.Join(d.in, f.name))
	if err != nil {
		return err
	}
	defer in.Close()
	h := sha256.New()
	f.size = 0
	for n := uint32(0); ; n++ {
		k, err := io.ReadFull(in, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if k == 0 && n > 0 {
			break
		}
		h.Write(buf[:k])
		f.size += int64(k)
		if err := put(f.blockID(n), buf[:k]); err != nil {
			return err
		}
		if k < len(buf) {
			break
		}
	}
	h.Sum(f.digest[:0])
	return nil
}

// readBack reads every block again and compares the files' digests.
func (d *demo) readBack(ctx context.Context) error {
	start := time.Now()
	bar := newBar(d.out, "reading", d.sum.bytes)
	defer bar.end()
	var buf []byte
	for _, f := range d.files {
		h := sha256.New()
		for n, left := uint32(0), f.size; n == 0 || left > 0; n++ {
			var err error
			if buf, err = d.store.Get(ctx, f.blockID(n), buf[:0]); err != nil {
				return err
			}
			h.Write(buf)
			left -= int64(len(buf))
			bar.add(int64(len(buf)))
		}
		if !bytes.Equal(h.Sum(nil), f.digest[:]) {
			return fmt.Errorf("%s came back with another digest", f.name)
		}
	}
	d.sum.reading = time.Since(start)
	bar.end()
	d.say("read     %d files back, every SHA-256 as it was", len(d.files))
	return nil
}
