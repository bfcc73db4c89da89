package bench

import (
	"context"
	"testing"

	"github.com/blockseal/blockseal/block"
)

// BenchmarkScanStart is a scan that stops after 10 blocks, from some place on or back from it, in turns
// with 10 Gets of the same blocks that no cache of blockseal's has: what a page of a list costs.
func BenchmarkScanStart(b *testing.B) {
	const n, size, page = 10_000, 4 << 10, 10
	for _, back := range []bool{false, true} {
		name := "order=forward/impl=blockseal"
		if back {
			name = "order=reverse/impl=blockseal"
		}
		b.Run(name, func(b *testing.B) {
			o := blockseal(func(o *block.Options) { o.RecordCache, o.RowCache = -1, -1 })
			s := filled(b, o, false, n, size).(*sealed)
			ctx := context.Background()
			var ids [][]byte
			for id, err := range s.IDs(ctx, block.Range{}) {
				if err != nil {
					b.Fatal(err)
				}
				ids = append(ids, append([]byte(nil), id...))
			}
			at := 0
			next := func() int { at = (at + 7919) % (n - 2*page); return at + page }
			scan := func() error {
				r := block.Range{Reverse: back}
				if i := next(); back {
					r.End = ids[i]
				} else {
					r.Start = ids[i]
				}
				left := page
				for _, err := range s.Blocks(ctx, r) {
					if err != nil {
						return err
					}
					if left--; left == 0 {
						break
					}
				}
				return nil
			}
			dst := make([]byte, 0, size)
			gets := func() error {
				i := next()
				for k := range page {
					if _, err := s.get(ids[i+k], dst); err != nil {
						return err
					}
				}
				return nil
			}
			b.ReportAllocs()
			turns(b, 50, scan, "gets", gets)
		})
	}
}
