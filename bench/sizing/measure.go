package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// measurements are what tables are made of.
type measurements struct {
	Growth   []point   `json:"growth"`   // of stores with ever more small blocks
	Loaded   []loaded  `json:"loaded"`   // of stores that were loaded, and their look-ups
	Payloads []payload `json:"payloads"` // of stores with blocks of a usual size
}

// point is a store that was filled, closed, and opened again.
type point struct {
	Blocks, Size int
	Disk         int64         // bytes of tables and blob files; the log has 256 MiB at the most
	Heap         int64         // live bytes of Go's heap, open, above those of an empty store
	Replay       time.Duration // to open it after it was filled, with the engine's log to replay
	Open         time.Duration // to open it again, and read a block
	OpenCalls    int           // calls to the vault for that
	FillCalls    int           // calls to the vault while it was filled
	Keyring      int           // bytes of the keyring document
	Epochs       int
}

// payload is a store with blocks of one size.
type payload struct {
	Blocks, Size int
	Disk         int64
}

// The caches are as small as they get, so that what is left is what grows by itself.
func sizingOptions() *block.Options {
	return &block.Options{NoSync: true, RecordCache: -1, RowCache: -1, Pebble: block.PebbleOptions{BlockCache: 8 << 20}}
}

type lab struct {
	vault *vaulttest.Vault
	key   vault.KeyID
}

func newLab() lab {
	v := vaulttest.New(nil)
	return lab{v, v.CreateKey("k").Versionless()}
}

func (l lab) open(ctx context.Context, dir string) (*block.Store, error) {
	return block.Open(ctx, dir, kek.New(l.vault, l.key), sizingOptions())
}

func measure(ctx context.Context, o options, progress io.Writer) (m measurements, err error) {
	dir := o.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "blockseal-sizing-"); err != nil {
			return m, err
		}
		defer os.RemoveAll(dir)
	}
	l := newLab()
	store := filepath.Join(dir, "growth")
	empty, err := l.heap(ctx, filepath.Join(dir, "empty"))
	if err != nil {
		return m, err
	}
	for n, have := 1000, 0; ; n = min(10*n, o.blocks) {
		fmt.Fprintf(progress, "%d blocks of %d bytes\n", n, o.size)
		calls := l.vault.Calls().Total()
		if err := l.fill(ctx, store, have, n, o.size, false); err != nil {
			return m, err
		}
		filled := l.vault.Calls().Total()
		replay, disk, err := l.settle(ctx, store)
		if err != nil {
			return m, err
		}
		p, err := l.look(ctx, store, n, o.size, empty)
		if err != nil {
			return m, err
		}
		p.FillCalls, p.Replay, p.Disk = filled-calls, replay, disk
		m.Growth = append(m.Growth, p)
		if have = n; n == o.blocks {
			break
		}
	}
	if err := os.RemoveAll(store); err != nil {
		return m, err
	}
	for _, size := range []int{4 << 10, 16 << 10, 64 << 10} {
		p := payload{Blocks: int(o.payload) / size, Size: size}
		fmt.Fprintf(progress, "%d blocks of %d bytes\n", p.Blocks, size)
		// The least of some: what the engine has yet to remove comes and goes.
		for range 4 {
			if err := l.fill(ctx, store, 0, p.Blocks, size, true); err != nil {
				return m, err
			}
			_, disk, err := l.settle(ctx, store)
			if err != nil {
				return m, err
			}
			if p.Disk == 0 || disk < p.Disk {
				p.Disk = disk
			}
			if err := os.RemoveAll(store); err != nil {
				return m, err
			}
		}
		m.Payloads = append(m.Payloads, p)
	}
	return m, nil
}

// fill brings a store from so many blocks to so many, and closes it. With flush, nothing
// is left in the engine's log: replaying it can write twice, until a compaction, what was
// being flushed when the store was closed, up to a memtable.
func (l lab) fill(ctx context.Context, dir string, from, to, size int, flush bool) (err error) {
	s, err := l.open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	data := make([]byte, size+1000)
	rand.Read(data)
	for i := from; i < to; {
		b := s.NewBatch()
		for n := 0; n < 1<<20 && i < to; n += size + 100 {
			if err := b.Put(ctx, blockID(i), data[i%1000:i%1000+size]); err != nil {
				return err
			}
			i++
		}
		if err := b.Commit(ctx); err != nil {
			return err
		}
	}
	if !flush {
		return nil
	}
	copied := dir + ".copy" // making a checkpoint flushes
	return errors.Join(s.Checkpoint(ctx, copied), os.RemoveAll(copied))
}

// settle opens a store, waits until the engine has come to rest, and closes it: what was
// in its log, 256 MiB at the most, is in its tables then, and what it was about to compact
// or to remove is gone. It returns how long opening took, and the bytes of tables and blob
// files.
func (l lab) settle(ctx context.Context, dir string) (took time.Duration, disk int64, err error) {
	start := time.Now()
	s, err := l.open(ctx, dir)
	if err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	defer func() { err = errors.Join(err, s.Close()) }()
	const every, calm, most = 50 * time.Millisecond, 10, 12_000
	for quiet, polls := 0, 0; quiet < calm && polls < most; polls++ {
		if e := s.Stats().Engine; e.CompactionsRunning == 0 && e.ObsoleteBytes == 0 {
			quiet++
		} else {
			quiet = 0
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	e := s.Stats().Engine
	disk = int64(e.BlobBytes)
	for _, n := range e.LevelBytes {
		disk += int64(n)
	}
	return took, disk, nil
}

// blockID is the id of a block, of 8 bytes, far from those before and after it.
func blockID(i int) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(i)*0x9e3779b97f4a7c15)
}

// look opens a store that is closed and says what it takes.
func (l lab) look(ctx context.Context, dir string, n, size int, empty int64) (p point, err error) {
	p = point{Blocks: n, Size: size}
	in, err := block.InspectKeyring(dir, nil)
	if err != nil {
		return p, err
	}
	p.Keyring = in.Size
	before, start := l.vault.Calls().Total(), time.Now()
	s, err := l.open(ctx, dir)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := s.Get(ctx, blockID(n/2), nil); err != nil {
		return p, err
	}
	p.Open, p.OpenCalls = time.Since(start), l.vault.Calls().Total()-before
	// Pebble remembers the tables that it has looked into: look into many.
	for i := range min(n, 20_000) {
		if _, err := s.Get(ctx, blockID(i*(n/min(n, 20_000))), nil); err != nil {
			return p, err
		}
	}
	p.Heap = max(liveHeap()-empty, 0)
	p.Epochs = s.State().Epochs
	return p, nil
}

// heap returns the live heap with a store that has one block.
func (l lab) heap(ctx context.Context, dir string) (n int64, err error) {
	if err := l.fill(ctx, dir, 0, 1, 1, false); err != nil {
		return 0, err
	}
	s, err := l.open(ctx, dir)
	if err != nil {
		return 0, err
	}
	n = liveHeap()
	return n, errors.Join(s.Close(), os.RemoveAll(dir))
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
