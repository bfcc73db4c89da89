// Package bench compares blockseal with what it is built on and with its peers. It
// is a module of its own, so that nothing it needs for that reaches those who
// import blockseal.
//
//	go -C bench test -run '^$' -bench .
//
// Both sides of a comparison run in one process, with the same engine options, the
// same ids and the same incompressible values; what to look at is their ratio.
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
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// cacheBytes holds every data set here, on both sides.
const cacheBytes = 512 << 20

// store is what both sides can do.
type store interface {
	put(id, data []byte) error
	get(id, dst []byte) ([]byte, error)
}

type sealed struct{ *block.Store }

func (s sealed) put(id, data []byte) error          { return s.Put(context.Background(), id, data) }
func (s sealed) get(id, dst []byte) ([]byte, error) { return s.Get(context.Background(), id, dst) }

// plain is the same engine with the same options and nothing else: one key, one
// value, and a copy of the value on the way out.
type plain struct {
	*engine.DB
	sync bool
}

func (p plain) put(id, data []byte) error {
	b := p.NewBatch()
	defer b.Close()
	key, value := b.Reserve(5+len(id), len(data))
	key[0] = 3
	copy(key[5:], id)
	copy(value, data)
	return p.Commit(b, p.sync)
}

func (p plain) get(id, dst []byte) ([]byte, error) {
	key := append(make([]byte, 0, 32), 3, 0, 0, 0, 0)
	v, closer, err := p.Get(append(key, id...))
	if err != nil {
		return nil, err
	}
	dst = append(dst, v...)
	return dst, closer.Close()
}

func tempDir(b *testing.B) string {
	dir, err := os.MkdirTemp("", "blockseal-bench-")
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

func closeThenRemove(b *testing.B, dir string, close func() error) {
	b.Cleanup(func() {
		if err := errors.Join(close(), os.RemoveAll(dir)); err != nil {
			b.Error(err)
		}
	})
}

// both runs f for a blockseal store and for plain Pebble, by block size.
func both(b *testing.B, sync bool, f func(b *testing.B, s store, data []byte)) {
	for _, n := range []int{4 << 10, 64 << 10} {
		data := make([]byte, n)
		rand.Read(data)
		run := func(name string, open func(dir string) store) {
			b.Run(fmt.Sprintf("size=%d/store=%s", n, name), func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				f(b, open(tempDir(b)), data)
			})
		}
		run("blockseal", func(dir string) store {
			v := vaulttest.New(nil)
			s, err := block.Open(context.Background(), dir, kek.New(v, v.CreateKey("k").Versionless()),
				&block.Options{NoSync: !sync, BlockCache: cacheBytes})
			if err != nil {
				b.Fatal(err)
			}
			closeThenRemove(b, dir, s.Close)
			return sealed{s}
		})
		run("pebble", func(dir string) store {
			lock, err := engine.LockDir(dir, vfs.Default)
			if err != nil {
				b.Fatal(err)
			}
			db, err := engine.Open(dir, lock, engine.Options{CacheBytes: cacheBytes})
			if err != nil {
				b.Fatal(err)
			}
			closeThenRemove(b, dir, func() error { return errors.Join(db.Close(), lock.Close()) })
			return plain{db, sync}
		})
	}
}

// id is one of n ids, far from its neighbours.
func id(buf []byte, i, n int) []byte {
	return binary.BigEndian.AppendUint64(buf[:0], uint64(i%n)*0x9e3779b97f4a7c15)
}

func put(b *testing.B, s store, data []byte) {
	buf := make([]byte, 0, 8)
	i := 0
	for b.Loop() {
		if err := s.put(id(buf, i, 10_000), data); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkPutSynced(b *testing.B) { both(b, true, put) }
func BenchmarkPutNoSync(b *testing.B) { both(b, false, put) }

func BenchmarkGet(b *testing.B) {
	both(b, false, func(b *testing.B, s store, data []byte) {
		n := min(10_000, 128<<20/len(data))
		buf, dst := make([]byte, 0, 8), make([]byte, 0, len(data))
		for i := range n {
			if err := s.put(id(buf, i, n), data); err != nil {
				b.Fatal(err)
			}
		}
		i := 0
		for b.Loop() {
			if _, err := s.get(id(buf, i, n), dst); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}
