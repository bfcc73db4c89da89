package postgres

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/test/seed"
)

// Several changes of one row are one change, and rows are in the order of their ids.
func TestChangesOfOneRowAreFolded(t *testing.T) {
	put := func(id, text string) func(b engine.Batch) {
		return func(b engine.Batch) {
			room, _ := b.Put([]byte(id), []byte("r "+text), len(text))
			copy(room, text)
		}
	}
	record := func(id, text string) func(b engine.Batch) {
		return func(b engine.Batch) { _ = b.PutRecord([]byte(id), []byte("r "+text)) }
	}
	remove := func(id string) func(b engine.Batch) { return func(b engine.Batch) { _ = b.Delete([]byte(id)) } }
	for _, tt := range []struct {
		of   []func(b engine.Batch)
		want string
	}{
		{nil, ""},
		{[]func(engine.Batch){put("b", "1"), put("a", "2"), remove("c")}, "a=r 2/2 b=r 1/1 c- "},
		{[]func(engine.Batch){put("a", "1"), put("a", "2")}, "a=r 2/2 "},
		{[]func(engine.Batch){put("a", "1"), record("a", "2")}, "a=r 2/1 "},
		{[]func(engine.Batch){record("a", "1"), record("a", "2")}, "a=r 2 "},
		{[]func(engine.Batch){record("a", "1"), put("a", "2")}, "a=r 2/2 "},
		{[]func(engine.Batch){put("a", "1"), remove("a")}, "a- "},
		{[]func(engine.Batch){remove("a"), put("a", "1")}, "a=r 1/1 "},
		{[]func(engine.Batch){remove("a"), record("a", "1")}, "a=r 1/none "},
		{[]func(engine.Batch){remove("a"), record("a", "1"), record("a", "2")}, "a=r 2/none "},
		{[]func(engine.Batch){put("a", ""), remove("a"), remove("a")}, "a- "},
	} {
		b := (&partition{}).NewBatch().(*batch)
		for _, f := range tt.of {
			f(b)
		}
		got := ""
		for _, c := range b.folded() {
			got += string(c.id)
			switch {
			case c.kind == deletion:
				got += "-"
			case c.kind == recordOnly:
				got += "=" + string(c.record)
			case c.sealed == nil:
				got += "=" + string(c.record) + "/none"
			default:
				got += "=" + string(c.record) + "/" + string(c.sealed)
			}
			got += " "
		}
		require.Equal(t, tt.want, got)
	}
}

// Ids are ordered as their heads are, and what is left of them; and what differs has another key.
func TestKeysAreOrderedAsIDs(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	id := func() []byte {
		out := bytes.Repeat([]byte{'x'}, []int{0, headSize - 2, headSize - 1, headSize, headSize + 1}[rng.IntN(5)])
		for range rng.IntN(4) {
			out = append(out, "\x00x\xff"[rng.IntN(3)])
		}
		return out
	}
	for range 20_000 {
		a, b := id(), id()
		ka, kb := split(a), split(b)
		order := bytes.Compare(ka.head, kb.head)
		if order == 0 {
			order = bytes.Compare(ka.rest, kb.rest)
		}
		require.Equal(t, bytes.Compare(a, b), order, "%q, %q", a, b)
		require.Equal(t, bytes.Equal(a, b), bytes.Equal(ka.head, kb.head) && bytes.Equal(ka.long, kb.long))
		require.Equal(t, string(a), string(join(nil, ka.head, ka.rest)))
		require.LessOrEqual(t, len(ka.head)+len(ka.long), headSize+sha256.Size)
	}
	require.NotNil(t, split(nil).head, "which would be NULL")
}

