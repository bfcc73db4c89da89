package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// sealedFS returns a sealed file system.
func sealedFS(tb testing.TB, under vfs.FS) *sealfs.FS {
	v := vaulttest.New(nil)
	r, err := keyring.Create(context.Background(), new(keyring.MemStorage), kek.New(v, v.CreateKey("k").Versionless()), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	f, err := sealfs.New(under, r, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// filesCase is one way to use a Pebble, the same on sealed and on plain files.
type filesCase struct {
	size     int
	compress bool
	blobs    bool // values in blob files
}

func (c filesCase) String() string {
	s := fmt.Sprintf("size=%d", c.size)
	if c.compress {
		s += ",compressed"
	}
	if c.blobs {
		s += ",blob"
	}
	return s
}

func (c filesCase) open(tb testing.TB, f vfs.FS, dir string, blockCache int64) *pebble.DB {
	o := &pebble.Options{FS: f, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}, Cache: pebble.NewCache(blockCache)}
	defer o.Cache.Unref()
	for i := range o.Levels {
		o.Levels[i].Compression = func() *sstable.CompressionProfile {
			if c.compress {
				return sstable.SnappyCompression
			}
			return sstable.NoCompression
		}
	}
	if c.blobs {
		o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
			return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 512, MaxBlobReferenceDepth: 10, TargetGarbageRatio: 0.2}
		}
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// value is one of a size, half of it compressible if the case compresses.
func (c filesCase) value(i int) []byte {
	b := random(c.size)
	if c.compress {
		clear(b[c.size/2:])
	}
	binary.BigEndian.PutUint64(b, uint64(i))
	return b
}

func valueKey(i int) []byte { return fmt.Appendf(nil, "%012d", i) }

// fill writes n values, and merges them into tables.
func (c filesCase) fill(tb testing.TB, db *pebble.DB, n int) {
	for i := 0; i < n; {
		b := db.NewBatch()
		for range min(256, n-i) {
			if err := b.Set(valueKey(i), c.value(i), nil); err != nil {
				tb.Fatal(err)
			}
			i++
		}
		if err := b.Commit(pebble.NoSync); err != nil {
			tb.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := db.Compact(context.Background(), []byte("0"), []byte("9"), true); err != nil {
		tb.Fatal(err)
	}
}

// filesTrio is a directory on sealed files, one on plain ones, and one on the bound.
type filesTrio struct {
	fs     [3]vfs.FS
	meters [3]*metered // of the bound what it is itself, of the others what is beneath
	dirs   [3]string
}

func newFilesTrio(b *testing.B) *filesTrio {
	t := &filesTrio{meters: [3]*metered{{FS: vfs.Default}, {FS: vfs.Default}, boundFS(b)}}
	t.fs = [3]vfs.FS{sealedFS(b, t.meters[0]), t.meters[1], t.meters[2]}
	for i := range t.dirs {
		t.dirs[i] = b.TempDir()
	}
	return t
}

// open opens a database in each of them, until the benchmark ends.
func (t *filesTrio) open(b *testing.B, c filesCase, blockCache int64) (dbs [3]*pebble.DB) {
	for i := range dbs {
		dbs[i] = c.open(b, t.fs[i], t.dirs[i], blockCache)
		b.Cleanup(func() { dbs[i].Close() })
	}
	return dbs
}

// fill makes a database of n values in one of them.
func (t *filesTrio) fill(b *testing.B, c filesCase, i, n int) error {
	db := c.open(b, t.fs[i], t.dirs[i], 64<<20)
	c.fill(b, db, n)
	return db.Close()
}

// BenchmarkFilesLoad fills a database, with all flushes and compactions, and says as rounds does how it is
// beside the plain one and the bound, and what it has on disk for each byte of the plain one.
func BenchmarkFilesLoad(b *testing.B) {
	const n = 20_000
	for _, c := range []filesCase{{size: 4096}, {size: 400, compress: true}, {size: 4096, blobs: true}} {
		b.Run(c.String(), func(b *testing.B) {
			t := newFilesTrio(b)
			var ops [3]func() error
			var size [3]int64
			for i := range ops {
				ops[i] = func() error {
					if err := t.fill(b, c, i, n); err != nil {
						return err
					}
					size[i] = onDisk(b, t.dirs[i])
					return os.RemoveAll(t.dirs[i])
				}
			}
			rounds(b, 1, ops)
			b.ReportMetric(float64(size[0])/float64(size[1]), "bytes/plain-byte")
		})
	}
}

// onDisk is the size of the tables and blob files. How many logs a Pebble leaves for reuse is chance.
func onDisk(b *testing.B, dir string) (size int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(d.Name()); err != nil || ext != ".sst" && ext != ".blob" {
			return err
		}
		fi, err := d.Info()
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil {
			size += fi.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}

// BenchmarkFilesPages reads and writes pages of a file at random.
func BenchmarkFilesPages(b *testing.B) {
	const n, page = 4096, sealfs.DefaultPageSize
	f, err := sealedFS(b, vfs.Default).OpenFile(filepath.Join(b.TempDir(), "pages"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	plain, err := os.Create(filepath.Join(b.TempDir(), "pages"))
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	buf := random(page)
	type file interface {
		ReadAt([]byte, int64) (int, error)
		WriteAt([]byte, int64) (int, error)
	}
	for _, w := range []file{f, plain} {
		for i := range n {
			if _, err := w.WriteAt(buf, int64(i*page)); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, op := range []string{"read", "write"} {
		do := func(w file) func() error {
			rng := rand.New(rand.NewPCG(1, 2))
			return func() (err error) {
				at := int64(rng.IntN(n) * page)
				if op == "read" {
					_, err = w.ReadAt(buf, at)
				} else {
					_, err = w.WriteAt(buf, at)
				}
				return err
			}
		}
		b.Run(op, func(b *testing.B) {
			b.SetBytes(page)
			turns(b, 64, do(f), "file", do(plain))
		})
	}
}
