package enginetest

import (
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

func cursorParts() []part {
	both := []engine.Parts{engine.Record, engine.Sealed}
	return []part{
		{"a cursor has its lower bound and not its upper", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("b", "1", "1", "b\x00", "2", "2", "c", "3", "3", "d", "4", "4")
			for _, tt := range []struct {
				lower, upper []byte
				want         []string
			}{
				{nil, nil, []string{"b", "1", "b\x00", "2", "c", "3", "d", "4"}},
				{[]byte{}, nil, []string{"b", "1", "b\x00", "2", "c", "3", "d", "4"}},
				{nil, []byte{}, nil},
				{[]byte("b"), []byte("d"), []string{"b", "1", "b\x00", "2", "c", "3"}},
				{[]byte("b\x00"), []byte("c"), []string{"b\x00", "2"}},
				{[]byte("b"), []byte("b\x00"), []string{"b", "1"}},
				{[]byte("b"), []byte("b"), nil},
				{[]byte("b\x01"), []byte("c\x00"), []string{"c", "3"}},
				{[]byte("d"), []byte("b"), nil},
				{[]byte("d\x00"), nil, nil},
				{nil, []byte("b"), nil},
			} {
				for _, part := range both {
					require.Equal(t, tt.want, r.walk(r.p, part, tt.lower, tt.upper), "[%q, %q)", tt.lower, tt.upper)
					c, err := r.p.Cursor(r.ctx, part, tt.lower, tt.upper)
					require.NoError(t, err)
					require.Equal(t, len(tt.want) > 0, c.Last(), "[%q, %q)", tt.lower, tt.upper)
					if len(tt.want) > 0 {
						require.Equal(t, tt.want[len(tt.want)-2], string(c.ID()))
					}
					require.Equal(t, tt.want, r.rest(c, c.SeekGE(nil)), "what is before the bound is at it")
					require.Equal(t, tt.want, r.back(c, c.Last()), "backwards, [%q, %q)", tt.lower, tt.upper)
					require.Equal(t, tt.want, r.back(c, c.SeekLT([]byte("\xff"))), "what is behind the bound is at it")
					clone, err := c.Clone(part, tt.lower, tt.upper)
					require.NoError(t, err)
					require.Equal(t, tt.want, r.rest(clone, clone.First()))
					require.NoError(t, clone.Close())
					require.NoError(t, c.Close())
				}
			}
		}},
		{"a cursor seeks", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("b", "1", "1", "b\x00", "2", "2", "c", "3", "3", "d", "4", "4")
			c, err := r.p.Cursor(r.ctx, engine.Sealed, []byte("b\x00"), []byte("d"))
			require.NoError(t, err)
			defer c.Close()
			require.False(t, c.Valid(), "it is on no row at first")
			for _, tt := range []struct{ to, at string }{{"", "b\x00"}, {"b", "b\x00"}, {"b\x00", "b\x00"}, {"b\x00\x00", "c"}, {"c", "c"},
				{"c\x00", ""}, {"d", ""}, {"\xff", ""}, {"b", "b\x00"}} {
				require.Equal(t, tt.at != "", c.SeekGE([]byte(tt.to)), "%q", tt.to)
				require.Equal(t, tt.at != "", c.Valid(), "%q", tt.to)
				if tt.at != "" {
					require.Equal(t, tt.at, string(c.ID()), "%q", tt.to)
				}
				require.NoError(t, c.Err())
			}
			require.True(t, c.SeekGE([]byte("b")))
			require.True(t, c.Next())
			require.Equal(t, "c", string(c.ID()))
			require.False(t, c.Next())
			require.True(t, c.First())
			require.Equal(t, "b\x00", string(c.ID()))
			v, err := c.Value()
			require.NoError(t, err)
			require.Equal(t, "2", string(v))
		}},
		{"a cursor goes back and turns round", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("b", "1", "1", "b\x00", "2", "2", "c", "3", "3", "d", "4", "4")
			c, err := r.p.Cursor(r.ctx, engine.Sealed, []byte("b\x00"), []byte("d"))
			require.NoError(t, err)
			defer c.Close()
			for _, tt := range []struct{ to, at string }{{"", ""}, {"b", ""}, {"b\x00", ""}, {"b\x00\x00", "b\x00"}, {"c", "b\x00"},
				{"c\x00", "c"}, {"d", "c"}, {"d\x00", "c"}, {"\xff", "c"}, {"a", ""}} {
				require.Equal(t, tt.at != "", c.SeekLT([]byte(tt.to)), "%q", tt.to)
				require.Equal(t, tt.at != "", c.Valid(), "%q", tt.to)
				if tt.at != "" {
					require.Equal(t, tt.at, string(c.ID()), "%q", tt.to)
				}
				require.NoError(t, c.Err())
			}
			require.True(t, c.Last())
			require.Equal(t, "c", string(c.ID()))
			require.True(t, c.Prev())
			require.Equal(t, "b\x00", string(c.ID()))
			v, err := c.Value()
			require.NoError(t, err)
			require.Equal(t, "2", string(v))
			require.True(t, c.Next())
			require.Equal(t, "c", string(c.ID()))
			require.True(t, c.Prev())
			require.False(t, c.Prev())
			require.False(t, c.Valid())
			require.True(t, c.Next(), "from before the first")
			require.Equal(t, "b\x00", string(c.ID()))
			require.True(t, c.Last())
			require.False(t, c.Next())
			require.True(t, c.Prev(), "from behind the last")
			require.Equal(t, "c", string(c.ID()))
		}},
		{"a cursor and its clones are one state", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "1", "one", "b", "1", "one")
			c, err := r.p.Cursor(r.ctx, engine.Sealed, nil, nil)
			require.NoError(t, err)
			r.put("a", "2", "two", "c", "2", "two")
			r.delete("b")
			require.Equal(t, []string{"a", "one", "b", "one"}, r.rest(c, c.First()))
			clone, err := c.Clone(engine.Record, []byte("a"), []byte("c\x00"))
			require.NoError(t, err)
			require.Equal(t, []string{"a", "1", "b", "1"}, r.rest(clone, clone.First()))
			require.NoError(t, c.Close())
			require.Equal(t, []string{"a", "1", "b", "1"}, r.rest(clone, clone.First()), "it lives on alone")
			require.NoError(t, clone.Close())
			require.Equal(t, []string{"a", "2", "c", "2"}, r.walk(r.p, engine.Record, nil, nil))
		}},
		{"a cursor has the rows that have its part", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "1", "one")
			r.apply(func(b engine.Batch) { require.NoError(t, b.PutRecord([]byte("b"), []byte("2"))) })
			require.Equal(t, []string{"a", "1", "b", "2"}, r.walk(r.p, engine.Record, nil, nil))
			require.Equal(t, []string{"a", "one"}, r.walk(r.p, engine.Sealed, nil, nil))
			r.delete("b")
			require.Equal(t, []string{"a", "1"}, r.walk(r.p, engine.Record, nil, nil))
		}},
	}
}
