package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
)

var update = flag.Bool("update", false, "write the golden files anew; only ever right for a format that was not released")

// put sets rows of a partition: id, record, sealed, and so on.
func put(t *testing.T, p engine.Partition, rows ...string) {
	t.Helper()
	b := p.NewBatch()
	for i := 0; i < len(rows); i += 3 {
		room, err := b.Put([]byte(rows[i]), []byte(rows[i+1]), len(rows[i+2]))
		require.NoError(t, err)
		copy(room, rows[i+2])
	}
	require.NoError(t, p.Apply(t.Context(), b, engine.Guard{Floor: p.Floor().Revision}, false))
	require.NoError(t, b.Close())
}

// source is a partition with a document, other meta records and rows of each kind.
func source(t *testing.T) engine.Partition {
	t.Helper()
	p := memory.New().Partition(3)
	for name, value := range map[string]string{"keyring": "the document", "register": "", "\xff": "bytes"} {
		require.NoError(t, engine.SetMeta(t.Context(), p, name, []byte(value)))
	}
	put(t, p, "\x00", "r0", "zero", "a", "r1", "", "b\x00", "", "sealed", string(bytes.Repeat([]byte{0xff}, engine.MaxID)), "r3", "long id")
	return p
}

func export(t *testing.T, p engine.Partition) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := Export(t.Context(), &b, p, "keyring")
	require.NoError(t, err)
	return b.Bytes()
}

// arrive imports an export whole.
func arrive(ctx context.Context, r io.Reader, p engine.Partition) (Counts, error) {
	a, err := Read(context.Background(), r)
	if err != nil {
		return Counts{}, err
	}
	return a.Into(ctx, p)
}

// all returns everything that a partition has.
func all(t *testing.T, p engine.Partition) (out []string) {
	t.Helper()
	require.NoError(t, p.ListMeta(t.Context(), "", func(name string, value []byte) error {
		out = append(out, fmt.Sprintf("meta %q %q", name, value))
		return nil
	}))
	c, err := p.Cursor(t.Context(), engine.Sealed, nil, nil)
	require.NoError(t, err)
	for ok := c.First(); ok; ok = c.Next() {
		var row engine.Row
		require.NoError(t, p.Get(t.Context(), c.ID(), engine.Both, &row))
		out = append(out, fmt.Sprintf("row %q %q %q", c.ID(), row.Record, row.Sealed))
		row.Release()
	}
	require.NoError(t, errors.Join(c.Err(), c.Close()))
	return out
}

func TestWhatArrivesIsWhatLeft(t *testing.T) {
	from := source(t)
	for name, read := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "a byte at a time": iotest.OneByteReader, "with its last bytes the end": iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			to := memory.New().Partition(9)
			var seen []string
			a, err := Read(context.Background(), read(bytes.NewReader(export(t, from))))
			require.NoError(t, err)
			for _, m := range a.Meta {
				seen = append(seen, m.Name)
			}
			require.Equal(t, "the document", string(a.Value("keyring")))
			require.Nil(t, a.Value("another"))
			c, err := a.Into(t.Context(), to)
			require.NoError(t, err)
			require.Equal(t, all(t, from), all(t, to))
			require.Equal(t, []string{"keyring", "register", "\xff"}, seen)
			require.EqualValues(t, 4, c.Rows)
			require.EqualValues(t, len("r0zeror1sealedr3long id"), c.Bytes)
		})
	}
}

// More rows than are applied at once.
func TestManyRows(t *testing.T) {
	from, to := memory.New().Partition(1), memory.New().Partition(2)
	require.NoError(t, engine.SetMeta(t.Context(), from, "keyring", []byte("the document")))
	var rows []string
	for i := range 80 {
		rows = append(rows, fmt.Sprintf("%02d", i), "record", string(bytes.Repeat([]byte{'0' + byte(i)}, batchBytes/32)))
	}
	put(t, from, rows...)
	var b bytes.Buffer
	sent, err := Export(t.Context(), &b, from, "keyring")
	require.NoError(t, err)
	got, err := arrive(t.Context(), &b, to)
	require.NoError(t, err)
	require.Equal(t, sent, got)
	require.Equal(t, all(t, from), all(t, to))
}

// Cut off at any byte, and with any byte another: an error, and no meta record.
func TestDamagedExports(t *testing.T) {
	from := memory.New().Partition(3) // a short one: each of its bytes is tried
	require.NoError(t, engine.SetMeta(t.Context(), from, "keyring", []byte("the document")))
	put(t, from, "a", "r1", "", "b", "", "sealed")
	whole := export(t, from)
	refused := func(t *testing.T, b []byte) {
		t.Helper()
		to := memory.New().Partition(1)
		_, err := arrive(t.Context(), bytes.NewReader(b), to)
		require.Error(t, err)
		require.True(t, errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrVersion), "%v", err)
		require.NoError(t, to.ListMeta(t.Context(), "", func(name string, _ []byte) error { return errors.New(name) }))
	}
	for n := range whole {
		refused(t, whole[:n])
	}
	for n := range whole {
		b := bytes.Clone(whole)
		b[n] ^= 0x10
		refused(t, b)
	}
	refused(t, append(bytes.Clone(whole), 0))
	refused(t, append(bytes.Clone(whole), whole...))
	other := bytes.Clone(whole)
	other[len(head)]++
	_, err := arrive(t.Context(), bytes.NewReader(other), memory.New().Partition(1))
	require.ErrorIs(t, err, engine.ErrVersion)
}

