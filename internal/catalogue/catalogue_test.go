package catalogue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
)

func never(Entry) (bool, error)  { return false, nil }
func always(Entry) (bool, error) { return true, nil }

func TestLifeOfAnEntry(t *testing.T) {
	ctx := t.Context()
	c := Of(memory.New())
	given, err := c.Given(ctx)
	require.NoError(t, err)
	require.Zero(t, given)
	_, err = c.Find(ctx, "a")
	require.ErrorIs(t, err, ErrNone)

	a, err := c.Add(ctx, "a", never)
	require.NoError(t, err)
	require.Equal(t, uint32(0), a.Number)
	require.Equal(t, Creating, a.State)
	b, err := c.Add(ctx, "b", never)
	require.NoError(t, err)
	require.Equal(t, uint32(1), b.Number)

	// Its creation is under way, or was cut off: whoever knows says so.
	_, err = c.Add(ctx, "a", never)
	require.ErrorIs(t, err, ErrExists)
	asked := 0
	again, err := c.Add(ctx, "a", func(Entry) (bool, error) {
		if asked++; asked == 1 {
			return false, ErrMoved
		}
		return true, nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, asked, "an entry that has moved is looked at once more")
	require.Equal(t, uint32(2), again.Number, "the number that was given is not given again")
	_, err = c.Advance(ctx, a, Present)
	require.ErrorIs(t, err, ErrMoved, "of the creation that was given up")
	a = again

	unfinished := func(want ...string) {
		t.Helper()
		all, err := c.Unfinished(ctx)
		require.NoError(t, err)
		var names []string
		for _, e := range all {
			names = append(names, e.Name)
		}
		require.ElementsMatch(t, want, names)
	}
	unfinished("a", "b")
	a, err = c.Advance(ctx, a, Present)
	require.NoError(t, err)
	unfinished("b")
	_, err = c.Add(ctx, "a", always)
	require.ErrorIs(t, err, ErrExists, "there is no question of it any more")
	_, err = c.Advance(ctx, a, Creating)
	require.Error(t, err, "there is no way back")

	was := a
	a, err = c.Advance(ctx, a, Dropping)
	require.NoError(t, err)
	unfinished("a", "b")
	require.ErrorIs(t, c.Remove(ctx, was), ErrMoved)
	found, err := c.Find(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, Dropping, found.State)
	require.NoError(t, c.Remove(ctx, found, engine.Swap{Name: "receipt", Revision: engine.AnyRevision, Value: []byte("left to say")}))
	unfinished("b")
	got, err := engine.ReadMeta(ctx, c.Meta(), "receipt")
	require.NoError(t, err)
	require.Equal(t, "left to say", string(got))
	_, err = c.Find(ctx, "a")
	require.ErrorIs(t, err, ErrNone)

	a, err = c.Add(ctx, "a", never)
	require.NoError(t, err)
	require.Equal(t, uint32(3), a.Number, "nor that of a store which was dropped")
	var names []string
	require.NoError(t, c.Each(ctx, func(e Entry, err error) error {
		names = append(names, fmt.Sprint(e.Name, " ", e.Number, " ", e.State))
		return err
	}))
	require.ElementsMatch(t, []string{"a 3 1", "b 1 1"}, names)
	given, err = c.Given(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 4, given)
}

// Two names are one only if they have the same bytes.
func TestNames(t *testing.T) {
	good := []string{
		"a", "A", " a", "a ", "a/b", "../a", "a\x00", "\x00", "a\nb", "store/", "next", "/", ".", "..",
		"é", "e\u0301", // which look alike
		"а", // Cyrillic
		"ﬁ", "fi", "K", "\u212a",
		"\u202eevil", "\ufeffa", strings.Repeat("x", 255), strings.Repeat("é", 127),
	}
	c := Of(memory.New())
	numbers := map[uint32]string{}
	for _, name := range good {
		e, err := c.Add(t.Context(), name, never)
		require.NoError(t, err, "%q", name)
		require.NotContains(t, numbers, e.Number)
		numbers[e.Number] = name
	}
	for number, name := range numbers {
		e, err := c.Find(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, number, e.Number)
	}
	for _, name := range []string{"", strings.Repeat("x", 256), "\xff", "a\xc3", "\xed\xa0\x80"} {
		_, err := c.Add(t.Context(), name, always)
		require.ErrorIs(t, err, ErrName, "%q", name)
		_, err = c.Find(t.Context(), name)
		require.ErrorIs(t, err, ErrName, "%q", name)
	}
}

// Many at a time: each number is given once, and each name once.
func TestManyAtATime(t *testing.T) {
	e := memory.New()
	const makers, names = 8, 20
	var mu sync.Mutex
	given := map[uint32]int{}
	made := map[string]int{}
	var all sync.WaitGroup
	for range makers {
		all.Go(func() {
			c := Of(e) // as another process would have one
			for i := range names {
				name := fmt.Sprint("store ", i)
				entry, err := c.Add(t.Context(), name, never)
				if errors.Is(err, ErrExists) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				given[entry.Number]++
				made[name]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Len(t, made, names)
	require.Len(t, given, names)
}

func TestNumbersComeToAnEnd(t *testing.T) {
	e := memory.New()
	require.NoError(t, engine.SetMeta(t.Context(), e.Partition(Partition), nextName, encodeNext(Partition-1)))
	c := Of(e)
	last, err := c.Add(t.Context(), "last", never)
	require.NoError(t, err)
	require.Equal(t, uint32(Partition-1), last.Number)
	_, err = c.Add(t.Context(), "one too many", never)
	require.ErrorIs(t, err, ErrFull)
}

// Who can write the engine can exchange entries; that is seen.
func TestExchangedEntries(t *testing.T) {
	ctx := t.Context()
	e := memory.New()
	c, meta := Of(e), e.Partition(Partition)
	for _, name := range []string{"a", "b"} {
		_, err := c.Add(ctx, name, never)
		require.NoError(t, err)
	}
	other, err := engine.ReadMeta(ctx, meta, key("b"))
	require.NoError(t, err)
	require.NoError(t, engine.SetMeta(ctx, meta, key("a"), other))
	_, err = c.Find(ctx, "a")
	require.ErrorIs(t, err, engine.ErrCorrupt)
	var bad int
	require.NoError(t, c.Each(ctx, func(_ Entry, err error) error {
		if err != nil {
			require.ErrorIs(t, err, engine.ErrCorrupt)
			bad++
		}
		return nil
	}))
	require.Equal(t, 1, bad, "the other ones are found")
}

func TestDecode(t *testing.T) {
	whole := Entry{Name: "a", Number: 0x01020304, State: Present}.Encode()
	require.Equal(t, []byte{1, 2, 1, 2, 3, 4, 'a'}, whole)
	for what, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":          {nil, engine.ErrCorrupt},
		"another version":  {[]byte{2}, engine.ErrVersion},
		"no name":          {whole[:6], engine.ErrCorrupt},
		"a name too long":  {append(whole[:6:6], make([]byte, 256)...), engine.ErrCorrupt},
		"no state":         {[]byte{1, 0, 0, 0, 0, 1, 'a'}, engine.ErrCorrupt},
		"an unknown state": {[]byte{1, 4, 0, 0, 0, 1, 'a'}, engine.ErrCorrupt},
		"the catalogue's":  {[]byte{1, 2, 255, 255, 255, 255, 'a'}, engine.ErrCorrupt},
		"a name not UTF-8": {[]byte{1, 2, 0, 0, 0, 1, 255}, engine.ErrCorrupt},
	} {
		_, err := Decode(c.b)
		require.ErrorIs(t, err, c.want, what)
	}
	for _, b := range [][]byte{nil, {1}, {1, 0, 0, 0}, {1, 0, 0, 0, 0, 0}} {
		_, err := decodeNext(b)
		require.ErrorIs(t, err, engine.ErrCorrupt)
	}
	_, err := decodeNext([]byte{2, 0, 0, 0, 0})
	require.ErrorIs(t, err, engine.ErrVersion)
}

func FuzzEntry(f *testing.F) {
	f.Add(Entry{Name: "a", Number: 1, State: Creating}.Encode())
	f.Add(Entry{Name: strings.Repeat("x", 255), Number: 7, State: Dropping}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		require.Equal(t, b, e.Encode())
		require.NoError(t, CheckName(e.Name))
	})
}

// A mark is only where to look: one of nothing, of no name, of a damaged entry or of one that is
// present names no store that is unfinished, and keeps none from being found.
func TestMarksOfNothing(t *testing.T) {
	ctx := t.Context()
	c := Of(memory.New())
	set := func(name string, value []byte) {
		t.Helper()
		require.NoError(t, engine.SetMeta(ctx, c.meta, name, value))
	}
	for _, name := range []string{"whole", "present", "damaged"} {
		_, err := c.Add(ctx, name, never)
		require.NoError(t, err)
	}
	present, err := c.Find(ctx, "present")
	require.NoError(t, err)
	_, err = c.Advance(ctx, present, Present)
	require.NoError(t, err)
	set(markPrefix+"left", []byte("present"))
	set(markPrefix+"none", []byte("no such store"))
	set(markPrefix+"noname", []byte("\xff"))
	set(key("damaged"), []byte{entryVersion})
	unfinished, err := c.Unfinished(ctx)
	require.NoError(t, err)
	require.Len(t, unfinished, 1)
	require.Equal(t, "whole", unfinished[0].Name)

	// What a newer version wrote is not nothing.
	set(key("damaged"), []byte{entryVersion + 1})
	_, err = c.Unfinished(ctx)
	require.ErrorIs(t, err, engine.ErrVersion)
}

// An entry in another one's place is given without a name: nobody is to act on it.
func TestEachGivesNoNameOfABadEntry(t *testing.T) {
	ctx := t.Context()
	c := Of(memory.New())
	require.NoError(t, engine.SetMeta(ctx, c.meta, key("a"), Entry{Name: "b", Number: 1, State: Present}.Encode()))
	calls := 0
	stop := errors.New("stop")
	require.ErrorIs(t, c.Each(ctx, func(e Entry, err error) error {
		calls++
		require.ErrorIs(t, err, engine.ErrCorrupt)
		require.Zero(t, e)
		return stop
	}), stop)
	require.Equal(t, 1, calls)
}

// Whether a name is free in state Creating is what again says, and its error is the caller's; in
// another state it is not asked.
func TestFree(t *testing.T) {
	broken := errors.New("broken")
	fails := func(Entry) (bool, error) { return false, broken }
	ctx := t.Context()
	c := Of(memory.New())
	a, err := c.Add(ctx, "a", fails)
	require.NoError(t, err, "there is nothing to ask about")
	_, err = c.Add(ctx, "a", fails)
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, ErrExists)
	given, err := c.Given(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, given, "no number was taken for it")

	_, err = c.Advance(ctx, a, Dropping+1)
	require.ErrorContains(t, err, "no way from state 1 to 4")
	_, err = c.Advance(ctx, a, Creating)
	require.ErrorContains(t, err, "no way from state 1 to 1")
	a, err = c.Advance(ctx, a, Dropping, engine.Swap{Name: "besides", Revision: engine.AnyRevision, Value: []byte("said")})
	require.NoError(t, err)
	said, err := engine.ReadMeta(ctx, c.Meta(), "besides")
	require.NoError(t, err)
	require.Equal(t, "said", string(said))
	_, err = c.Add(ctx, "a", fails)
	require.ErrorIs(t, err, ErrExists)
	require.NotErrorIs(t, err, broken)
	require.ErrorContains(t, err, "drop it again")
	require.NoError(t, c.Remove(ctx, a))
}

// counting is what an engine is asked for, of which one call fails, and what need not be durable at once.
type counting struct {
	engine.Partition
	calls, at int
	later     []bool // of each swap
}

var errBroken = errors.New("broken")

func (c *counting) call() error {
	c.calls++
	if c.calls-1 == c.at {
		return errBroken
	}
	return nil
}

func (c *counting) LoadMeta(ctx context.Context, name string) ([]byte, uint64, error) {
	if err := c.call(); err != nil {
		return nil, 0, err
	}
	return c.Partition.LoadMeta(ctx, name)
}

func (c *counting) ListMeta(ctx context.Context, prefix string, f func(string, []byte) error) error {
	if err := c.call(); err != nil {
		return err
	}
	return c.Partition.ListMeta(ctx, prefix, f)
}

func (c *counting) swap(ctx context.Context, later bool, swaps []engine.Swap) ([]uint64, error) {
	if err := c.call(); err != nil {
		return nil, err
	}
	c.later = append(c.later, later)
	return c.Partition.SwapMeta(ctx, swaps...)
}

func (c *counting) SwapMeta(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	return c.swap(ctx, false, swaps)
}

func (c *counting) SwapMetaLater(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	return c.swap(ctx, true, swaps)
}

// Whatever the engine fails at is told: a record that cannot be read is not one that is missing. An entry's
// first two states may be durable later, with what comes after them; the end of a store is durable at once.
func TestErrorsOfTheEngine(t *testing.T) {
	ctx := t.Context()
	for at := 0; ; at++ {
		m := &counting{Partition: Of(memory.New()).meta, at: at}
		c := &Catalogue{m}
		err := func() error {
			if _, err := c.Add(ctx, "other", never); err != nil {
				return err
			}
			e, err := c.Add(ctx, "a", never)
			if err != nil {
				return err
			}
			if e, err = c.Advance(ctx, e, Present); err != nil {
				return err
			}
			if e, err = c.Advance(ctx, e, Dropping); err != nil {
				return err
			}
			if _, err := c.Unfinished(ctx); err != nil {
				return err
			}
			if err := c.Each(ctx, func(_ Entry, err error) error { return err }); err != nil {
				return err
			}
			if _, err := c.Given(ctx); err != nil {
				return err
			}
			return c.Remove(ctx, e)
		}()
		if m.calls <= at {
			require.NoError(t, err)
			require.Equal(t, []bool{true, true, true, false, false}, m.later)
			require.Greater(t, at, 10)
			return
		}
		require.ErrorIs(t, err, errBroken, "call %d", at)
	}
}

// Nothing is added beside a record that is damaged.
func TestDamagedRecords(t *testing.T) {
	ctx := t.Context()
	for _, name := range []string{nextName, key("a")} {
		c := Of(memory.New())
		_, err := c.Add(ctx, "a", never)
		require.NoError(t, err)
		require.NoError(t, engine.SetMeta(ctx, c.Meta(), name, []byte{1}))
		_, err = c.Add(ctx, "a", always)
		require.ErrorIs(t, err, engine.ErrCorrupt, name)
		if name == nextName {
			_, err = c.Given(ctx)
			require.ErrorIs(t, err, engine.ErrCorrupt)
			_, err = c.Add(ctx, "b", never)
			require.ErrorIs(t, err, engine.ErrCorrupt)
		}
	}
}

// What is too long for an error's text is cut, and what just fits is not.
func TestNamesInErrors(t *testing.T) {
	fits := strings.Repeat("x", 64)
	require.Equal(t, fits, short(fits))
	require.Equal(t, fits+"...", short(fits+"x"))
}
