package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/blockseal/blockseal/block"
)

// BenchmarkScanBound is a scan of all blocks, forward and back, in turns with what no scan can beat:
// GOMAXPROCS goroutines that open as many blocks which lie in memory, each a share of its own, with
// the least that the promises take. They read nothing from an engine, keep no order and hand out nothing.
// impl=promised is as many goroutines that read as well, each a share of plain Pebble with a second entry for
// each block: what a scan could come to that has to read, and still neither keeps an order nor hands out anything.
// An operation is a scan.
func BenchmarkScanBound(b *testing.B) {
	n, size := 10_000, 4<<10
	if testing.Short() {
		n = 500
	}
	bound := openers(b, n, size)
	for _, back := range []bool{false, true} {
		order := "forward"
		if back {
			order = "reverse"
		}
		b.Run(fmt.Sprintf("size=%d/order=%s/impl=blockseal", size, order), func(b *testing.B) {
			s := filled(b, blockseal(nil), false, n, size).(*sealed)
			scan := func() error {
				left := n
				for _, err := range s.Blocks(context.Background(), block.Range{Reverse: back}) {
					if err != nil {
						return err
					}
					left--
				}
				if left != 0 {
					return fmt.Errorf("the scan had %d blocks fewer", left)
				}
				return nil
			}
			if err := scan(); err != nil { // the block cache is filled
				b.Fatal(err)
			}
			b.SetBytes(int64(n * size))
			b.ReportAllocs()
			turns(b, 1, scan, "bound", bound)
		})
		b.Run(fmt.Sprintf("size=%d/order=%s/impl=promised", size, order), func(b *testing.B) {
			scan := readers(filled(b, openPromised(random(32)), false, n, size).(*promisedStore), n, back)
			if err := scan(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(n * size))
			b.ReportAllocs()
			turns(b, 1, scan, "bound", bound)
		})
	}
}

// readers returns what reads and opens a store's n blocks with as many goroutines as there are
// processors, each a share of the ids, which lie evenly.
func readers(s *promisedStore, n int, back bool) func() error {
	workers := runtime.GOMAXPROCS(0)
	at := func(g int) []byte {
		if g == 0 || g == workers {
			return nil
		}
		return binary.BigEndian.AppendUint64(nil, math.MaxUint64/uint64(workers)*uint64(g))
	}
	return func() error {
		var wg sync.WaitGroup
		errs, read := make([]error, workers), make([]int, workers)
		for g := range workers {
			wg.Go(func() {
				errs[g] = s.walk(at(g), at(g+1), back, func(_, _ []byte) error { read[g]++; return nil })
			})
		}
		wg.Wait()
		all := 0
		for _, r := range read {
			all += r
		}
		if all != n {
			errs = append(errs, fmt.Errorf("%d blocks were read, not %d", all, n))
		}
		return errors.Join(errs...)
	}
}

// openers returns what opens n blocks with as many goroutines as there are processors.
func openers(b *testing.B, n, size int) func() error {
	b.Helper()
	type row struct{ wrapped, sealed []byte }
	key, data := random(32), random(size)
	p := newPromised(key)
	rows := make([]row, n)
	for i := range rows {
		if err := p.newKey(); err != nil {
			b.Fatal(err)
		}
		rows[i] = row{append([]byte(nil), p.wrapped...), p.seal(nil, data)}
	}
	workers := runtime.GOMAXPROCS(0)
	each := (n + workers - 1) / workers
	type opener struct {
		*promised
		dst []byte
	}
	openers := make([]opener, workers)
	for g := range openers {
		openers[g] = opener{newPromised(key), make([]byte, 0, size)}
	}
	return func() error {
		var wg sync.WaitGroup
		errs := make([]error, workers)
		for g, o := range openers {
			wg.Go(func() {
				for _, r := range rows[min(g*each, n):min((g+1)*each, n)] {
					if _, err := o.open(o.dst, r.wrapped, r.sealed); err != nil {
						errs[g] = err
						return
					}
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
}
