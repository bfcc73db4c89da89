package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// cacheBytes holds every data set that is read here, for each of the stores.
const cacheBytes = 512 << 20

// kv is what every store of the comparison can do.
type kv interface {
	put(batch [][2][]byte) error
	get(id, dst []byte) ([]byte, error)
	scan(f func(id, data []byte) error) error
	close() error
}

// opener opens a store in a directory, a new one or one that it has made before.
type opener func(dir string, sync bool) (kv, error)

// implementations are the stores, blockseal first: the others are measured beside it.
func implementations() []struct {
	name string
	open opener
} {
	key := random(32)
	return []struct {
		name string
		open opener
	}{
		{"blockseal", blockseal(nil)},
		{"pebble", openPebble},
		{"promised", openPromised(key)},
		{"badger", func(dir string, sync bool) (kv, error) { return openBadger(dir, key, sync, cacheBytes) }},
	}
}

type sealed struct{ *block.Store }

// blockseal returns what opens stores with the options a program would give them, and
// caches of the same size as their opponents'. change may be nil.
func blockseal(change func(*block.Options)) opener {
	v := vaulttest.New(nil)
	key := v.CreateKey("k").Versionless()
	return func(dir string, sync bool) (kv, error) {
		o := &block.Options{NoSync: !sync, Pebble: block.PebbleOptions{BlockCache: cacheBytes}}
		if change != nil {
			change(o)
		}
		return openSealed(dir, v, key, o)
	}
}

func openSealed(dir string, v *vaulttest.Vault, id vault.KeyID, o *block.Options) (*sealed, error) {
	s, err := block.Open(context.Background(), dir, kek.New(v, id), o)
	if err != nil {
		return nil, err
	}
	return &sealed{s}, nil
}

func (s *sealed) put(batch [][2][]byte) error {
	ctx := context.Background()
	if len(batch) == 1 {
		return s.Put(ctx, batch[0][0], batch[0][1])
	}
	b := s.NewBatch()
	for _, p := range batch {
		if err := b.Put(ctx, p[0], p[1]); err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

// lending is a store whose batches are lent what they put.
type lending struct{ *sealed }

func (s lending) put(batch [][2][]byte) error {
	ctx := context.Background()
	b := s.NewBatch()
	for _, p := range batch {
		if err := b.PutLent(ctx, p[0], p[1]); err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

func (s *sealed) get(id, dst []byte) ([]byte, error) { return s.Get(context.Background(), id, dst) }

func (s *sealed) scan(f func(id, data []byte) error) error {
	for b, err := range s.Blocks(context.Background(), block.Range{}) {
		if err != nil {
			return err
		}
		if err := f(b.ID, b.Data); err != nil {
			return err
		}
	}
	return nil
}

func (s *sealed) close() error { return s.Close() }

// plain is the same engine with the same options and nothing else: one key, one value,
// and a copy of the value on the way out.
type plain struct {
	*pebble.DB
	lock *pebble.Lock
	sync bool
	dst  []byte
}

// prefix of the keys, in the space and of the length that a store's blocks have.
const prefix = "\x03\x00\x00\x00\x00"

func openPebble(dir string, sync bool) (kv, error) { return openPebbleOn(dir, sync, vfs.Default) }

func openPebbleOn(dir string, sync bool, fs vfs.FS) (*plain, error) {
	lock, err := pebble.LockDir(dir, fs, false)
	if err != nil {
		return nil, err
	}
	db, err := pebble.Open(dir, lock, pebble.Options{FS: fs, Create: true, CacheBytes: cacheBytes})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &plain{DB: db, lock: lock, sync: sync}, nil
}

func (p *plain) put(batch [][2][]byte) error {
	b := p.NewBatch()
	defer b.Close()
	for _, kv := range batch {
		reserve(b, kv)
	}
	return p.Commit(b, p.sync)
}

// reserve adds a block to a batch.
func reserve(b pebble.Batch, kv [2][]byte) {
	key, value := b.Reserve(len(prefix)+len(kv[0]), len(kv[1]))
	copy(key, prefix)
	copy(key[len(prefix):], kv[0])
	copy(value, kv[1])
}

func (p *plain) get(id, dst []byte) ([]byte, error) {
	key := append(make([]byte, 0, 32), prefix...)
	v, closer, err := p.Get(append(key, id...))
	if err != nil {
		return nil, err
	}
	dst = append(dst, v...)
	return dst, closer.Close()
}

func (p *plain) scan(f func(id, data []byte) error) error {
	it, err := p.NewIter([]byte(prefix), []byte("\x04"))
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		p.dst = append(p.dst[:0], v...)
		if err := f(it.Key()[len(prefix):], p.dst); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return errors.Join(it.Err(), it.Close())
}

func (p *plain) close() error { return errors.Join(p.Close(), p.lock.Close()) }

// open opens a store in a new directory on disk until the benchmark ends.
func open(b testing.TB, open opener, sync bool) kv {
	b.Helper()
	return filled(b, open, sync, 0, 0)
}

// filled opens a store with so many blocks until the benchmark ends. It is closed and
// opened once they are there, so that they are read from tables and caches of those, and
// not from the memory that writing left.
func filled(b testing.TB, open opener, sync bool, n, size int) kv {
	b.Helper()
	dir, err := os.MkdirTemp("", "blockseal-bench-")
	if err != nil {
		b.Fatal(err)
	}
	s, err := open(dir, sync)
	if err == nil && n > 0 {
		fill(b, s, n, size)
		if err = s.close(); err == nil {
			s, err = open(dir, sync)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(s.close(), os.RemoveAll(dir)); err != nil {
			b.Error(err)
		}
	})
	return s
}

// id is one of n ids, far from its neighbours.
func id(buf []byte, i, n int) []byte {
	return binary.BigEndian.AppendUint64(buf[:0], uint64(i%n)*0x9e3779b97f4a7c15)
}

// fill puts n blocks, each of other bytes, in batches of 64 KiB or more.
func fill(b testing.TB, s kv, n, size int) {
	b.Helper()
	data := random(size + n)
	var batch [][2][]byte
	for i := range n {
		batch = append(batch, [2][]byte{id(make([]byte, 0, 8), i, n), data[i : i+size]})
		if len(batch)*size >= 64<<10 || len(batch) >= 1000 || i == n-1 {
			if err := s.put(batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// bySize runs f by size of block and then by implementation, so that what is compared
// runs side by side.
func bySize(b *testing.B, sizes []int, f func(b *testing.B, size int, open opener)) {
	for _, size := range sizes {
		for _, im := range implementations() {
			b.Run(fmt.Sprintf("size=%d/impl=%s", size, im.name), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				f(b, size, im.open)
			})
		}
	}
}
