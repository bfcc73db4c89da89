package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
)

// faults counts what is asked of an engine, fails one call, and knows what was not closed.
type faults struct {
	calls, at int // the call that fails
	open      int
	puts      int
}

var errBroken = errors.New("broken")

func (f *faults) call() error {
	f.calls++
	if f.calls-1 == f.at {
		return errBroken
	}
	return nil
}

// closed is the Close of what was open.
func (f *faults) closed(c io.Closer) error {
	f.open--
	return errors.Join(f.call(), c.Close())
}

type failing struct {
	engine.Partition
	f *faults
}

func (p failing) ListMeta(ctx context.Context, prefix string, do func(string, []byte) error) error {
	if err := p.f.call(); err != nil {
		return err
	}
	return p.Partition.ListMeta(ctx, prefix, do)
}

func (p failing) LoadMeta(ctx context.Context, name string) ([]byte, uint64, error) {
	if err := p.f.call(); err != nil {
		return nil, 0, err
	}
	return p.Partition.LoadMeta(ctx, name)
}

func (p failing) SwapMeta(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	if err := p.f.call(); err != nil {
		return nil, err
	}
	return p.Partition.SwapMeta(ctx, swaps...)
}

func (p failing) Sync(ctx context.Context) error {
	return errors.Join(p.f.call(), p.Partition.Sync(ctx))
}

func (p failing) View(ctx context.Context) (engine.View, error) {
	if err := p.f.call(); err != nil {
		return nil, err
	}
	v, err := p.Partition.View(ctx)
	p.f.open++
	return failingView{v, p.f}, err
}

func (p failing) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	return p.f.cursor(func() (engine.Cursor, error) { return p.Partition.Cursor(ctx, part, lower, upper) })
}

func (p failing) NewBatch() engine.Batch {
	p.f.open++
	return failingBatch{p.Partition.NewBatch(), p.f}
}

func (p failing) Apply(ctx context.Context, b engine.Batch, guard engine.Guard, durable bool) error {
	if err := p.f.call(); err != nil {
		return err
	}
	return p.Partition.Apply(ctx, b.(failingBatch).Batch, guard, durable)
}

type failingView struct {
	engine.View
	f *faults
}

func (v failingView) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	return v.f.cursor(func() (engine.Cursor, error) { return v.View.Cursor(ctx, part, lower, upper) })
}

func (v failingView) Close() error { return v.f.closed(v.View) }

type failingBatch struct {
	engine.Batch
	f *faults
}

func (b failingBatch) Put(id, record []byte, size int) ([]byte, error) {
	if err := b.f.call(); err != nil {
		return nil, err
	}
	b.f.puts++
	return b.Batch.Put(id, record, size)
}

// Size is that of a batch which is full with the third row: one more follows.
func (b failingBatch) Size() int {
	if b.f.puts == 3 {
		return batchBytes
	}
	return b.Batch.Size()
}

func (b failingBatch) Close() error { return b.f.closed(b.Batch) }

type failingCursor struct {
	engine.Cursor
	f   *faults
	err error
}

func (f *faults) cursor(make func() (engine.Cursor, error)) (engine.Cursor, error) {
	if err := f.call(); err != nil {
		return nil, err
	}
	c, err := make()
	f.open++
	return &failingCursor{Cursor: c, f: f}, err
}

func (c *failingCursor) moved(is bool) bool {
	if c.err == nil {
		c.err = c.f.call()
	}
	return is && c.err == nil
}

func (c *failingCursor) First() bool { return c.moved(c.Cursor.First()) }
func (c *failingCursor) Next() bool  { return c.moved(c.Cursor.Next()) }
func (c *failingCursor) Err() error  { return errors.Join(c.err, c.Cursor.Err()) }

func (c *failingCursor) Value() ([]byte, error) {
	if err := c.f.call(); err != nil {
		return nil, err
	}
	return c.Cursor.Value()
}

func (c *failingCursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	return c.f.cursor(func() (engine.Cursor, error) { return c.Cursor.Clone(part, lower, upper) })
}

func (c *failingCursor) Close() error { return c.f.closed(c.Cursor) }

