package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	snippets     = 512 // how many are searched for, at most
	snippetSize  = 32  // bytes
	snippetBytes = 16  // how many different ones a snippet has, at least
)

// searchDisk searches every file under root for snippets of the tree's files, and
// fails if it finds one. The same search finds all of them in the tree.
func searchDisk(ctx context.Context, root string, t *tree, put digests, step *step) error {
	defer step.clear()
	known, err := pickSnippets(t, put)
	if err != nil {
		return err
	}
	ids := pickIDs(put)
	texts := newNeedles(append(slices.Clone(known), ids...))

	var controlled int64
	control := newNeedles(known)
	for _, f := range t.files {
		n, err := control.search(ctx, t.path(f))
		if err != nil {
			return err
		}
		controlled += n
		step.progress(controlled, t.bytes+put.bytes)
	}
	if control.count() != len(known) {
		return fmt.Errorf("the search finds %d of %d snippets in the files that they are from", control.count(), len(known))
	}

	var files int
	var size int64
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n, err := texts.search(ctx, path)
		files++
		size += n
		step.progress(controlled+size, t.bytes+max(put.bytes, size))
		if i := slices.Index(texts.found[:len(known)], true); err == nil && i >= 0 {
			return fmt.Errorf("plaintext on the disk: %s has %q", path, known[i])
		}
		return err
	})
	if err != nil {
		return err
	}
	if size < put.bytes {
		return fmt.Errorf("%d bytes were put, and there are %d on the disk to be searched: ciphertext is not smaller", put.bytes, size)
	}
	step.done(files, controlled+size, "none of %d snippets of plaintext on the disk; the same search finds %d of them in the input", len(known), control.count())
	fmt.Fprintf(step.out, "              block ids are not hidden: %d of %d are there to read\n", texts.count(), len(ids))
	return nil
}

// pickSnippets takes a snippet from each of up to 512 blocks, evenly apart. What is
// part of a block's id is no secret, and is left out.
func pickSnippets(t *tree, put digests) ([][]byte, error) {
	var all strings.Builder
	for id := range put.sums {
		all.WriteString(id + "\n")
	}
	ids := all.String()
	var picked [][]byte
	n, every := 0, max(1, (len(put.sums)+snippets-1)/snippets)
	err := t.blocks(func(_ string, data []byte) error {
		if n++; n%every != 0 {
			return nil
		}
		if s := distinctive(data); s != nil && !strings.Contains(ids, string(s)) {
			picked = append(picked, bytes.Clone(s))
		}
		return nil
	})
	if err == nil && len(picked) == 0 {
		err = fmt.Errorf("the input has nothing to search the disk for: no %d bytes with %d different ones", snippetSize, snippetBytes)
	}
	return picked, err
}

// distinctive returns the first snippet of data's second half that has enough
// different bytes, or of all of it, or nil. License headers are in first halves.
func distinctive(data []byte) []byte {
	for _, from := range []int{len(data) / 2, 0} {
		for i := from; i+snippetSize <= len(data); i++ {
			if s := data[i : i+snippetSize]; different(s) >= snippetBytes {
				return s
			}
		}
	}
	return nil
}

func different(b []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

func pickIDs(put digests) [][]byte {
	var ids [][]byte
	for id := range put.sums {
		if len(ids) < snippets {
			ids = append(ids, []byte(id))
		}
	}
	return ids
}

// needles searches for many texts at once, each of at least 4 bytes.
type needles struct {
	texts [][]byte
	found []bool
	heads map[uint32][]int // by their first 4 bytes
	maybe []bool           // by a hash of those: rules out nearly every place
	most  int              // the length of the longest
}

func newNeedles(texts [][]byte) *needles {
	n := &needles{texts: texts, found: make([]bool, len(texts)), heads: map[uint32][]int{}, maybe: make([]bool, 1<<16)}
	for i, t := range texts {
		head := binary.LittleEndian.Uint32(t)
		n.heads[head] = append(n.heads[head], i)
		n.maybe[hash(head)] = true
		n.most = max(n.most, len(t))
	}
	return n
}

func hash(head uint32) uint32 { return head * 2654435761 >> 16 }

// count returns how many were found.
func (n *needles) count() int {
	c := 0
	for _, f := range n.found {
		if f {
			c++
		}
	}
	return c
}

// search looks into one file, and returns its size.
func (n *needles) search(ctx context.Context, path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return n.read(ctx, f, 1<<20)
}

// read looks into what r has, in pieces of the given size, and across them.
func (n *needles) read(ctx context.Context, r io.Reader, piece int) (int64, error) {
	buf := make([]byte, 0, n.most-1+piece)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		tail := buf[max(0, len(buf)-(n.most-1)):]
		buf = buf[:copy(buf[:cap(buf)], tail)]
		got, err := io.ReadFull(r, buf[len(buf):len(buf)+piece])
		size += int64(got)
		buf = buf[:len(buf)+got]
		n.scan(buf)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

func (n *needles) scan(b []byte) {
	for i := 0; i+4 <= len(b); i++ {
		head := binary.LittleEndian.Uint32(b[i:])
		if !n.maybe[hash(head)] {
			continue
		}
		for _, t := range n.heads[head] {
			n.found[t] = n.found[t] || bytes.HasPrefix(b[i:], n.texts[t])
		}
	}
}