// A batch that is too large for one message, or has more rows, happens as a whole all the same.
func TestLargeBatches(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("old", "deleted")
	for name, of := range map[string]struct{ rows, size int }{
		"of large blocks": {7, 2 << 20},
		"of many rows":    {statementsAtOnce*2 + 7, 5},
		"of one block":    {1, 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			b := r.p.NewBatch()
			for i := range of.rows {
				room, err := b.Put(fmt.Appendf(nil, "%s %d", name, i), []byte("new"), of.size)
				require.NoError(t, err)
				room[0], room[of.size-1] = byte(i), byte(i)
			}
			require.NoError(t, b.Delete([]byte("deleted")))
			require.NoError(t, r.p.Apply(r.ctx, b, r.guard(), true))
			require.NoError(t, b.Close())
			var row engine.Row
			for _, i := range []int{0, of.rows / 2, of.rows - 1} {
				require.NoError(t, r.p.Get(r.ctx, fmt.Appendf(nil, "%s %d", name, i), engine.Both, &row))
				require.Len(t, row.Sealed, of.size)
				require.Equal(t, byte(i), row.Sealed[of.size-1])
			}
			row.Release()
			require.LessOrEqual(t, cap(row.Held.(*held).sealed), keptBytes)
		})
	}
	require.Empty(t, r.value("deleted"))
	// What fails at its end leaves nothing of its begin: the last row cannot be stored.
	exec(t, r.s, fmt.Sprintf(`alter table %s.rows add check (record <> 'bad')`, r.o.Schema))
	b := r.p.NewBatch()
	for i := range statementsAtOnce + 10 {
		_, err := b.Put(fmt.Appendf(nil, "z %06d", i), []byte("x"), 1)
		require.NoError(t, err)
	}
	require.NoError(t, b.Delete([]byte("of many rows 1")))
	_, err := b.Put([]byte("zz"), []byte("bad"), 1)
	require.NoError(t, err)
	err = r.p.Apply(r.ctx, b, r.guard(), true)
	require.Equal(t, "23514", code(err))
	require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
	require.Empty(t, one[string](r, r.session(), `select coalesce(string_agg(encode(id, 'escape'), ','), '') from rows where id like 'z%'`))
}

// Replacements of more rows than go at once lose none beside a writer, and say which they left.
func TestReplaceOfManyRows(t *testing.T) {
	r := newRig(t, shared(t))
	const rows = statementsAtOnce + 100
	var ids []string
	var was []engine.Was
	for i := range rows {
		ids = append(ids, fmt.Sprintf("%s %06d", strings.Repeat("x", i%3), i))
	}
	r.put("old", ids...)
	c, err := r.p.Cursor(r.ctx, engine.Record, nil, nil)
	require.NoError(t, err)
	b := r.p.NewBatch()
	for ok := c.First(); ok; ok = c.Next() {
		was = append(was, engine.Was{ID: c.ID(), Record: []byte("old")})
		require.NoError(t, b.PutRecord(c.ID(), []byte("new")))
	}
	require.NoError(t, c.Close())
	require.Len(t, was, rows)
	r.put("theirs", ids[3], ids[500], ids[rows-1])
	lost, err := r.p.Replace(r.ctx, b, was)
	require.NoError(t, err)
	require.Equal(t, 3, lost)
	n := 0
	for _, next, _ := b.Op(0); next > 0; _, next, _ = b.Op(next) {
		n++
	}
	require.Equal(t, rows-3, n)
	require.NoError(t, b.Close())
	count := one[int](r, r.session(), `select count(*) from rows where record = 'new' and data = 'old'`)
	require.Equal(t, rows-3, count)
	require.Equal(t, "theirs", r.value(ids[500]))
}

// A clear goes through any number of rows, and of long ids that have one head.
func TestClearOfManyRows(t *testing.T) {
	r := newRig(t, shared(t))
	c := r.session()
	r.exec(c, fmt.Sprintf(`insert into rows select 7, int8send(n), '', '', 'r', 'd' from generate_series(1, %d) n;
		insert into rows select 7, decode(repeat('7a', %d), 'hex'), int8send(n), int8send(n), 'r', 'd' from generate_series(1, %d) n;
		insert into rows select 8, 'theirs', '', '', 'r', 'd'`, 2*clearedAtOnce+3, headSize, clearedAtOnce+3))
	require.NoError(t, r.p.Clear(r.ctx))
	require.Equal(t, 1, one[int](r, c, `select count(*) from rows`))
	require.NoError(t, r.p.Clear(r.ctx), "again")
}
