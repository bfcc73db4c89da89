package bench

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/blockseal/blockseal/block"
)

// What is compared does the same: each store gives back what was put, in order.
func TestStoresAgree(t *testing.T) {
	const n, size = 500, 3000
	data := random(size + n)
	for _, im := range implementations() {
		for _, sync := range []bool{false, true} {
			s := open(t, im.open, sync)
			want := map[string][]byte{}
			for i := 0; i < n; i += 10 {
				var batch [][2][]byte
				for j := i; j < i+10; j++ {
					k := id(nil, j, n)
					want[string(k)] = data[j : j+size]
					batch = append(batch, [2][]byte{k, data[j : j+size]})
				}
				if err := s.put(batch); err != nil {
					t.Fatal(im.name, err)
				}
			}
			var last []byte
			seen := 0
			err := s.scan(func(id, data []byte) error {
				if bytes.Compare(last, id) >= 0 || !bytes.Equal(want[string(id)], data) {
					return fmt.Errorf("%x after %x, %d bytes", id, last, len(data))
				}
				last, seen = bytes.Clone(id), seen+1
				return nil
			})
			if err != nil || seen != n {
				t.Fatal(im.name, seen, err)
			}
			for i := range n {
				got, err := s.get(id(nil, i, n), make([]byte, 0, size))
				if err != nil || !bytes.Equal(got, data[i:i+size]) {
					t.Fatal(im.name, i, err)
				}
			}
			if _, err := s.get([]byte("none"), nil); err == nil {
				t.Fatal(im.name, "a block that nobody put")
			}
		}
	}
}

// putter puts batches of blocks into a store, some ids over and over.
func putter(s kv, size, batch int) func() error {
	data := random(size)
	ids := make([]byte, 0, 8*batch)
	kvs := make([][2][]byte, batch)
	i := 0
	return func() error {
		for j := range kvs {
			kvs[j] = [2][]byte{id(ids[8*j:8*j:8*j+8], i, 10_000), data}
			i++
		}
		return s.put(kvs)
	}
}

// BenchmarkPutSync is a Put, or a batch of 16, that is durable when it returns, in turns
// with plain Pebble, into stores that have been written to before: what memory they use they
// have, as a store has that does not just start.
func BenchmarkPutSync(b *testing.B) {
	warm := 10_000 // all ids that are put
	if testing.Short() {
		warm = 100
	}
	for _, size := range []int{4 << 10, 64 << 10} {
		for _, batch := range []int{1, 16} {
			for _, im := range implementations() {
				b.Run(fmt.Sprintf("size=%d/batch=%d/impl=%s", size, batch, im.name), func(b *testing.B) {
					warmed := func(o opener) func() error {
						s := open(b, o, true)
						fill(b, s, warm, 4<<10)
						return putter(s, size, batch)
					}
					op, plain := warmed(im.open), warmed(openPebble)
					b.SetBytes(int64(size * batch))
					b.ReportAllocs()
					turns(b, min(16, max(2, 1<<20/(size*batch))), op, "pebble", plain)
				})
			}
		}
	}
}

// BenchmarkPutLent is a batch that is durable when it is committed, whose blocks the caller lends
// (Batch.PutLent) so that other cores seal some of them; in turns with plain Pebble. What the promises
// take is done by one goroutine beside it.
func BenchmarkPutLent(b *testing.B) {
	warm := 10_000
	if testing.Short() {
		warm = 100
	}
	lent := func(dir string, sync bool) (kv, error) {
		s, err := blockseal(nil)(dir, sync)
		if err != nil {
			return nil, err
		}
		return lending{s.(*sealed)}, nil
	}
	for _, n := range []struct{ size, batch int }{{4 << 10, 16}, {4 << 10, 64}, {64 << 10, 16}} {
		for _, im := range []struct {
			name string
			open opener
		}{{"blockseal", lent}, {"pebble", openPebble}, {"promised", openPromised(random(32))}} {
			b.Run(fmt.Sprintf("size=%d/batch=%d/impl=%s", n.size, n.batch, im.name), func(b *testing.B) {
				warmed := func(o opener) func() error {
					s := open(b, o, true)
					fill(b, s, warm, 4<<10)
					return putter(s, n.size, n.batch)
				}
				op, plain := warmed(im.open), warmed(openPebble)
				b.SetBytes(int64(n.size * n.batch))
				b.ReportAllocs()
				turns(b, max(2, 1<<20/(n.size*n.batch)), op, "pebble", plain)
			})
		}
	}
}

// BenchmarkPutNoSync is a Put whose durability is left to the system, into a store that has
// been written to before. It is not measured in turns: while one has its turn, what the
// other has left to the background would be done for nothing.
func BenchmarkPutNoSync(b *testing.B) {
	bySize(b, []int{4 << 10, 64 << 10}, func(b *testing.B, size int, o opener) {
		s := open(b, o, false)
		warm := 256 << 20
		if testing.Short() {
			warm = 1 << 20
		}
		fill(b, s, warm/size, size)
		put := putter(s, size, 1)
		for b.Loop() {
			if err := put(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGet reads blocks in another order than that of their ids, from caches that
// hold them all: "hot" with blockseal's caches as they are by default, "norecords"
// without those for DEK records and sealed blocks, so that each Get looks up both.
func BenchmarkGet(b *testing.B) {
	const size = 4 << 10
	n := 10_000
	for _, cache := range []string{"hot", "norecords"} {
		for _, im := range implementations() {
			o := im.open
			if im.name == "blockseal" && cache == "norecords" {
				o = blockseal(func(o *block.Options) { o.RecordCache, o.RowCache = -1, -1 })
			}
			for _, goroutines := range []int{1, 2} {
				b.Run(fmt.Sprintf("size=%d/cache=%s/goroutines=%d/impl=%s", size, cache, goroutines, im.name), func(b *testing.B) {
					s := filled(b, o, false, n, size)
					read := func(from, count int) error {
						buf, dst := make([]byte, 0, 8), make([]byte, 0, size)
						for i := from; i < from+count; i++ {
							if _, err := s.get(id(buf, i, n), dst); err != nil {
								return err
							}
						}
						return nil
					}
					// Twice: what is read once is not kept.
					if err := errors.Join(read(0, n), read(0, n)); err != nil {
						b.Fatal(err)
					}
					b.SetBytes(size)
					b.ReportAllocs()
					b.ResetTimer()
					share(b, goroutines, read)
				})
			}
		}
	}
}

// share divides b.N operations among goroutines; f is given where to start and how many.
func share(b *testing.B, goroutines int, f func(from, count int) error) {
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	each := (b.N + goroutines - 1) / goroutines
	for g := range goroutines {
		wg.Go(func() { errs[g] = f(g*each, min(each, b.N-min(b.N, g*each))) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkScan reads all blocks in the order of their ids; an operation is a block.
func BenchmarkScan(b *testing.B) {
	bySize(b, []int{4 << 10}, func(b *testing.B, size int, o opener) {
		const n = 10_000
		s := filled(b, o, false, n, size)
		enough := errors.New("enough")
		scan := func(count int) {
			for count > 0 {
				err := s.scan(func(_, data []byte) error {
					if count--; count == 0 {
						return enough
					}
					return nil
				})
				if err != nil && !errors.Is(err, enough) {
					b.Fatal(err)
				}
			}
		}
		scan(2 * n)
		b.ResetTimer()
		scan(b.N)
	})
}
