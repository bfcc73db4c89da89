package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

func openDir(t *testing.T, dir string, fs vfs.FS) *DB {
	t.Helper()
	lock, err := LockDir(dir, fs, false)
	require.NoError(t, err)
	d, err := Open(dir, lock, Options{FS: fs, Create: true})
	require.NoError(t, err)
	d.lookups.keep = time.Hour // tests that want it to pass call expire
	t.Cleanup(func() {
		require.NoError(t, d.Close()) // which finds iterators that were forgotten
		require.NoError(t, lock.Close())
	})
	return d
}

func openMem(t *testing.T) *DB {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	return openDir(t, "db", fs)
}

func set(t *testing.T, d *DB, kv ...string) {
	t.Helper()
	b := d.NewBatch()
	defer b.Close()
	for i := 0; i < len(kv); i += 2 {
		require.NoError(t, b.Set([]byte(kv[i]), []byte(kv[i+1])))
	}
	require.NoError(t, d.Commit(b, false))
}

// patient returns a Lookup, after as many calls as it takes in a calm engine.
func patient(t *testing.T, d *DB, r *Reading) *Lookup {
	t.Helper()
	for range lookupPatience {
		require.Nil(t, d.Lookup(r), "too soon")
	}
	l := d.Lookup(r)
	require.NotNil(t, l)
	return l
}

func kept(d *DB) (n int) {
	for i := range d.lookups.slots {
		if d.lookups.slots[i].kept.Load() != nil {
			n++
		}
	}
	return n
}

func valueOf(t *testing.T, g Getter, key string) (string, error) {
	t.Helper()
	v, c, err := g.Get([]byte(key))
	if err != nil {
		require.Nil(t, c)
		return "", err
	}
	s := string(v)
	require.NoError(t, c.Close())
	return s, nil
}

func TestLookupFindsWhatGetFinds(t *testing.T) {
	d := openMem(t)
	key := func(space byte, i int) string { return fmt.Sprintf("%c%05d", space, i) }
	// In several tables, blob files, and the memtable.
	for part := range 4 {
		for i := part; i < 400; i += 4 {
			set(t, d, key(2, i), strings.Repeat("r", i%7), key(3, i), strings.Repeat("d", 13*i))
		}
		set(t, d, key(3, part), "again")
		b := d.NewBatch()
		require.NoError(t, b.Delete([]byte(key(2, 50+part))))
		require.NoError(t, d.Commit(b, false))
		require.NoError(t, b.Close())
		if part < 3 {
			require.NoError(t, d.Flush(t.Context()))
		}
	}
	var r Reading
	l := patient(t, d, &r)
	for round := range 3 {
		for i := -1; i <= 401; i++ {
			for _, space := range []byte{2, 3} {
				want, wantErr := valueOf(t, d, key(space, i))
				got, err := valueOf(t, l, key(space, i))
				require.Equal(t, wantErr, err)
				require.Equal(t, want, got)
			}
			if round > 0 {
				l.Release()
				l = d.Lookup(&r)
				require.NotNil(t, l)
			}
		}
	}
	require.Panics(t, func() { _, _, _ = l.Get([]byte{4}) })
	l.Release()
	require.Zero(t, kept(d), "after a misuse nothing is kept")
}

func TestLookupIsKeptUntilSomethingChanges(t *testing.T) {
	d := openMem(t)
	set(t, d, "\x02a", "1", "\x03a", "2")
	var r Reading
	look := func(want string) {
		t.Helper()
		l := patient(t, d, &r)
		got, err := valueOf(t, l, "\x03a")
		require.NoError(t, err)
		require.Equal(t, want, got)
		l.Release()
		require.Equal(t, 1, kept(d))
		again := d.Lookup(&r)
		require.Same(t, l, again)
		again.Release()
	}
	look("2")
	set(t, d, "\x03a", "3")
	require.Zero(t, kept(d), "closed by the change")
	look("3")
	d.lookups.expire()
	require.Zero(t, kept(d), "closed by time")
	look("3")

	// One that is in use while something changes is not used again.
	l := d.Lookup(&r)
	set(t, d, "\x03a", "4")
	got, err := valueOf(t, l, "\x03a")
	require.NoError(t, err)
	require.Equal(t, "3", got, "it began before")
	l.Release()
	require.Zero(t, kept(d))
	look("4")

	// While a change is under way none is made.
	done := d.lookups.write()
	for range 3 * lookupPatience {
		require.Nil(t, d.Lookup(&r))
	}
	done()
	l = d.Lookup(&r)
	require.NotNil(t, l)
	l.Release()
	require.Equal(t, 1, kept(d))

	require.NoError(t, d.purge(context.Background(), []keyRange{{[]byte{2}, []byte{4}}}, func() error {
		require.Zero(t, kept(d))
		for range 3 * lookupPatience {
			require.Nil(t, d.Lookup(&r), "it would pin what is to be purged")
		}
		set(t, d, "\x01", "touched")
		return nil
	}, d.inPlace, func() bool { return false }))
	look("4")
	require.NotZero(t, d.Metrics().TableIters, "what is kept is a table's iterator")
	d.lookups.expire()
	require.Eventually(t, func() bool { return d.Metrics().TableIters == 0 }, time.Minute, time.Millisecond)
	look("4") // and is left for Close to find
}

