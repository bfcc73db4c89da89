package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// ops returns what a batch says of itself: id, record or "-" for a deletion, and so on.
func (r *rig) changes(b engine.Batch) (got []string) {
	r.Helper()
	for c, next, err := b.Op(0); ; c, next, err = b.Op(next) {
		require.NoError(r, err)
		if next == 0 {
			return got
		}
		record := string(c.Record)
		if c.Deleted {
			record = "-"
		}
		got = append(got, string(c.ID), record)
	}
}

// randomBatches applies batches that put and delete few rows, in every way and often. It compares what
// a batch says of itself with the calls, also before the batch is complete and after it was refused, and
// the partition, which is empty, with a model.
func (r *rig) randomBatches() {
	rnd := rand.New(rand.NewPCG(1, 2))
	want := map[string][2]string{}
	for round := range 60 {
		b := r.p.NewBatch()
		var calls []string
		var later [][2][]byte // to be filled in with 'r' and 's'
		fill := func() {
			for _, p := range later {
				copy(p[0], bytes.Repeat([]byte{'r'}, len(p[0])))
				copy(p[1], bytes.Repeat([]byte{'s'}, len(p[1])))
			}
			later = nil
		}
		say := func() {
			fill()
			require.Equal(r, calls, r.changes(b), "round %d", round)
		}
		for n := range rnd.IntN(30) {
			id, record := strings.Repeat("i", rnd.IntN(5)), fmt.Sprintf("%d.%d", round, n)
			row, there := want[id]
			switch kind := rnd.IntN(8); {
			case kind < 3:
				sealed := strings.Repeat(record, rnd.IntN(400))
				r.fill(b, id, record, sealed)
				want[id] = [2]string{record, sealed}
			case kind < 5: // with a record that is larger than a batch's memory is at first
				record = strings.Repeat("r", 1+rnd.IntN(5000))
				sealed := strings.Repeat("s", rnd.IntN(3000))
				need := 2*len(id) + len(record) + len(sealed) + engine.RowOverhead
				if b.Spare() < need {
					fill() // what Grow may move has to be there
					require.NoError(r, b.Grow(need))
				}
				rec, place, err := b.PutLater([]byte(id), len(record), len(sealed))
				require.NoError(r, err)
				later = append(later, [2][]byte{rec, place})
				want[id] = [2]string{record, sealed}
			case kind == 5 && there:
				fill()
				require.NoError(r, b.PutRecord([]byte(id), []byte(record)))
				want[id] = [2]string{record, row[1]}
			default:
				fill()
				require.NoError(r, b.Delete([]byte(id)))
				record = "-"
				delete(want, id)
			}
			if calls = append(calls, id, record); rnd.IntN(20) == 0 {
				say()
			}
			if b.Spare() < 10_000 { // the next call may move what the batch has
				fill()
			}
		}
		say()
		if round%3 == 0 {
			require.ErrorIs(r, r.p.Apply(r.ctx, b, engine.Guard{Floor: r.p.Floor().Revision + 1}, false), engine.ErrFloor)
			say()
			r.fill(b, "", "refused", "once")
			calls, want[""] = append(calls, "", "refused"), [2]string{"refused", "once"}
		}
		require.NoError(r, r.p.Apply(r.ctx, b, r.guard(0), true))
		say()
		require.NoError(r, b.Wait())
		require.NoError(r, b.Close())
		for n := range 5 {
			id := strings.Repeat("i", n)
			if row, there := want[id]; there {
				r.is(r.p, id, row[0], row[1])
			} else {
				r.absent(r.p, id)
			}
		}
	}
}