// Whatever the engine fails at is told, nothing is left open, and of a store whose rows did not all arrive there
// is no meta record.
func TestWhateverFailsIsTold(t *testing.T) {
	from := source(t)
	whole := export(t, from)
	for name, do := range map[string]func(p engine.Partition) error{
		"export": func(p engine.Partition) error { _, err := Export(t.Context(), io.Discard, p, "keyring"); return err },
		"import": func(p engine.Partition) error { _, err := arrive(t.Context(), bytes.NewReader(whole), p); return err },
	} {
		t.Run(name, func(t *testing.T) {
			for at := 0; ; at++ {
				f := &faults{at: at}
				p := from
				if name == "import" {
					p = memory.New().Partition(1)
				}
				err := do(failing{p, f})
				require.Zero(t, f.open, "call %d", at)
				if f.calls <= at {
					require.NoError(t, err)
					require.Greater(t, at, 10)
					require.Equal(t, all(t, from), all(t, p))
					return
				}
				require.ErrorIs(t, err, errBroken, "call %d", at)
				if name == "import" && at < f.calls-2 { // the batch is closed behind the meta records
					require.NotContains(t, strings.Join(all(t, p), "\n"), "meta", "call %d", at)
				}
			}
		})
	}
}

// An import applies its rows as it goes, in batches of some MiB, and holds the lock while it writes the meta records,
// and neither before nor after.
func TestBatchesAndTheLock(t *testing.T) {
	from := memory.New().Partition(1)
	require.NoError(t, engine.SetMeta(t.Context(), from, "keyring", []byte("the document")))
	for i := range 5 {
		put(t, from, fmt.Sprint(i), "record", strings.Repeat("x", 1<<20))
	}
	a, err := Read(t.Context(), bytes.NewReader(export(t, from)))
	require.NoError(t, err)
	var lock sync.Mutex
	a.Last = &lock
	to := &watching{Partition: memory.New().Partition(1), lock: &lock}
	_, err = a.Into(t.Context(), to)
	require.NoError(t, err)
	require.Equal(t, []string{"applied, free", "applied, free", "synced, free", "meta, locked"}, to.seen)
	require.True(t, lock.TryLock())
	require.Equal(t, all(t, from), all(t, to.Partition))
}

type watching struct {
	engine.Partition
	lock *sync.Mutex
	seen []string
}

func (w *watching) see(what string) {
	if w.lock.TryLock() {
		w.lock.Unlock()
		what += ", free"
	} else {
		what += ", locked"
	}
	w.seen = append(w.seen, what)
}

func (w *watching) Apply(ctx context.Context, b engine.Batch, guard engine.Guard, durable bool) error {
	w.see("applied")
	return w.Partition.Apply(ctx, b, guard, durable)
}

func (w *watching) Sync(ctx context.Context) error {
	w.see("synced")
	return w.Partition.Sync(ctx)
}

func (w *watching) SwapMeta(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	w.see("meta")
	return w.Partition.SwapMeta(ctx, swaps...)
}

// Each bound is what it says: what is as large as may be goes through, and a byte more is refused.
func TestBoundsOfAnExport(t *testing.T) {
	value := make([]byte, maxMeta)
	for _, c := range []struct {
		more   int
		refuse string
	}{{0, ""}, {1, "more than"}} {
		w, err := newWriter(io.Discard)
		require.NoError(t, err)
		err = w.writeMeta(strings.Repeat("n", 1+c.more), value[1:])
		if c.refuse == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.refuse)
		}
		frame := append([]byte{kindMeta, 0x04, 0, 0, byte(1 + c.more)}, byte(1+c.more))
		_, err = Read(t.Context(), io.MultiReader(strings.NewReader(head+string(rune(headVersion))), bytes.NewReader(frame),
			strings.NewReader(strings.Repeat("n", 1+c.more)), bytes.NewReader(value[1:])))
		if c.refuse == "" {
			require.ErrorContains(t, err, "is cut off")
		} else {
			require.ErrorContains(t, err, c.refuse)
		}
	}
	row := make([]byte, maxFrame-4-1) // besides its sizes and an id
	w, err := newWriter(io.Discard)
	require.NoError(t, err)
	require.NoError(t, w.writeRow([]byte("a"), nil, row))
	require.ErrorContains(t, w.writeRow([]byte("bb"), nil, row), "the most is")
	for _, size := range []uint32{maxFrame, maxFrame + 1} {
		r, err := newReader(strings.NewReader(head + string(rune(headVersion)) + string([]byte{kindRow, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)})))
		require.NoError(t, err)
		_, err = r.next()
		if size == maxFrame {
			require.ErrorContains(t, err, "is cut off")
		} else {
			require.ErrorContains(t, err, "the most is")
		}
	}
}