func TestLookupsAreBounded(t *testing.T) {
	d := openMem(t)
	set(t, d, "\x02a", "1")
	var all []*Lookup
	for range 2 * len(d.lookups.slots) {
		l := patient(t, d, new(Reading))
		_, err := valueOf(t, l, "\x02a")
		require.NoError(t, err)
		all = append(all, l)
	}
	for _, l := range all {
		l.Release()
	}
	require.Equal(t, len(d.lookups.slots), kept(d))
}

// What a reader returned is never followed by something older, nor is what a writer
// was told: run with -race.
func TestLookupsAreLinearizable(t *testing.T) {
	d := openMem(t)
	const changes, readers = 300, 4
	number := func(v []byte) uint64 { return binary.BigEndian.Uint64(v) }
	var begun, ended atomic.Uint64 // what was written
	var seen atomic.Uint64         // the most that a reader has returned
	var used atomic.Int64
	put := func(n uint64) error {
		b := d.NewBatch()
		defer b.Close()
		v := binary.BigEndian.AppendUint64(nil, n)
		return errors.Join(b.Set([]byte("\x02k"), v), b.Set([]byte("\x03k"), v), d.Commit(b, false))
	}
	require.NoError(t, put(0))
	var wg sync.WaitGroup
	errs := make(chan error, readers+1)
	var reads atomic.Int64
	stop := make(chan struct{})
	for range readers {
		wg.Go(func() {
			var r Reading
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := max(ended.Load(), seen.Load())
				err := func() error {
					var g Getter = d
					l := d.Lookup(&r)
					if l != nil {
						defer l.Release()
						g = l
						used.Add(1)
					}
					v, c, err := g.Get([]byte("\x02k"))
					if err != nil {
						return err
					}
					got := number(v)
					if err := c.Close(); err != nil {
						return err
					}
					if most := begun.Load(); got < least || got > most {
						return fmt.Errorf("%d, where %d to %d had been written or seen (look-up: %t)", got, least, most, l != nil)
					}
					for old := seen.Load(); old < got && !seen.CompareAndSwap(old, got); old = seen.Load() {
					}
					if l == nil {
						return nil
					}
					v, c, err = g.Get([]byte("\x03k"))
					if err != nil {
						return err
					}
					if number(v) != got {
						return fmt.Errorf("%d beside %d: not of one state", number(v), got)
					}
					return c.Close()
				}()
				reads.Add(1)
				if err != nil {
					errs <- err
					return
				}
				runtime.Gosched() // or the writer has its turn after thousands of reads
			}
		})
	}
	for n := uint64(1); n <= changes && len(errs) == 0; n++ {
		begun.Store(n)
		require.NoError(t, put(n))
		ended.Store(n)
		switch {
		case n%100 == 0:
			require.NoError(t, d.Flush(t.Context()))
		case n%17 == 0:
			d.lookups.expire()
		}
		if n%3 == 0 { // calm enough for look-ups to be kept
			for until := reads.Load() + 40*readers; reads.Load() < until && len(errs) == 0; {
				runtime.Gosched()
			}
		}
	}
	close(stop)
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Positive(t, used.Load())
	t.Logf("%d reads, %d with iterators that were kept", reads.Load(), used.Load())
}

