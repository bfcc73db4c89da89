package enginetest

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

func floorParts() []part {
	return []part{
		{"the floor lets pass what is at it", func(t T, s Subject) {
			r := newRig(t, s)
			try := func(id string, g engine.Guard) error {
				b := r.p.NewBatch()
				r.fill(b, id, "record", "sealed")
				err := r.p.Apply(r.ctx, b, g, false)
				require.NoError(t, b.Close())
				return err
			}
			require.Zero(t, r.p.Floor().Epoch)
			require.Empty(t, r.p.Floor().KEKs)
			require.NoError(t, try("any", r.guard(0)))
			before := r.p.Floor()
			require.NoError(t, r.p.RaiseFloor(r.ctx, 5))
			require.EqualValues(t, 5, r.p.Floor().Epoch)
			require.ErrorIs(t, try("below", r.guard(4)), engine.ErrFloor)
			require.NoError(t, try("at", r.guard(5)))
			require.NoError(t, try("above", r.guard(6)))
			require.NoError(t, try("highest", r.guard(1<<32-1)))
			require.ErrorIs(t, try("another revision", engine.Guard{Floor: before.Revision, Epoch: 6}), engine.ErrFloor)
			require.ErrorIs(t, try("another revision", engine.Guard{Floor: before.Revision, Epoch: 4, Below: true}), engine.ErrFloor)
			require.ErrorIs(t, try("another revision", engine.Guard{Floor: r.p.Floor().Revision + 1, Epoch: 6}), engine.ErrFloor)
			g := r.guard(4)
			g.Below = true
			require.NoError(t, try("with reasons", g))
			g = r.guard(9)
			require.NoError(t, r.p.RefuseKEKs(r.ctx, []uint32{1}))
			require.ErrorIs(t, try("before KEKs were refused", g), engine.ErrFloor, "its KEK may be one of them")
			g = r.guard(9)
			require.NoError(t, r.p.RefuseKEKs(r.ctx, nil))
			require.ErrorIs(t, try("before KEKs were refused", g), engine.ErrFloor, "it went by what was refused")
			for _, id := range []string{"below", "another revision", "before KEKs were refused"} {
				r.absent(r.p, id)
			}
			for _, id := range []string{"any", "at", "above", "highest", "with reasons"} {
				r.is(r.p, id, "record", "sealed")
			}
		}},
		{"the floor rises, and each rise is another", func(t T, s Subject) {
			r := newRig(t, s)
			seen := map[uint64]bool{r.p.Floor().Revision: true}
			again := func() {
				t.Helper()
				require.False(t, seen[r.p.Floor().Revision], "the revision is one of before")
				seen[r.p.Floor().Revision] = true
			}
			for _, tt := range []struct{ to, is uint32 }{{5, 5}, {5, 5}, {4, 5}, {0, 5}, {6, 6}} {
				require.NoError(t, r.p.RaiseFloor(r.ctx, tt.to))
				require.Equal(t, tt.is, r.p.Floor().Epoch)
				again()
			}
			keks := []uint32{3, 9}
			require.NoError(t, r.p.RefuseKEKs(r.ctx, keks))
			keks[0] = 4
			require.Equal(t, []uint32{3, 9}, r.p.Floor().KEKs)
			require.EqualValues(t, 6, r.p.Floor().Epoch)
			again()
			require.NoError(t, r.p.RaiseFloor(r.ctx, 7))
			require.Equal(t, []uint32{3, 9}, r.p.Floor().KEKs)
			again()
			require.NoError(t, r.p.RefuseKEKs(r.ctx, nil))
			require.Empty(t, r.p.Floor().KEKs)
			again()
			// The partition has another store now, which does not know the floor of before.
			other := r.in(7)
			require.Zero(t, other.p.Floor().Epoch)
			require.Empty(t, other.p.Floor().KEKs)
		}},
		{"a batch that the floor refused can be mended", func(t T, s Subject) {
			r := newRig(t, s)
			require.NoError(t, r.p.RaiseFloor(r.ctx, 2))
			b := r.p.NewBatch()
			r.fill(b, "a", "1", "one")
			require.ErrorIs(t, r.p.Apply(r.ctx, b, r.guard(1), true), engine.ErrFloor)
			r.absent(r.p, "a")
			c, next, err := b.Op(0)
			require.NoError(t, err)
			require.NotZero(t, next)
			copy(c.Record, "2")
			require.NoError(t, r.p.Apply(r.ctx, b, r.guard(2), true))
			require.NoError(t, b.Wait())
			require.NoError(t, b.Close())
			r.is(r.p, "a", "2", "one")
		}},
		// A rotation of the epoch rests on this: once the floor is raised, a walk finds all that is
		// below it, and nothing below it comes behind the walk.
		{"nothing lower comes behind a raised floor", func(t T, s Subject) {
			r := newRig(t, s)
			w := write(4, func(w, i int) error {
				f := r.p.Floor()
				b := r.p.NewBatch()
				defer b.Close()
				_, err := b.Put([]byte{byte(w), byte(i % 16)}, binary.BigEndian.AppendUint32(nil, f.Epoch), 0)
				if err == nil {
					err = r.p.Apply(r.ctx, b, engine.Guard{Floor: f.Revision, Epoch: f.Epoch}, false)
				}
				if errors.Is(err, engine.ErrFloor) {
					return nil
				}
				return err
			})
			defer w.end(t)
			low := func(epoch uint32) (was []engine.Was) {
				c, err := r.p.Cursor(r.ctx, engine.Record, nil, nil)
				require.NoError(t, err)
				for ok := c.First(); ok; ok = c.Next() {
					v, err := c.Value()
					require.NoError(t, err)
					if binary.BigEndian.Uint32(v) < epoch {
						was = append(was, engine.Was{ID: slices.Clone(c.ID()), Record: slices.Clone(v)})
					}
				}
				require.NoError(t, c.Close())
				return was
			}
			for epoch := uint32(1); epoch <= 150; epoch++ {
				w.turn(int(epoch))
				require.NoError(t, r.p.RaiseFloor(r.ctx, epoch))
				if was := low(epoch); len(was) > 0 {
					b := r.p.NewBatch()
					for _, w := range was {
						require.NoError(t, b.PutRecord(w.ID, binary.BigEndian.AppendUint32(nil, epoch)))
					}
					_, err := r.p.Replace(r.ctx, b, was)
					require.NoError(t, err)
					require.NoError(t, b.Close())
				}
				w.turn(int(epoch))
				require.Empty(t, low(epoch), "behind the walk of epoch %d", epoch)
			}
		}},
	}
}
