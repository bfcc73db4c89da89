package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/block"
)

// loadBlocks is how many blocks of a size one load of the benchmark has: 64 MiB.
func loadBlocks(size int) int {
	if testing.Short() {
		return 4 << 20 / size
	}
	return 64 << 20 / size
}

// BenchmarkLoad is a bulk load in turns with plain Pebble's own: tables that are written with the
// same options, of the same size, and taken up by Ingest. An operation is a load, always of the same
// ids, so that each replaces the one before.
func BenchmarkLoad(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		for _, impl := range []string{"blockseal", "pebble"} {
			b.Run(fmt.Sprintf("size=%d/impl=%s", size, impl), func(b *testing.B) {
				n := loadBlocks(size)
				data := random(size + n)
				op := plainLoader(b, n, size, data)
				if impl == "blockseal" {
					op = sealedLoader(b, n, size, data)
				}
				base := plainLoader(b, n, size, data)
				b.SetBytes(int64(n * size))
				b.ReportAllocs()
				turns(b, 1, op, "pebble", base)
			})
		}
	}
}

func sealedLoader(b *testing.B, n, size int, data []byte) func() error {
	s := open(b, blockseal(nil), true).(*sealed)
	return func() error {
		_, err := s.Load(context.Background(), func(yield func(block.Block, error) bool) {
			id := make([]byte, 8)
			for i := range n {
				binary.BigEndian.PutUint64(id, uint64(i))
				if !yield(block.Block{ID: id, Data: data[i : i+size]}, nil) {
					return
				}
			}
		})
		return err
	}
}

// plainLoader is Pebble with the options that matter to what is ingested: filters, no compression.
func plainLoader(b *testing.B, n, size int, data []byte) func() error {
	b.Helper()
	dir, err := os.MkdirTemp("", "blockseal-bench-")
	if err != nil {
		b.Fatal(err)
	}
	o := &pebble.Options{FormatMajorVersion: pebble.FormatValueSeparation, MemTableSize: 64 << 20, Logger: silent{}}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	o.EnsureDefaults()
	db, err := pebble.Open(filepath.Join(dir, "db"), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
		os.RemoveAll(dir)
	})
	return func() error {
		var names []string
		var w *sstable.Writer
		key := bytes.Clone([]byte(prefix + "12345678"))
		for i := range n {
			if w == nil {
				name := filepath.Join(dir, fmt.Sprintf("%d.sst", len(names)))
				f, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
				if err != nil {
					return err
				}
				names = append(names, name)
				w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), o.MakeWriterOptions(0, db.TableFormat()))
			}
			binary.BigEndian.PutUint64(key[len(prefix):], uint64(i))
			if err := w.Set(key, data[i:i+size]); err != nil {
				return err
			}
			if w.Raw().EstimatedSize() >= 64<<20 || i == n-1 {
				if err := w.Close(); err != nil {
					return err
				}
				w = nil
			}
		}
		return db.Ingest(context.Background(), names)
	}
}
