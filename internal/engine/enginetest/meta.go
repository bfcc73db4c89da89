package enginetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

func metaParts() []part {
	return []part{
		{"a meta record is swapped by who read it last", func(t T, s Subject) {
			r := newRig(t, s)
			_, revision, err := r.p.LoadMeta(r.ctx, "name")
			require.ErrorIs(t, err, engine.ErrNotFound)
			require.Zero(t, revision)
			_, err = r.swap("name", 1, []byte("x"))
			require.ErrorIs(t, err, engine.ErrConflict, "there is none")
			first, err := r.swap("name", 0, []byte("one"))
			require.NoError(t, err)
			require.NotZero(t, first)
			_, err = r.swap("name", 0, []byte("x"))
			require.ErrorIs(t, err, engine.ErrConflict, "there is one")
			got, revision := r.meta("name")
			require.Equal(t, "one", got)
			require.Equal(t, first, revision)
			second, err := r.swap("name", first, []byte("one"))
			require.NoError(t, err)
			require.NotEqual(t, first, second, "the same value, and another revision")
			_, err = r.swap("name", first, []byte("x"))
			require.ErrorIs(t, err, engine.ErrConflict)
			_, err = r.swap("name", first, nil)
			require.ErrorIs(t, err, engine.ErrConflict)
			gone, err := r.swap("name", second, nil)
			require.NoError(t, err)
			require.Zero(t, gone)
			_, revision, err = r.p.LoadMeta(r.ctx, "name")
			require.ErrorIs(t, err, engine.ErrNotFound)
			require.Zero(t, revision)
			third, err := r.swap("name", 0, []byte("one"))
			require.NoError(t, err)
			require.NotContains(t, []uint64{first, second}, third, "no revision is given twice")
			_, err = r.swap("name", second, []byte("x"))
			require.ErrorIs(t, err, engine.ErrConflict)
			_, err = r.swap("name", engine.AnyRevision, []byte{})
			require.NoError(t, err)
			got, _ = r.meta("name")
			require.Empty(t, got, "empty, and there")
			_, err = r.swap("name", engine.AnyRevision, nil)
			require.NoError(t, err)
			_, err = r.swap("name", engine.AnyRevision, nil)
			require.NoError(t, err, "none is there, and that is what was asked for")
			_, err = r.swap("name", engine.AnyRevision, []byte("any"))
			require.NoError(t, err)
			got, _ = r.meta("name")
			require.Equal(t, "any", got)
		}},
		{"meta records change together or not at all", func(t T, s Subject) {
			r := newRig(t, s)
			a, err := r.swap("a", 0, []byte("1"))
			require.NoError(t, err)
			b, err := r.swap("b", 0, []byte("1"))
			require.NoError(t, err)
			_, err = r.p.SwapMeta(r.ctx, engine.Swap{Name: "a", Revision: a, Value: []byte("2")}, engine.Swap{Name: "c", Revision: engine.AnyRevision, Value: []byte("2")},
				engine.Swap{Name: "b", Revision: a + b, Value: []byte("2")})
			require.ErrorIs(t, err, engine.ErrConflict)
			got, revision := r.meta("a")
			require.Equal(t, "1", got)
			require.Equal(t, a, revision)
			_, _, err = r.p.LoadMeta(r.ctx, "c")
			require.ErrorIs(t, err, engine.ErrNotFound)
			given, err := r.p.SwapMeta(r.ctx, engine.Swap{Name: "b", Revision: b}, engine.Swap{Name: "a", Revision: a, Value: []byte("2")},
				engine.Swap{Name: "c", Revision: 0, Value: []byte("2")})
			require.NoError(t, err)
			require.Len(t, given, 3)
			require.Zero(t, given[0])
			for i, name := range []string{"a", "c"} {
				got, revision := r.meta(name)
				require.Equal(t, "2", got)
				require.Equal(t, given[i+1], revision)
			}
			_, _, err = r.p.LoadMeta(r.ctx, "b")
			require.ErrorIs(t, err, engine.ErrNotFound)
			given, err = r.p.SwapMeta(r.ctx)
			require.NoError(t, err)
			require.Empty(t, given)
			for _, bad := range [][]engine.Swap{
				{{Name: "", Revision: engine.AnyRevision, Value: []byte("x")}},
				{{Name: strings.Repeat("x", engine.MaxName+1), Revision: engine.AnyRevision, Value: []byte("x")}},
				{{Name: "a\x00", Revision: engine.AnyRevision, Value: []byte("x")}},
				{{Name: "a", Revision: engine.AnyRevision, Value: []byte("x")}, {Name: "a", Revision: engine.AnyRevision, Value: []byte("y")}},
			} {
				_, err := r.p.SwapMeta(r.ctx, bad...)
				require.Error(t, err, "%q", bad[0].Name)
			}
			got, _ = r.meta("a")
			require.Equal(t, "2", got)
			long := strings.Repeat("x", engine.MaxName)
			value := strings.Repeat("v", 2<<20)
			_, err = r.swap(long, 0, []byte(value))
			require.NoError(t, err)
			got, _ = r.meta(long)
			require.Equal(t, value, got)
		}},
		{"meta records are listed by their names", func(t T, s Subject) {
			r := newRig(t, s)
			for _, name := range []string{"copy/b", "copy", "copy/a", "copz", "a", "copy/\xff\xff", "copy0"} {
				_, err := r.swap(name, 0, []byte("value of "+name))
				require.NoError(t, err)
			}
			r.put("copy/row", "record", "sealed")
			list := func(prefix string) (names []string) {
				require.NoError(t, r.p.ListMeta(r.ctx, prefix, func(name string, value []byte) error {
					require.Equal(t, "value of "+name, string(value))
					names = append(names, name)
					return nil
				}))
				return names
			}
			require.Equal(t, []string{"copy/a", "copy/b", "copy/\xff\xff"}, list("copy/"))
			require.Equal(t, []string{"copy/\xff\xff"}, list("copy/\xff"))
			require.Equal(t, []string{"a", "copy", "copy/a", "copy/b", "copy/\xff\xff", "copy0", "copz"}, list(""))
			require.Empty(t, list("copy/c"))
			enough, seen := errors.New("enough"), 0
			require.ErrorIs(t, r.p.ListMeta(r.ctx, "", func(string, []byte) error { seen++; return enough }), enough)
			require.Equal(t, 1, seen)
			require.Len(t, r.walk(r.p, engine.Record, nil, nil), 2, "a meta record is no row")
		}},
		{"meta records are nobody else's memory", func(t T, s Subject) {
			r := newRig(t, s)
			value := []byte("value")
			_, err := r.swap("name", 0, value)
			require.NoError(t, err)
			value[0] = 'x'
			got, _, err := r.p.LoadMeta(r.ctx, "name")
			require.NoError(t, err)
			require.Equal(t, "value", string(got))
			got[0] = 'y'
			again, _ := r.meta("name")
			require.Equal(t, "value", again)
		}},
		{"of swaps at once one wins", func(t T, s Subject) {
			r := newRig(t, s)
			_, err := r.swap("count", 0, []byte("0"))
			require.NoError(t, err)
			const who, each = 4, 25
			failed := make(chan error, who)
			var wg sync.WaitGroup
			for range who {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for n := 0; n < each; {
						v, revision, err := r.p.LoadMeta(r.ctx, "count")
						var count int
						if err == nil {
							_, err = fmt.Sscan(string(v), &count)
						}
						if err == nil {
							_, err = r.p.SwapMeta(r.ctx, engine.Swap{Name: "count", Revision: revision, Value: fmt.Append(nil, count+1)})
						}
						switch {
						case err == nil:
							n++
						case !errors.Is(err, engine.ErrConflict):
							failed <- err
							return
						}
					}
				}()
			}
			wg.Wait()
			close(failed)
			require.NoError(t, <-failed)
			got, _ := r.meta("count")
			require.Equal(t, fmt.Sprint(who*each), got)
		}},
	}
}
