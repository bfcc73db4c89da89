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

// sealedFS returns a sealed file system on the disk.
func sealedFS(tb testing.TB) *sealfs.FS {
	v := vaulttest.New(nil)
	r, err := keyring.Create(context.Background(), new(keyring.MemStorage), kek.New(v, v.CreateKey("k").Versionless()), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	f, err := sealfs.New(vfs.Default, r, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// filesCase is one way to use a Pebble, the same on sealed and on plain files.
type filesCase struct {
	size       int
	compress   bool
	blobs      bool // values in blob files
	blockCache int64
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

func (c filesCase) open(tb testing.TB, f vfs.FS, dir string) *pebble.DB {
	o := &pebble.Options{FS: f, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}, Cache: pebble.NewCache(c.blockCache)}
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

func fileKey(i int) []byte { return fmt.Appendf(nil, "%012d", i) }

// fill writes n values, and merges them into tables.
func (c filesCase) fill(tb testing.TB, db *pebble.DB, n int) {
	for i := 0; i < n; {
		b := db.NewBatch()
		for range min(256, n-i) {
			if err := b.Set(fileKey(i), c.value(i), nil); err != nil {
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

// pair opens the same database on sealed files and on plain ones.
func (c filesCase) pair(b *testing.B, n int) (sealed, plain *pebble.DB) {
	sealed = c.open(b, sealedFS(b), b.TempDir())
	plain = c.open(b, vfs.Default, b.TempDir())
	b.Cleanup(func() { sealed.Close(); plain.Close() })
	if n > 0 {
		c.fill(b, sealed, n)
		c.fill(b, plain, n)
	}
	return sealed, plain
}

// BenchmarkFilesPut writes synced batches to a Pebble on sealed files, beside one on plain files.
func BenchmarkFilesPut(b *testing.B) {
	for _, size := range []int{200, 4096} {
		for _, batch := range []int{1, 16} {
			c := filesCase{size: size, blockCache: 64 << 20}
			b.Run(fmt.Sprintf("%v,batch=%d", c, batch), func(b *testing.B) {
				sealed, plain := c.pair(b, 0)
				put := func(db *pebble.DB) func() error {
					i, v := 0, c.value(0)
					return func() error {
						w := db.NewBatch()
						for range batch {
							i++
							if err := w.Set(fileKey(i%100_000), v, nil); err != nil {
								return err
							}
						}
						return w.Commit(pebble.Sync)
					}
				}
				b.SetBytes(int64(size * batch))
				turns(b, 32, put(sealed), "pebble", put(plain))
			})
		}
	}
}

// BenchmarkFilesLoad fills a database, with all flushes and compactions, and says what it has on disk
// for each byte of the plain one.
func BenchmarkFilesLoad(b *testing.B) {
	const n = 20_000
	for _, c := range []filesCase{{size: 4096}, {size: 400, compress: true}, {size: 4096, blobs: true}} {
		c.blockCache = 64 << 20
		b.Run(c.String(), func(b *testing.B) {
			f := sealedFS(b)
			load := func(f vfs.FS, dir *string) func() error {
				return func() error {
					*dir = b.TempDir()
					db := c.open(b, f, *dir)
					c.fill(b, db, n)
					return db.Close()
				}
			}
			var sealed, plain string
			b.SetBytes(int64(n * c.size))
			turns(b, 1, load(f, &sealed), "pebble", load(vfs.Default, &plain))
			b.ReportMetric(float64(onDisk(b, sealed))/float64(onDisk(b, plain)), "bytes/plain-byte")
		})
	}
}

func onDisk(b *testing.B, dir string) (size int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
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

// fileGet is what is read one value at a time, and from where.
type fileGet struct {
	name string
	filesCase
}

// fileGets are: from tables and from blob files through a block cache of 1 MiB, and from a block cache that
// holds everything.
func fileGets() []fileGet {
	return []fileGet{
		{"files", filesCase{size: 4096, blockCache: 1 << 20}},
		{"files", filesCase{size: 400, compress: true, blockCache: 1 << 20}},
		{"files", filesCase{size: 4096, blobs: true, blockCache: 1 << 20}},
		{"cache", filesCase{size: 4096, blockCache: 512 << 20}},
	}
}

// get returns what reads one of n values of a database.
func (c filesCase) get(db *pebble.DB, n int) func() error {
	rng := rand.New(rand.NewPCG(1, 2))
	return func() error {
		v, closer, err := db.Get(fileKey(rng.IntN(n)))
		if err != nil {
			return err
		}
		if len(v) != c.size {
			return fmt.Errorf("%d bytes", len(v))
		}
		return closer.Close()
	}
}

// BenchmarkFilesGet has each of fileGets in turns.
func BenchmarkFilesGet(b *testing.B) {
	const n = 20_000
	for _, c := range fileGets() {
		b.Run(c.name+"/"+c.String(), func(b *testing.B) {
			sealed, plain := c.pair(b, n)
			b.SetBytes(int64(c.size))
			turns(b, 256, c.get(sealed, n), "pebble", c.get(plain, n))
		})
	}
}

// BenchmarkFilesScan reads the whole database in order, from files.
func BenchmarkFilesScan(b *testing.B) {
	const n = 20_000
	for _, c := range []filesCase{{size: 4096}, {size: 400, compress: true}} {
		c.blockCache = 1 << 20
		b.Run(c.String(), func(b *testing.B) {
			sealed, plain := c.pair(b, n)
			scan := func(db *pebble.DB) func() error {
				return func() error {
					it, err := db.NewIter(nil)
					if err != nil {
						return err
					}
					found := 0
					for it.First(); it.Valid(); it.Next() {
						if _, err := it.ValueAndErr(); err != nil {
							return err
						}
						found++
					}
					if found != n {
						return fmt.Errorf("%d of %d", found, n)
					}
					return it.Close()
				}
			}
			b.SetBytes(int64(n * c.size))
			turns(b, 1, scan(sealed), "pebble", scan(plain))
		})
	}
}

// BenchmarkFilesPages reads and writes pages of a file at random.
func BenchmarkFilesPages(b *testing.B) {
	const n, page = 4096, sealfs.DefaultPageSize
	f, err := sealedFS(b).OpenFile(filepath.Join(b.TempDir(), "pages"), nil)
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
