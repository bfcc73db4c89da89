package enginetest

import (
	"context"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

func readParts() []part {
	return []part{
		{"a row reads as it was put", func(t T, s Subject) {
			r := newRig(t, s)
			r.absent(r.p, "a")
			r.put("a", "record", "sealed")
			r.is(r.p, "a", "record", "sealed")
			r.put("a", "another", "")
			r.is(r.p, "a", "another", "")
			r.delete("a")
			r.absent(r.p, "a")
			r.delete("a") // which does not exist
			r.put("a", "", "again")
			r.is(r.p, "a", "", "again")
		}},
		{"parts are as they were asked for", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "record a", "sealed a", "b", "record b", "sealed b")
			row := engine.Row{Record: []byte("the caller's")}
			require.NoError(t, r.p.Get(r.ctx, []byte("a"), engine.Sealed, &row))
			require.Equal(t, engine.Sealed, row.Has)
			require.Equal(t, "sealed a", string(row.Sealed))
			require.Equal(t, "the caller's", string(row.Record), "it was not asked for")
			require.NoError(t, r.p.Get(r.ctx, []byte("b"), engine.Record, &row))
			require.Equal(t, engine.Record, row.Has)
			require.Equal(t, "record b", string(row.Record))
			require.Nil(t, row.Sealed, "what was there before is let go of")
			require.NoError(t, r.p.Get(r.ctx, []byte("a"), engine.Both, &row))
			require.ErrorIs(t, r.p.Get(r.ctx, []byte("c"), engine.Both, &row), engine.ErrNotFound)
			require.Zero(t, row.Has)
			row.Release()
			row.Release()
			require.NoError(t, r.p.Get(r.ctx, []byte("a"), engine.Both, &row), "after a Release")
			require.Equal(t, "record a", string(row.Record))
			row.Release()
			// A record without a row makes a row of one part.
			r.apply(func(b engine.Batch) { require.NoError(t, b.PutRecord([]byte("half"), []byte("record"))) })
			for _, want := range []engine.Parts{engine.Both, engine.Both | engine.Together} {
				require.NoError(t, r.p.Get(r.ctx, []byte("half"), want, &row))
				require.Equal(t, engine.Record, row.Has)
				row.Release()
			}
			require.ErrorIs(t, r.p.Get(r.ctx, []byte("half"), engine.Sealed, &row), engine.ErrNotFound)
			row.Release()
			require.NoError(t, r.p.Get(r.ctx, []byte("a"), engine.Record|engine.Together, &row), "together with nothing")
			require.Equal(t, "record a", string(row.Record))
			require.NoError(t, r.p.Get(r.ctx, []byte("a"), engine.Sealed|engine.Together, &row))
			require.Equal(t, "sealed a", string(row.Sealed))
			// Get releases what row has from the call before, even if Get is refused.
			v, err := r.p.View(r.ctx)
			require.NoError(t, err)
			ended, cancel := context.WithCancel(r.ctx)
			cancel()
			for name, from := range map[string]engine.Reader{"partition": r.p, "view": v} {
				require.NoError(t, from.Get(r.ctx, []byte("a"), engine.Both, &row), name)
				require.Error(t, from.Get(ended, []byte("b"), engine.Both, &row), name)
				require.Zero(t, row.Has, name)
				require.Nil(t, row.Sealed, name)
			}
			require.NoError(t, v.Close())
		}},
		{"ids are any bytes", func(t T, s Subject) {
			r := newRig(t, s)
			ids := []string{"", "\x00", "\x00\x00", "a", "a\x00", "a\x00b", "aa", "ab", "b", "\xff", "\xff\x00", "\xff\xff", "\xff\xff\xff\xff\xff",
				strings.Repeat("x", engine.MaxID-1), strings.Repeat("x", engine.MaxID), strings.Repeat("\xff", engine.MaxID)}
			for i, id := range ids {
				r.put(id, "record "+string(rune('a'+i)), "sealed "+string(rune('a'+i)))
			}
			for i, id := range ids {
				r.is(r.p, id, "record "+string(rune('a'+i)), "sealed "+string(rune('a'+i)))
			}
			var walked []string
			for i, s := range r.walk(r.p, engine.Record, nil, nil) {
				if i%2 == 0 {
					walked = append(walked, s)
				}
			}
			require.IsIncreasing(t, walked)
			require.ElementsMatch(t, ids, walked)
			for i, id := range ids {
				r.delete(id)
				r.absent(r.p, id)
				if i+1 < len(ids) {
					r.is(r.p, ids[i+1], "record "+string(rune('b'+i)), "sealed "+string(rune('b'+i)))
				}
			}
			require.Empty(t, r.everything(r.p))
		}},
		{"sealed blocks of any size", func(t T, s Subject) {
			r := newRig(t, s)
			for _, n := range []int{0, 1, 1023, 1024, 1025, 1 << 20, 9 << 20} {
				want := strings.Repeat(string(rune('a'+n%26)), n)
				r.put("a", strings.Repeat("r", n%700), want)
				r.is(r.p, "a", strings.Repeat("r", n%700), want)
			}
		}},
		{"what is given is not kept", func(t T, s Subject) {
			r := newRig(t, s)
			id, record := []byte("a"), []byte("record")
			b := r.p.NewBatch()
			_, err := b.Put(id, record, 0)
			require.NoError(t, err)
			id[0], record[0] = 'x', 'x'
			require.NoError(t, b.Delete(id))
			id[0] = 'y'
			require.NoError(t, r.p.Apply(r.ctx, b, r.guard(0), false))
			require.NoError(t, b.Close())
			r.is(r.p, "a", "record", "")
			var row engine.Row
			require.NoError(t, r.p.Get(r.ctx, []byte("a"), engine.Both, &row))
			row.Record[0] = 'x' // the caller's
			row.Release()
			r.is(r.p, "a", "record", "")

			id, record = []byte("b"), []byte("record")
			b = r.p.NewBatch()
			room, err := b.Put(id, record, 6)
			require.NoError(t, err)
			copy(room, "sealed")
			require.NoError(t, r.p.Apply(r.ctx, b, r.guard(0), true))
			require.NoError(t, b.Wait())
			id[0], record[0] = 'x', 'x'
			require.NoError(t, b.Close())
			r.is(r.p, "b", "record", "sealed")
			r.absent(r.p, "x")
			id, record = []byte("b"), []byte("another")
			b = r.p.NewBatch()
			require.NoError(t, b.PutRecord(id, record))
			id[0], record[0] = 'x', 'x'
			was := []engine.Was{{ID: []byte("b"), Record: []byte("record")}}
			lost, err := r.p.Replace(r.ctx, b, was)
			require.NoError(t, err)
			require.Zero(t, lost)
			was[0].ID[0], was[0].Record[0] = 'x', 'x'
			require.NoError(t, b.Close())
			r.is(r.p, "b", "another", "sealed")

			lower, upper := []byte("b"), []byte("c")
			c, err := r.p.Cursor(r.ctx, engine.Record, lower, upper)
			require.NoError(t, err)
			cloned, err := c.Clone(engine.Sealed, lower, upper)
			require.NoError(t, err)
			lower[0], upper[0] = 'a', 'a'
			require.Equal(t, []string{"b", "another"}, r.rest(c, c.First()))
			require.Equal(t, []string{"b", "sealed"}, r.rest(cloned, cloned.First()))
			seek := []byte("b")
			require.True(t, c.SeekGE(seek))
			seek[0] = 'x'
			require.Equal(t, "b", string(c.ID()))
			require.NoError(t, cloned.Close())
			require.NoError(t, c.Close())

			keks := []uint32{3}
			require.NoError(t, r.p.RefuseKEKs(r.ctx, keks))
			keks[0] = 4
			require.Equal(t, []uint32{3}, r.p.Floor().KEKs)
		}},
		{"a view is one state", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "1", "one", "b", "1", "one")
			v, err := r.p.View(r.ctx)
			require.NoError(t, err)
			before := r.everything(v)
			c, err := v.Cursor(r.ctx, engine.Record, nil, nil)
			require.NoError(t, err)
			require.True(t, c.First())
			r.put("a", "2", "two", "aa", "2", "two")
			r.delete("b")
			r.is(v, "a", "1", "one")
			r.is(v, "b", "1", "one")
			r.absent(v, "aa")
			require.Equal(t, before, r.everything(v))
			require.Equal(t, []string{"a", "1", "b", "1"}, r.rest(c, c.Valid()))
			require.NoError(t, c.Close())
			require.NoError(t, v.Close())
			r.is(r.p, "a", "2", "two")
			r.absent(r.p, "b")
		}},
		{"parts that are wanted together are of one state", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "0", "0")
			w := write(1, func(_, i int) error { return r.putBeside(strings.Repeat(string(rune('a'+i%26)), 1+i%3), "a") })
			defer w.end(t)
			var row engine.Row
			for i := range 500 {
				w.turn(i)
				require.NoError(t, r.p.Get(r.ctx, []byte("a"), engine.Both|engine.Together, &row))
				require.Equal(t, string(row.Record), string(row.Sealed))
				row.Release()
			}
			for i := range 100 {
				w.turn(i)
				v, err := r.p.View(r.ctx)
				require.NoError(t, err)
				require.NoError(t, v.Get(r.ctx, []byte("a"), engine.Both, &row))
				require.Equal(t, string(row.Record), string(row.Sealed))
				row.Release()
				require.NoError(t, v.Close())
				c, err := r.p.Cursor(r.ctx, engine.Record, nil, nil)
				require.NoError(t, err)
				other, err := c.Clone(engine.Sealed, nil, nil)
				require.NoError(t, err)
				require.Equal(t, r.rest(c, c.First()), r.rest(other, other.First()))
				require.NoError(t, c.Close())
				require.NoError(t, other.Close())
			}
		}},
		{"partitions have nothing in common", func(t T, s Subject) {
			one := newRig(t, s)
			numbers := []uint32{0, 1, 6, 7, 8, 255, 256, 1<<32 - 2, 1<<32 - 1}
			name := func(n uint32) string { return "of " + string(rune('A'+n%26)) }
			rigs := map[uint32]*rig{}
			for _, n := range numbers {
				r := one.in(n)
				rigs[n] = r
				require.Empty(t, r.everything(r.p))
				_, _, err := r.p.LoadMeta(r.ctx, "name")
				require.ErrorIs(t, err, engine.ErrNotFound)
				r.put("a", name(n), name(n), "\xff\xff\xff\xff\xff", name(n), name(n))
				_, err = r.swap("name", 0, []byte(name(n)))
				require.NoError(t, err)
			}
			for _, n := range numbers {
				r := rigs[n]
				want := []string{"a", name(n), "\xff\xff\xff\xff\xff", name(n)}
				require.Equal(t, append(want, want...), r.everything(r.p))
				got, _ := r.meta("name")
				require.Equal(t, name(n), got)
				c, err := r.p.Cursor(r.ctx, engine.Sealed, nil, nil)
				require.NoError(t, err)
				require.True(t, c.Last())
				require.Equal(t, "\xff\xff\xff\xff\xff", string(c.ID()))
				require.False(t, c.SeekGE([]byte("\xff\xff\xff\xff\xff\x00")))
				require.NoError(t, c.Close())
			}
			rigs[7].delete("a")
			require.NoError(t, rigs[7].p.RaiseFloor(one.ctx, 5))
			require.Zero(t, rigs[8].p.Floor().Epoch)
			rigs[8].is(rigs[8].p, "a", name(8), name(8))
			b := rigs[7].p.NewBatch()
			rigs[7].fill(b, "b", "1", "1")
			require.Error(t, rigs[8].p.Apply(one.ctx, b, rigs[8].guard(0), false), "a batch of another partition")
			require.NoError(t, b.Close())
			rigs[7].absent(rigs[7].p, "b")
			rigs[8].absent(rigs[8].p, "b")
		}},
	}
}