func TestLookupOfADamagedFile(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, vfs.Default)
	const n = 40
	for i := range n {
		set(t, d, fmt.Sprintf("\x02%04d", i), "record", fmt.Sprintf("\x03%04d", i), strings.Repeat("x", 3000))
	}
	require.NoError(t, d.Flush(t.Context()))
	for _, kind := range []string{"*.blob", "*.sst"} {
		files, err := filepath.Glob(filepath.Join(dir, kind))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, name := range files {
			raw, err := os.ReadFile(name)
			require.NoError(t, err)
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt(bytes.Repeat([]byte{0xee}, len(raw)*3/4), 0)
			require.NoError(t, errors.Join(err, f.Close()))
		}
		var r Reading
		corrupt := 0
		for i := range n {
			var l *Lookup
			for l == nil {
				l = d.Lookup(&r)
			}
			_, c, err := l.Get([]byte(fmt.Sprintf("\x03%04d", i)))
			if err != nil {
				require.ErrorIs(t, err, engine.ErrCorrupt)
				corrupt++
			} else {
				require.NoError(t, c.Close())
			}
			l.Release()
			require.Equal(t, err == nil, kept(d) == 1)
		}
		require.Positive(t, corrupt, kind)
	}
}

// A walk has the iterators that are kept, or leaves its own behind: what it finds is one state, that of when it
// began, and nobody has an iterator that another one uses.
func TestWalksShareLookups(t *testing.T) {
	d := openMem(t)
	p := d.Partition(0)
	put := func(id, data string) {
		b := p.NewBatch()
		defer b.Close()
		sealed, err := b.Put([]byte(id), []byte(data), len(data))
		require.NoError(t, err)
		copy(sealed, data)
		require.NoError(t, p.Apply(t.Context(), b, engine.Guard{Floor: p.Floor().Revision, Epoch: math.MaxUint32}, false))
	}
	begin := func(part engine.Parts, from, to string) engine.Cursor {
		c, err := p.Cursor(t.Context(), part, []byte(from), []byte(to))
		require.NoError(t, err)
		return c
	}
	found := func(c engine.Cursor) (all []string) {
		for ok := c.First(); ok; ok = c.Next() {
			v, err := c.Value()
			require.NoError(t, err)
			all = append(all, string(c.ID())+"="+string(v))
		}
		require.NoError(t, c.Err())
		return all
	}
	for i := range 9 {
		put(fmt.Sprint(i), fmt.Sprint("at first ", i))
	}
	for range lookupPatience {
		require.NoError(t, begin(engine.Record, "2", "4").Close())
		require.Zero(t, kept(d), "too soon")
	}

	// A walk over both parts makes a pair, and leaves it behind whichever of the two ends first.
	for dek := range 2 {
		both := make([]engine.Cursor, 2)
		both[0] = begin(engine.Sealed, "2", "4")
		var err error
		both[1], err = both[0].Clone(engine.Record, []byte("2"), []byte("5"))
		require.NoError(t, err)
		require.Equal(t, []string{"2=at first 2", "3=at first 3"}, found(both[0]))
		require.Equal(t, []string{"2=at first 2", "3=at first 3", "4=at first 4"}, found(both[1]))
		require.Zero(t, kept(d), "it is in use")
		third, err := both[0].Clone(engine.Record, []byte("7"), nil) // which has an iterator of its own
		require.NoError(t, err)
		require.Equal(t, []string{"7=at first 7", "8=at first 8"}, found(third))
		require.NoError(t, third.Close())
		require.NoError(t, both[dek].Close())
		require.Zero(t, kept(d), "one half is in use")
		require.NoError(t, both[1-dek].Close())
		require.Equal(t, 1, kept(d))
	}

	// A look-up that has the same pair finds keys outside of the walk's bounds.
	var r Reading
	l := patient(t, d, &r)
	got, err := valueOf(t, l, string(appendKey(nil, spaceData, 0, []byte("8"))))
	require.NoError(t, err)
	require.Equal(t, "at first 8", got)
	l.Release()

	// Two walks at once have a pair each.
	one, other := begin(engine.Sealed, "0", "2"), begin(engine.Sealed, "1", "3")
	require.Equal(t, []string{"0=at first 0", "1=at first 1"}, found(one))
	require.Equal(t, []string{"1=at first 1", "2=at first 2"}, found(other))
	require.NoError(t, one.Close())
	require.NoError(t, other.Close())
	require.Equal(t, 2, kept(d))

	// What is written meanwhile is not found, and nothing of before is left behind.
	old := begin(engine.Sealed, "1", "2")
	put("1", "since")
	require.Zero(t, kept(d))
	require.Equal(t, []string{"1=at first 1"}, found(old))
	deks, err := old.Clone(engine.Record, []byte("1"), []byte("2"))
	require.NoError(t, err)
	require.Equal(t, []string{"1=at first 1"}, found(deks), "of the same state")
	require.NoError(t, old.Close())
	require.NoError(t, deks.Close())
	require.Zero(t, kept(d))
	require.Equal(t, []string{"1=since"}, func() []string { c := begin(engine.Sealed, "1", "2"); defer c.Close(); return found(c) }())
}
