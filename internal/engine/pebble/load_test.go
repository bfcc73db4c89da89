package pebble

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// The floor refuses a load, which can be mended and applied then; one that is closed leaves nothing.
func TestLoadAndTheFloor(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	e := openOn(t, fs, "db", Options{Create: true})
	p := e.Partition(7)
	fill := func() engine.Load {
		l, err := p.(engine.Loader).NewLoad(t.Context())
		require.NoError(t, err)
		for i := range 50_000 { // several tables of records
			require.NoError(t, l.Put(fmt.Appendf(nil, "%06d", i), fmt.Appendf(nil, "%0600d", i), []byte("sealed")))
		}
		return l
	}
	l := fill()
	old := p.Floor()
	require.NoError(t, p.RaiseFloor(t.Context(), 5))
	require.ErrorIs(t, l.Apply(t.Context(), engine.Guard{Floor: old.Revision, Epoch: 5}), engine.ErrFloor)
	require.ErrorIs(t, l.Apply(t.Context(), engine.Guard{Floor: p.Floor().Revision, Epoch: 4}), engine.ErrFloor)
	var row engine.Row
	require.ErrorIs(t, p.Get(t.Context(), []byte("000001"), engine.Both, &row), engine.ErrNotFound)
	n := 0
	require.NoError(t, l.Rewrite(t.Context(), func(id, record []byte) ([]byte, error) {
		require.Equal(t, fmt.Sprintf("%06d", n), string(id))
		require.Equal(t, fmt.Sprintf("%0600d", n), string(record))
		n++
		return append([]byte("again "), id...), nil
	}))
	require.Equal(t, 50_000, n)
	require.NoError(t, l.Apply(t.Context(), engine.Guard{Floor: p.Floor().Revision, Epoch: 5}))
	require.NoError(t, l.Close())
	require.NoError(t, p.Get(t.Context(), []byte("049999"), engine.Both, &row))
	require.Equal(t, "again 049999", string(row.Record))
	require.Equal(t, "sealed", string(row.Sealed))
	row.Release()

	l = fill()
	failed := errors.New("failed")
	require.ErrorIs(t, l.Rewrite(t.Context(), func(id, _ []byte) ([]byte, error) {
		if string(id) == "040000" {
			return nil, failed
		}
		return id, nil
	}), failed)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.NoError(t, e.Close())
	names, err := fs.List("db")
	require.NoError(t, err)
	for _, name := range names {
		require.NotContains(t, name, loadPrefix)
	}
}

// Open removes what loads have left, and nothing whose name is only like theirs.
func TestOpenRemovesWhatLoadsLeft(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	require.NoError(t, openOn(t, fs, "db", Options{Create: true}).Close())
	for _, name := range []string{loadName(1, 0), loadName(12, 345), loadPrefix + "1.sst", loadPrefix + "a-b.sst", "x" + loadName(1, 0), loadName(1, 0) + ".old"} {
		f, err := fs.Create("db/"+name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	left := func() (n int) {
		names, err := fs.List("db")
		require.NoError(t, err)
		for _, name := range names {
			if _, err := fs.Stat("db/" + name); err == nil && len(name) > len(loadPrefix) && (name[:len(loadPrefix)] == loadPrefix || name[0] == 'x') {
				n++
			}
		}
		return n
	}
	require.NoError(t, openOn(t, fs, "db", Options{ReadOnly: true}).Close())
	require.Equal(t, 6, left(), "who only reads changes nothing")
	require.NoError(t, openOn(t, fs, "db", Options{}).Close())
	require.Equal(t, 4, left())
}

// The entry of the log that follows a load says how many numbers were given to tables, and no other
// entry does.
func TestIngestedBefore(t *testing.T) {
	head := make([]byte, batchrepr.HeaderLen)
	entry := func(text string) []byte { return append(append(head, 3, byte(len(text))), text...) }
	require.EqualValues(t, 12, ingestedBefore(append(entry(string(ingested(12))), "what follows"...)))
	for what, e := range map[string][]byte{
		"nothing":              nil,
		"a head":               head,
		"a kind alone":         append(head, 3),
		"no text":              entry(""),
		"another text":         entry("blockseal "),
		"no digits":            entry(ingestedPrefix),
		"other than digits":    entry(ingestedPrefix + "-1"),
		"too many":             entry(ingestedPrefix + "99999999999"),
		"a text that is cut":   entry(string(ingested(12)))[:batchrepr.HeaderLen+10],
		"a length that is cut": append(head, 3, 0x80),
		"a block":              append(append(head, 1, 20), ingested(1)...),
	} {
		require.Zero(t, ingestedBefore(e), what)
	}
}

// FuzzIngestedBefore: no entry makes the reader panic, and what it reads is what would be written.
func FuzzIngestedBefore(f *testing.F) {
	f.Add(append(append(make([]byte, batchrepr.HeaderLen), 3, 21), ingested(12)...))
	f.Add(make([]byte, batchrepr.HeaderLen+2))
	f.Fuzz(func(t *testing.T, entry []byte) {
		if n := ingestedBefore(entry); n > 0 {
			require.Contains(t, string(entry), ingestedPrefix)
			require.Less(t, n, uint64(1)<<32)
		}
	})
}

// Numbers that are missing in the log are those of tables if the next entry says so, and else changes
// that are lost.
func TestSurveyAfterALoad(t *testing.T) {
	fs := vfs.NewCrashableMem()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	e := openOn(t, fs, "db", Options{Create: true})
	p := e.Partition(7)
	put := func(id string) {
		b := p.NewBatch()
		defer b.Close()
		room, err := b.Put([]byte(id), []byte("record"), 1)
		require.NoError(t, err)
		room[0] = 1
		require.NoError(t, p.Apply(t.Context(), b, engine.Guard{Floor: p.Floor().Revision}, true))
		require.NoError(t, b.Wait())
	}
	put("z")
	log, manifest, err := Position("db", fs)
	require.NoError(t, err)
	survey := func() error {
		left := fs.CrashClone(vfs.CrashCloneCfg{})
		_, err := Survey("db", left, Expected{Phase: Opened, Log: log, Manifest: manifest})
		return err
	}
	for round := range 3 {
		l, err := p.(engine.Loader).NewLoad(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Put(fmt.Appendf(nil, "%d", round), []byte("record"), []byte("sealed"))) // beside what is in the memtable
		require.NoError(t, l.Apply(t.Context(), engine.Guard{Floor: p.Floor().Revision}))
		require.NoError(t, l.Close())
		require.NoError(t, survey())
		put("y")
		require.NoError(t, survey())
	}
	// The same tables without that entry.
	name := "db/other.sst"
	d := e.DB
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), d.options().MakeWriterOptions(0, d.p.TableFormat()))
	require.NoError(t, w.Set(appendKey(nil, spaceDEK, 9, "id"), []byte("record")))
	require.NoError(t, w.Close())
	require.NoError(t, d.p.Ingest(t.Context(), []string{name}))
	put("x")
	require.ErrorIs(t, survey(), engine.ErrCorrupt)
	require.NoError(t, e.Close())
}