func writeParts() []part {
	return []part{
		{"a batch happens as a whole", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "0", "0", "z", "0", "0")
			w := write(2, func(_, i int) error { return r.putBeside(string(rune('a'+i%26)), "a", "z") })
			defer w.end(t)
			for i := range 200 {
				w.turn(i)
				v, err := r.p.View(r.ctx)
				require.NoError(t, err)
				got := r.everything(v)
				require.NoError(t, v.Close())
				require.Len(t, got, 8)
				for i := 1; i < len(got); i += 2 {
					require.Equal(t, got[1], got[i], "half of a batch: %v", got)
				}
			}
		}},
		{"what is put later is filled in while the batch goes on", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("b", "0", "zero")
			r.apply(func(b engine.Batch) {
				r.fill(b, "before", "1", "one")
				for _, first := range []int{0, 100, 200} { // in an empty batch, and in one that has some
					const n, record, size = 100, 7, 3000
					require.NoError(t, b.Grow(n*(2*len("000")+record+size+engine.RowOverhead)))
					type place struct{ record, sealed []byte }
					var places []place
					for i := first; i < first+n; i++ {
						require.GreaterOrEqual(t, b.Spare(), 2*len("000")+record+size+engine.RowOverhead)
						rec, sealed, err := b.PutLater(fmt.Appendf(nil, "%03d", i), record, size)
						require.NoError(t, err)
						require.Len(t, rec, record)
						require.Len(t, sealed, size)
						places = append(places, place{rec, sealed})
					}
					for i, p := range places {
						copy(p.record, fmt.Appendf(nil, "%07d", first+i))
						copy(p.sealed, bytes.Repeat([]byte{byte(first + i)}, size))
					}
				}
				require.NoError(t, b.Delete([]byte("b")))
				r.fill(b, "after", "2", "two")
				require.NoError(t, b.PutRecord([]byte("000"), []byte("another")))
			})
			r.is(r.p, "before", "1", "one")
			r.absent(r.p, "b")
			r.is(r.p, "after", "2", "two")
			r.is(r.p, "000", "another", string(make([]byte, 3000)))
			for i := 1; i < 300; i++ {
				r.is(r.p, fmt.Sprintf("%03d", i), fmt.Sprintf("%07d", i), strings.Repeat(string([]byte{byte(i)}), 3000))
			}
		}},
		{"the last change of a row in a batch wins", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("b", "0", "zero")
			r.apply(func(b engine.Batch) {
				r.fill(b, "a", "1", "one")
				require.NoError(t, b.Delete([]byte("b")))
				r.fill(b, "c", "1", "one")
				require.NoError(t, b.Delete([]byte("a")))
				r.fill(b, "b", "2", "two")
				require.NoError(t, b.PutRecord([]byte("c"), []byte("3")))
			})
			r.absent(r.p, "a")
			r.is(r.p, "b", "2", "two")
			r.is(r.p, "c", "3", "one")
			r.delete("b")
			r.delete("c")
			r.randomBatches()
		}},
		{"a batch says what is in it", func(t T, s Subject) {
			r := newRig(t, s)
			b := r.p.NewBatch()
			require.True(t, b.Empty())
			require.Empty(t, r.changes(b))
			empty := b.Size()
			r.fill(b, "a", "record", "sealed")
			require.False(t, b.Empty())
			require.GreaterOrEqual(t, b.Size()-empty, len("a")+len("recordsealed"))
			require.NoError(t, b.Delete([]byte("b")))
			require.NoError(t, b.PutRecord([]byte("c"), []byte("another")))
			r.fill(b, "", "", "")
			require.Equal(t, []string{"a", "record", "b", "-", "c", "another", "", ""}, r.changes(b))
			c, _, err := b.Op(0)
			require.NoError(t, err)
			copy(c.Record, "RECORD")
			require.Equal(t, []string{"a", "RECORD", "b", "-", "c", "another", "", ""}, r.changes(b))
			require.NoError(t, r.p.Apply(r.ctx, b, r.guard(0), true))
			require.Equal(t, []string{"a", "RECORD", "b", "-", "c", "another", "", ""}, r.changes(b), "just after it was applied")
			require.NoError(t, b.Wait())
			require.NoError(t, b.Close())
			r.is(r.p, "a", "RECORD", "sealed")
			again := r.p.NewBatch()
			require.True(t, again.Empty(), "the memory of the one before")
			require.NoError(t, again.Close())
			again = r.p.NewBatch()
			require.NoError(t, r.p.Apply(r.ctx, again, r.guard(0), true), "an empty one")
			require.NoError(t, again.Wait())
			require.NoError(t, again.Close())
		}},
		{"a batch that is not applied changes nothing", func(t T, s Subject) {
			r := newRig(t, s)
			b := r.p.NewBatch()
			r.fill(b, "a", "1", "1")
			require.NoError(t, b.Close())
			require.Empty(t, r.everything(r.p))
		}},
		{"who wrote meanwhile wins over a replacement", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "1", "one", "b", "1", "one", "c", "1", "one", "d", "1", "one")
			r.put("b", "2", "two")
			r.delete("c")
			b := r.p.NewBatch()
			var was []engine.Was
			for _, id := range []string{"a", "b", "c", "d", "e"} {
				require.NoError(t, b.PutRecord([]byte(id), []byte("3")))
				was = append(was, engine.Was{ID: []byte(id), Record: []byte("1")})
			}
			lost, err := r.p.Replace(r.ctx, b, was)
			require.NoError(t, err)
			require.Equal(t, 3, lost)
			require.Equal(t, []string{"a", "3", "d", "3"}, r.changes(b), "it says what happened")
			require.NoError(t, b.Close())
			r.is(r.p, "a", "3", "one")
			r.is(r.p, "b", "2", "two")
			r.is(r.p, "d", "3", "one")
			for _, id := range []string{"c", "e"} {
				r.absent(r.p, id) // and not a record without a block
			}
			// The same record, written anew, is the same.
			b = r.p.NewBatch()
			r.fill(b, "a", "4", "four")
			require.NoError(t, b.Delete([]byte("d")))
			lost, err = r.p.Replace(r.ctx, b, []engine.Was{{ID: []byte("a"), Record: []byte("3")}, {ID: []byte("d"), Record: []byte("3")}})
			require.NoError(t, err)
			require.Zero(t, lost)
			require.NoError(t, b.Close())
			r.is(r.p, "a", "4", "four")
			r.absent(r.p, "d")
			require.NoError(t, r.p.Sync(r.ctx))
			// A longer record is another, and so is a shorter one.
			for _, other := range []string{"", "44", "5"} {
				b = r.p.NewBatch()
				require.NoError(t, b.PutRecord([]byte("a"), []byte("5")))
				lost, err = r.p.Replace(r.ctx, b, []engine.Was{{ID: []byte("a"), Record: []byte(other)}})
				require.NoError(t, err)
				require.Equal(t, 1, lost)
				require.True(t, b.Empty())
				require.NoError(t, b.Close())
			}
			r.is(r.p, "a", "4", "four")
		}},
		{"a change that rests on rows happens if they are as they were", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "1", "one", "b", "1", "one")
			try := func(want error, was ...engine.Was) {
				t.Helper()
				b := r.p.NewBatch()
				r.fill(b, "z", "new", "new")
				g := r.guard(0)
				g.Was = was
				require.ErrorIs(t, r.p.Apply(r.ctx, b, g, true), want)
				if want == nil {
					require.NoError(t, b.Wait())
					r.is(r.p, "z", "new", "new")
					r.delete("z")
				} else {
					r.absent(r.p, "z")
				}
				require.NoError(t, b.Close())
			}
			is := func(id, record string) engine.Was { return engine.Was{ID: []byte(id), Record: []byte(record)} }
			none := func(id string) engine.Was { return engine.Was{ID: []byte(id)} }
			try(nil)
			try(nil, is("a", "1"))
			try(nil, none("c"))
			try(nil, none(""), is("a", "1"), none("a\x00"), is("b", "1"), none("z"))
			try(engine.ErrChanged, is("a", "2"))
			try(engine.ErrChanged, is("a", ""))
			try(engine.ErrChanged, is("a", "11"))
			try(engine.ErrChanged, none("a"))
			try(engine.ErrChanged, is("c", "1"))
			try(engine.ErrChanged, is("c", ""))
			try(engine.ErrChanged, is("a", "1"), is("b", "2"))
			try(engine.ErrChanged, is("a", "2"), is("b", "1"))
			r.delete("a")
			try(engine.ErrChanged, is("a", "1"))
			try(nil, none("a"))
			b := r.p.NewBatch()
			r.fill(b, "z", "new", "new")
			g := r.guard(0)
			require.NoError(t, r.p.RaiseFloor(r.ctx, 1))
			g.Was = []engine.Was{none("a")}
			require.ErrorIs(t, r.p.Apply(r.ctx, b, g, true), engine.ErrFloor, "the floor holds as ever")
			require.NoError(t, b.Close())
		}},
		// Writers that each add one to a number lose none of them.
		{"of changes that rest on one row one happens", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("n", "0", "0")
			var done atomic.Int64
			w := write(3, func(_, _ int) error {
				var row engine.Row
				if err := r.p.Get(r.ctx, []byte("n"), engine.Record, &row); err != nil {
					return err
				}
				row.Release()
				n, err := strconv.Atoi(string(row.Record))
				if err != nil {
					return err
				}
				b := r.p.NewBatch()
				defer b.Close()
				g := r.guard(0)
				g.Was = []engine.Was{{ID: []byte("n"), Record: row.Record}}
				if err = b.PutRecord([]byte("n"), []byte(strconv.Itoa(n+1))); err == nil {
					err = r.p.Apply(r.ctx, b, g, false)
				}
				if errors.Is(err, engine.ErrChanged) {
					return nil
				}
				if err == nil {
					done.Add(1)
				}
				return err
			})
			for i := range 200 {
				w.turn(i)
			}
			w.end(t)
			r.is(r.p, "n", strconv.FormatInt(done.Load(), 10), "0")
		}},
		{"replacements lose nothing beside writers", func(t T, s Subject) {
			r := newRig(t, s)
			const ids = "abcdefgh"
			for _, id := range ids {
				r.put(string(id), "w", "w")
			}
			// Each put is of another record: whoever replaces one that was overwritten is found.
			var last atomic.Value
			w := write(1, func(_, i int) error {
				text := fmt.Sprint(last.Load(), i)
				last.Store(text[max(0, len(text)-20):])
				return r.putBeside(last.Load().(string), "d")
			})
			for i := range 200 {
				w.turn(i)
				b := r.p.NewBatch()
				var was []engine.Was
				c, err := r.p.Cursor(r.ctx, engine.Record, nil, nil)
				require.NoError(t, err)
				for ok := c.First(); ok; ok = c.Next() {
					v, err := c.Value()
					require.NoError(t, err)
					was = append(was, engine.Was{ID: append([]byte{}, c.ID()...), Record: append([]byte{}, v...)})
					require.NoError(t, b.PutRecord(c.ID(), v))
				}
				require.NoError(t, c.Close())
				_, err = r.p.Replace(r.ctx, b, was)
				require.NoError(t, err)
				require.NoError(t, b.Close())
			}
			w.end(t)
			r.is(r.p, "d", last.Load().(string), last.Load().(string))
		}},
	}
}
