package sealfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// values is a set of bytes.
type values [4]uint64

func (v *values) add(b byte)     { v[b/64] |= 1 << (b % 64) }
func (v values) has(b byte) bool { return v[b/64]&(1<<(b%64)) != 0 }

// pageModel is what a file of pages may have after a crash. Its bytes are the numbers of writes.
type pageModel struct {
	page    int
	now     []byte
	may     []values     // by byte
	touched map[int]bool // pages that may be torn
	least   int          // sizes that it may have
	most    int
}

func (m *pageModel) synced() {
	m.may = make([]values, len(m.now))
	for i, b := range m.now {
		m.may[i].add(b)
	}
	m.touched = map[int]bool{}
	m.least, m.most = len(m.now), len(m.now)
}

// writes says that bytes are going to be written.
func (m *pageModel) writes(off, n int, b byte) {
	if end := off + n; end > len(m.now) {
		if len(m.now) > 0 {
			m.touched[len(m.now)/m.page] = true
		}
		for i := len(m.now); i < end; i++ {
			if i == len(m.may) {
				m.may = append(m.may, values{})
			}
			m.may[i].add(0)
			m.touched[i/m.page] = true
		}
		m.now = append(m.now, make([]byte, end-len(m.now))...)
		m.most = max(m.most, end)
	}
	for i := off; i < off+n; i++ {
		m.now[i] = b
		m.may[i].add(b)
		m.touched[i/m.page] = true
	}
}

func (m *pageModel) truncates(n int) {
	m.least = min(m.least, n)
	m.touched[n/m.page] = true
}

func (m *pageModel) clone() *pageModel {
	out := *m
	out.now, out.touched = bytes.Clone(m.now), maps.Clone(m.touched)
	out.may = slices.Clone(m.may)
	return &out
}

// check holds that a file is what it may be, and writes over what a crash tore.
func (m *pageModel) check(t *testing.T, f *sealfs.File) {
	size, err := f.Size()
	require.NoError(t, err)
	require.GreaterOrEqual(t, int(size), m.least, "what was durable is missing")
	require.LessOrEqual(t, int(size), m.most)
	m.now = make([]byte, size)
	for at := 0; at < int(size); at += m.page {
		b := m.now[at:min(at+m.page, int(size))]
		_, err := f.ReadAt(b, int64(at))
		if errors.Is(err, keyring.ErrCorrupt) {
			require.True(t, m.touched[at/m.page], "page %d, which nobody wrote: %v", at/m.page, err)
			for i := range b {
				b[i] = 255
			}
			_, err = f.WriteAt(bytes.Clone(b), int64(at))
		} else {
			for i, c := range b {
				if !m.may[at+i].has(c) {
					require.Fail(t, "content that the file cannot have", "byte %d is %d", at+i, c)
				}
			}
		}
		require.NoError(t, err)
	}
	require.NoError(t, f.Sync())
	m.synced()
}

// The machine may stop within any operation on a file of pages, with any sectors on its disk of what was not
// synced: what was synced and not written since is there; what was written since is the old or the new, or an
// error until it is written over; what was cut off is gone.
func TestPagesAcrossTornWrites(t *testing.T) {
	for _, page := range []int{64, 1000, sealfs.DefaultPageSize} {
		for _, on := range []string{"memory", "disk"} {
			t.Run(fmt.Sprintf("%d, %s", page, on), func(t *testing.T) {
				g := newRig(t, nil)
				rng := rand.New(rand.NewPCG(uint64(page), 9))
				next := func() (*tornFS, string) {
					if on == "disk" { // its files can be made shorter
						return newTornFS(vfs.Default), t.TempDir()
					}
					return newTornFS(vfs.NewMem()), ""
				}
				fs, dir := next()
				m := &pageModel{page: page}
				m.synced()
				torn, within := 0, 0
				for range *fileRounds {
					f, err := g.over(fs).OpenFile(fs.PathJoin(dir, "f"), &sealfs.FileOptions{PageSize: page})
					require.NoError(t, err)
					m.check(t, f)
					// It stops within some operation.
					left := rng.IntN(60)
					after, afterDir := next()
					percent := rng.IntN(101)
					var then *pageModel
					stop := func() {
						fs.crash(t, after.FS, afterDir, rng, percent)
						then = m.clone()
						torn += len(m.touched)
					}
					fs.before = func() {
						if left--; left == 0 {
							stop()
							within++
						}
					}
					for i := byte(1); then == nil && i < 200; i++ {
						off := rng.IntN(len(m.now) + 1)
						switch rng.IntN(10) {
						case 0:
							if len(m.now) == 0 {
								continue
							}
							n := rng.IntN(len(m.now))
							m.truncates(n)
							require.NoError(t, f.Truncate(int64(n)))
							m.now = m.now[:n:n]
							m.synced()
						case 1, 2:
							require.NoError(t, f.Sync())
							m.synced()
						default:
							b := bytes.Repeat([]byte{i}, 1+rng.IntN(4*page))
							if len(m.now) > 10*page {
								off = rng.IntN(8 * page)
							}
							m.writes(off, len(b), i)
							_, err := f.WriteAt(b, int64(off))
							require.NoError(t, err)
						}
					}
					fs.before = nil
					if then == nil {
						stop()
					}
					require.NoError(t, f.Close())
					fs, dir, m = after, afterDir, then
					names, err := fs.List(dir)
					require.NoError(t, err)
					for _, name := range names {
						fs.record(name, true).synced = raw(t, fs.FS, fs.PathJoin(dir, name))
					}
				}
				t.Logf("%d crashes within an operation, %d pages were being written", within, torn)
				require.Positive(t, within)
			})
		}
	}
}
