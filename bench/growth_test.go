package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// counts are how many blocks the stores have whose costs should not grow with them.
func counts() []int {
	if testing.Short() {
		return []int{1_000, 10_000}
	}
	return []int{1_000, 10_000, 100_000, 1_000_000}
}

const smallBlock = 64

// byCount runs f on a closed store of so many small blocks, for which it returns a way to
// open it.
func byCount(b *testing.B, f func(b *testing.B, n int, open func() *sealed)) {
	for _, n := range counts() {
		var dir string
		var reopen func() *sealed
		b.Run(fmt.Sprintf("blocks=%d/impl=blockseal", n), func(b *testing.B) {
			if reopen == nil { // the function is run again for a larger b.N
				var err error
				if dir, err = os.MkdirTemp("", "blockseal-bench-"); err != nil {
					b.Fatal(err)
				}
				v := vaulttest.New(nil)
				id := v.CreateKey("k").Versionless()
				reopen = func() *sealed {
					s, err := openSealed(dir, v, id, &block.Options{NoSync: true})
					if err != nil {
						b.Fatal(err)
					}
					return s
				}
				s := reopen()
				fill(b, s, n, smallBlock)
				if err := s.close(); err != nil {
					b.Fatal(err)
				}
				// What was in the engine's log when it was closed, up to 256 MiB, is
				// replayed once, by whoever opens it next.
				s = reopen()
				rest(s)
				if err := s.close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			f(b, n, reopen)
		})
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
}

func calls(s *sealed) uint64 {
	c := s.VaultCalls()
	return c.Get + c.Wrap + c.Unwrap
}

// BenchmarkColdOpen opens a store that was closed, with an empty log, and reads one block.
func BenchmarkColdOpen(b *testing.B) {
	byCount(b, func(b *testing.B, n int, open func() *sealed) {
		var asked uint64
		for i := range b.N {
			s := open()
			if _, err := s.get(id(nil, i, n), nil); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			asked += calls(s)
			if err := s.close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		b.ReportMetric(float64(asked)/float64(b.N), "vaultcalls/op")
	})
}

// BenchmarkRotateKEK wraps a store's keyring anew by its KEK: the same work whether the
// version is another one or not.
func BenchmarkRotateKEK(b *testing.B) {
	byCount(b, func(b *testing.B, _ int, open func() *sealed) {
		s := open()
		before := calls(s)
		b.ResetTimer()
		for range b.N {
			if err := s.RotateKEK(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(calls(s)-before)/float64(b.N), "vaultcalls/op")
		if err := s.close(); err != nil {
			b.Fatal(err)
		}
	})
}

// counting counts the bytes that are written to files.
type counting struct {
	vfs.FS
	written atomic.Int64
}

func (c *counting) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &countingFile{f, c}, nil
}

func (c *counting) Create(name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.Create(name, cat))
}

func (c *counting) OpenReadWrite(name string, cat vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return c.file(c.FS.OpenReadWrite(name, cat, o...))
}

func (c *counting) ReuseForWrite(from, to string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.ReuseForWrite(from, to, cat))
}

type countingFile struct {
	vfs.File
	fs *counting
}

func (f *countingFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.fs.written.Add(int64(n))
	return n, err
}

func (f *countingFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.fs.written.Add(int64(n))
	return n, err
}

var _ io.WriterAt = (*countingFile)(nil)

// BenchmarkWriteAmplification is what reaches the file system, log, flushes and compactions
// together, for a byte that is put: each of the blocks twice, in another order than that
// of their ids, until no compaction runs. An operation is all of that.
func BenchmarkWriteAmplification(b *testing.B) {
	const size = 4 << 10
	n := 100_000 // 400 MiB, more than the memtables hold
	if testing.Short() {
		n = 2_000
	}
	v := vaulttest.New(nil)
	key, epochKey := v.CreateKey("k").Versionless(), random(dek.Size)
	for _, im := range []struct {
		name string
		open func(dir string, fs vfs.FS) (kv, error)
	}{
		{"blockseal", func(dir string, fs vfs.FS) (kv, error) {
			return openSealed(dir, v, key, &block.Options{NoSync: true, Pebble: block.PebbleOptions{BlockCache: cacheBytes, FS: fs}})
		}},
		{"pebble", func(dir string, fs vfs.FS) (kv, error) { return openPebbleOn(dir, false, fs) }},
		{"promised", func(dir string, fs vfs.FS) (kv, error) { return openPromisedOn(dir, false, fs, epochKey) }},
	} {
		open := im.open
		b.Run(fmt.Sprintf("size=%d/impl=%s", size, im.name), func(b *testing.B) {
			var amplification float64
			for range b.N {
				dir, err := os.MkdirTemp("", "blockseal-bench-")
				if err != nil {
					b.Fatal(err)
				}
				fs := &counting{FS: vfs.Default}
				s, err := open(dir, fs)
				if err != nil {
					b.Fatal(err)
				}
				fill(b, s, n, size)
				fill(b, s, n, size)
				rest(s)
				// What is in memtables counts once it is in tables, which opening does.
				if err := s.close(); err != nil {
					b.Fatal(err)
				}
				if s, err = open(dir, fs); err != nil {
					b.Fatal(err)
				}
				rest(s)
				if err := errors.Join(s.close(), os.RemoveAll(dir)); err != nil {
					b.Fatal(err)
				}
				amplification += float64(fs.written.Load()) / float64(2*n*size)
			}
			b.ReportMetric(amplification/float64(b.N), "writeamp")
		})
	}
}

// rest waits until the engine compacts nothing any more.
func rest(s kv) {
	for calm := 0; calm < 20; calm++ {
		var running int
		switch s := s.(type) {
		case *sealed:
			running = s.Stats().Engine.CompactionsRunning
		case *plain:
			running = int(s.Metrics().Compact.NumInProgress)
		case *promisedStore:
			running = int(s.Metrics().Compact.NumInProgress)
		}
		if running > 0 {
			calm = 0
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// BenchmarkMemory is what a million blocks add to the memory of the process, a block,
// with blockseal's caches off and Pebble's as small as they get. Pebble keeps its block
// cache and memtables outside of Go's heap where it is built with cgo, and in it without;
// both are given up before the measurement by closing and opening the store.
func BenchmarkMemory(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 20_000
	}
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for _, name := range []string{"blockseal", "pebble"} {
		b.Run(fmt.Sprintf("blocks=%d/impl=%s", n, name), func(b *testing.B) {
			v := vaulttest.New(nil)
			key := v.CreateKey("k").Versionless()
			open := func(dir string) kv {
				var s kv
				var err error
				if name == "blockseal" {
					s, err = openSealed(dir, v, key, &block.Options{NoSync: true, RecordCache: -1, RowCache: -1, Pebble: block.PebbleOptions{BlockCache: 1 << 20}})
				} else {
					s, err = openPebble(dir, false)
				}
				if err != nil {
					b.Fatal(err)
				}
				return s
			}
			for range b.N {
				dir, err := os.MkdirTemp("", "blockseal-bench-")
				if err != nil {
					b.Fatal(err)
				}
				s := open(dir)
				fill(b, s, 1, smallBlock)
				if err := s.close(); err != nil {
					b.Fatal(err)
				}
				s = open(dir)
				empty := heap()
				fill(b, s, n, smallBlock)
				if err := s.close(); err != nil {
					b.Fatal(err)
				}
				s = open(dir)
				for i := range n / 100 {
					if _, err := s.get(id(nil, i*100, n), nil); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(max(heap()-empty, 0)/float64(n), "heap-B/block")
				if err := errors.Join(s.close(), os.RemoveAll(dir)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