// What is not as Export writes it, with a sum that is right.
func TestForgedExports(t *testing.T) {
	for what, f := range map[string]func(w *writer) error{
		"ids out of order": func(w *writer) error {
			return errors.Join(w.writeRow([]byte("b"), nil, nil), w.writeRow([]byte("a"), nil, nil))
		},
		"an id twice": func(w *writer) error {
			return errors.Join(w.writeRow([]byte("a"), nil, nil), w.writeRow([]byte("a"), nil, nil))
		},
		"a name twice":              func(w *writer) error { return errors.Join(w.writeMeta("a", nil), w.writeMeta("a", nil)) },
		"a meta record after a row": func(w *writer) error { return errors.Join(w.writeRow([]byte("a"), nil, nil), w.writeMeta("a", nil)) },
		"no name":                   func(w *writer) error { return w.writeMeta("", nil) },
		"a name with a zero byte":   func(w *writer) error { return w.writeMeta("a\x00", nil) },
		"no id":                     func(w *writer) error { w.rows++; return w.frame(kindRow, []byte{0, 0, 0, 0}) },
		"an id that is too long":    func(w *writer) error { return w.writeRow(make([]byte, engine.MaxID+1), nil, nil) },
		"an unknown kind":           func(w *writer) error { return w.frame('X') },
		"a short meta record":       func(w *writer) error { return w.frame(kindMeta) },
		"a short row":               func(w *writer) error { return w.frame(kindRow, []byte{0, 0, 0}) },
		"a row of wrong sizes":      func(w *writer) error { return w.frame(kindRow, []byte{0, 1, 0, 1, 0}) },
		"a wrong count":             func(w *writer) error { w.rows++; return nil },
		"a short end":               func(w *writer) error { return w.frame(kindEnd, nil) },
	} {
		t.Run(what, func(t *testing.T) {
			var b bytes.Buffer
			w, err := newWriter(&b)
			require.NoError(t, err)
			require.NoError(t, f(w))
			require.NoError(t, w.end())
			to := memory.New().Partition(1)
			_, err = arrive(t.Context(), &b, to)
			require.ErrorIs(t, err, engine.ErrCorrupt)
		})
	}
	// More meta records than there may be take no more memory than these.
	w, err := newWriter(io.Discard)
	require.NoError(t, err)
	value := make([]byte, maxMeta/4)
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, w.writeMeta(name, value))
	}
	require.ErrorContains(t, w.writeMeta("d", value), "more than")
	_, err = arrive(t.Context(), io.MultiReader(metaFrames(value)...), memory.New().Partition(1))
	require.ErrorIs(t, err, engine.ErrCorrupt)
	require.ErrorContains(t, err, "more than")
	require.ErrorIs(t, w.writeRow(nil, nil, nil), engine.ErrCorrupt)
	// A size that is claimed takes no memory.
	b := append([]byte(head), headVersion, kindRow, 0x04, 0xff, 0xff, 0xff)
	_, err = arrive(t.Context(), bytes.NewReader(b), memory.New().Partition(1))
	require.ErrorIs(t, err, engine.ErrCorrupt)
}

// metaFrames is an export that has meta records without end, of one value.
func metaFrames(value []byte) []io.Reader {
	out := []io.Reader{bytes.NewReader(append([]byte(head), headVersion))}
	for name := byte('a'); name <= 'z'; name++ {
		frame := binary.BigEndian.AppendUint32([]byte{kindMeta}, uint32(2+len(value)))
		out = append(out, bytes.NewReader(append(frame, 1, name)), bytes.NewReader(value))
	}
	return out
}

func TestRefusals(t *testing.T) {
	ctx := t.Context()
	p := memory.New().Partition(1)
	_, err := Export(ctx, io.Discard, p, "keyring")
	require.ErrorIs(t, err, engine.ErrNotFound)

	to := memory.New().Partition(1)
	put(t, to, "a", "record", "sealed")
	_, err = arrive(ctx, bytes.NewReader(export(t, source(t))), to)
	require.ErrorContains(t, err, "not empty")

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = Export(ended, io.Discard, source(t), "keyring")
	require.ErrorIs(t, err, context.Canceled)

	broken := errors.New("the network is gone")
	_, err = arrive(ctx, iotest.ErrReader(broken), memory.New().Partition(1))
	require.ErrorIs(t, err, broken)
	_, err = arrive(ctx, io.MultiReader(bytes.NewReader(export(t, source(t))), iotest.ErrReader(broken)), memory.New().Partition(1))
	require.ErrorIs(t, err, broken, "whether the export ends there is not known")
	_, err = Export(ctx, brokenWriter{broken}, source(t), "keyring")
	require.ErrorIs(t, err, broken)
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// The size of a name is a byte, and the longest name has as many bytes as that can say.
func TestTheLongestName(t *testing.T) {
	for _, size := range []int{254, 255} {
		from, name := source(t), strings.Repeat("n", size)
		require.NoError(t, engine.SetMeta(t.Context(), from, name, []byte("value")))
		to := memory.New().Partition(9)
		_, err := arrive(t.Context(), bytes.NewReader(export(t, from)), to)
		require.NoError(t, err)
		require.Equal(t, all(t, from), all(t, to))
	}
}

// halved is a partition that has lost a part of a row.
type halved struct {
	engine.Partition
	part engine.Parts
	id   string
}

type halvedView struct {
	engine.View
	p halved
}

type halvedCursor struct {
	engine.Cursor
	p    halved
	part engine.Parts
}

func (p halved) View(ctx context.Context) (engine.View, error) {
	v, err := p.Partition.View(ctx)
	return halvedView{v, p}, err
}

func (v halvedView) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	c, err := v.View.Cursor(ctx, part, lower, upper)
	return halvedCursor{c, v.p, part}, err
}

func (c halvedCursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	clone, err := c.Cursor.Clone(part, lower, upper)
	return halvedCursor{clone, c.p, part}, err
}

func (c halvedCursor) First() bool { return c.past(c.Cursor.First()) }
func (c halvedCursor) Next() bool  { return c.past(c.Cursor.Next()) }

// past goes past what was lost.
func (c halvedCursor) past(is bool) bool {
	if is && c.part == c.p.part && string(c.ID()) == c.p.id {
		return c.Cursor.Next()
	}
	return is
}

// Half a row is damage, which is not moved along unseen, wherever it is.
func TestHalfRows(t *testing.T) {
	p := memory.New().Partition(1)
	require.NoError(t, engine.SetMeta(t.Context(), p, "keyring", []byte("the document")))
	put(t, p, "a", "record", "sealed", "m", "record", "sealed", "z", "record", "sealed")
	for _, part := range []engine.Parts{engine.Record, engine.Sealed} {
		for _, id := range []string{"a", "m", "z"} {
			_, err := Export(t.Context(), io.Discard, halved{p, part, id}, "keyring")
			require.ErrorIs(t, err, engine.ErrCorrupt, id)
			require.ErrorContains(t, err, `"`+id+`"`)
		}
	}
	// As an engine has it where only a record was put.
	b := p.NewBatch()
	require.NoError(t, b.PutRecord([]byte("zz"), []byte("alone")))
	require.NoError(t, p.Apply(t.Context(), b, engine.Guard{Floor: p.Floor().Revision}, false))
	require.NoError(t, b.Close())
	_, err := Export(t.Context(), io.Discard, p, "keyring")
	require.ErrorIs(t, err, engine.ErrCorrupt)
}

// restless changes the document whenever rows are looked at.
type restless struct {
	engine.Partition
	changes int
}

func (p *restless) View(ctx context.Context) (engine.View, error) {
	if p.changes > 0 {
		p.changes--
		if err := engine.SetMeta(ctx, p.Partition, "keyring", fmt.Append(nil, "document ", p.changes)); err != nil {
			return nil, err
		}
	}
	return p.Partition.View(ctx)
}

// The rows go with the document: an export waits for a moment at which they do.
func TestTheDocumentChanges(t *testing.T) {
	p := &restless{source(t), 3}
	to := memory.New().Partition(1)
	_, err := arrive(t.Context(), bytes.NewReader(export(t, p)), to)
	require.NoError(t, err)
	got, err := engine.ReadMeta(t.Context(), to, "keyring")
	require.NoError(t, err)
	require.Equal(t, "document 0", string(got))

	p.changes = 1000
	_, err = Export(t.Context(), io.Discard, p, "keyring")
	require.ErrorContains(t, err, "changes all the time")
}

// The bytes do not change.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "export.golden")
	got := export(t, source(t))
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func FuzzImport(f *testing.F) {
	var b bytes.Buffer
	w, err := newWriter(&b)
	require.NoError(f, errors.Join(err, w.writeMeta("keyring", []byte("document")), w.writeRow([]byte("a"), []byte("record"), []byte("sealed")), w.end()))
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:30])
	f.Fuzz(func(t *testing.T, in []byte) {
		to := memory.New().Partition(1)
		if _, err := arrive(t.Context(), bytes.NewReader(in), to); err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := Export(t.Context(), &out, to, "keyring"); errors.Is(err, engine.ErrNotFound) {
			return
		} else {
			require.NoError(t, err)
		}
		require.Equal(t, in, out.Bytes())
	})
}
