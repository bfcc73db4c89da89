package rewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

var errEngine = errors.New("the engine failed")

// failing is a partition of which one call fails, the left-th from now.
type failing struct {
	engine.Partition
	left int
}

func (f *failing) due() error {
	f.left--
	if f.left == 0 {
		return errEngine
	}
	return nil
}

func (f *failing) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	if err := f.due(); err != nil {
		return err
	}
	return f.Partition.Get(ctx, id, want, row)
}

func (f *failing) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := f.due(); err != nil {
		return nil, err
	}
	c, err := f.Partition.Cursor(ctx, part, lower, upper)
	return &failingCursor{c, f}, err
}

func (f *failing) View(ctx context.Context) (engine.View, error) {
	if err := f.due(); err != nil {
		return nil, err
	}
	v, err := f.Partition.View(ctx)
	return &failingView{v, f}, err
}

func (f *failing) NewBatch() engine.Batch { return &failingBatch{f.Partition.NewBatch(), f} }

func (f *failing) Replace(ctx context.Context, b engine.Batch, was []engine.Was) (int, error) {
	if err := f.due(); err != nil {
		return 0, err
	}
	return f.Partition.Replace(ctx, b.(*failingBatch).Batch, was)
}

func (f *failing) Sync(ctx context.Context) error {
	return errors.Join(f.due(), f.Partition.Sync(ctx))
}

func (f *failing) RaiseFloor(ctx context.Context, epoch uint32) error {
	if err := f.due(); err != nil {
		return err
	}
	return f.Partition.RaiseFloor(ctx, epoch)
}

func (f *failing) RefuseKEKs(ctx context.Context, keks []uint32) error {
	if err := f.due(); err != nil {
		return err
	}
	return f.Partition.RefuseKEKs(ctx, keks)
}

func (f *failing) LoadMeta(ctx context.Context, name string) ([]byte, uint64, error) {
	if err := f.due(); err != nil {
		return nil, 0, err
	}
	return f.Partition.LoadMeta(ctx, name)
}

func (f *failing) SwapMeta(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
	if err := f.due(); err != nil {
		return nil, err
	}
	return f.Partition.SwapMeta(ctx, changes...)
}

type failingView struct {
	engine.View
	f *failing
}

func (v *failingView) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	if err := v.f.due(); err != nil {
		return err
	}
	return v.View.Get(ctx, id, want, row)
}

func (v *failingView) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := v.f.due(); err != nil {
		return nil, err
	}
	c, err := v.View.Cursor(ctx, part, lower, upper)
	return &failingCursor{c, v.f}, err
}

type failingCursor struct {
	engine.Cursor
	f *failing
}

func (c *failingCursor) Value() ([]byte, error) {
	if err := c.f.due(); err != nil {
		return nil, err
	}
	return c.Cursor.Value()
}

func (c *failingCursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := c.f.due(); err != nil {
		return nil, err
	}
	clone, err := c.Cursor.Clone(part, lower, upper)
	return &failingCursor{clone, c.f}, err
}

type failingBatch struct {
	engine.Batch
	f *failing
}

func (b *failingBatch) Put(id, record []byte, size int) ([]byte, error) {
	if err := b.f.due(); err != nil {
		return nil, err
	}
	return b.Batch.Put(id, record, size)
}

func (b *failingBatch) PutRecord(id, record []byte) error {
	if err := b.f.due(); err != nil {
		return err
	}
	return b.Batch.PutRecord(id, record)
}

// An engine that fails at any one call ends an operation with its error, costs no block, and
// the operation does all of its work when it is called again.
func TestEveryFailureOfTheEngine(t *testing.T) {
	const blocks = 6
	for name, op := range map[string]struct {
		wrapping keyring.Wrapping
		before   func(g rig)
		do       func(g rig) error
		done     func(g rig, was, is keyring.RecordInfo)
	}{
		"rotate the epoch": {keyring.ByKeyring, func(rig) {}, func(g rig) error {
			_, err := g.RotateEpoch(g.t.Context(), nil)
			return err
		}, func(g rig, was, is keyring.RecordInfo) { require.Greater(g.t, is.Epoch, was.Epoch) }},
		"rekey": {keyring.ByKeyring, func(rig) {}, func(g rig) error { return g.Rekey(g.t.Context(), nil, nil, nil) }, func(rig, keyring.RecordInfo, keyring.RecordInfo) {}},
		"renew": {keyring.ByKeyring, func(g rig) { g.clock.Step(time.Hour) }, func(g rig) error { return g.Renew(g.t.Context()) },
			func(g rig, was, is keyring.RecordInfo) { require.Greater(g.t, is.Epoch, was.Epoch) }},
		"rewrap": {keyring.ByKEK, func(g rig) {
			require.NoError(g.t, g.Keys.ChangeKEK(g.t.Context(), kek.New(g.vault, g.vault.CreateKey("another").Versionless())))
		}, func(g rig) error { return g.RewrapDEKs(g.t.Context(), nil) },
			func(g rig, was, is keyring.RecordInfo) { require.NotEqual(g.t, was.KEK, is.KEK) }},
	} {
		t.Run(name, func(t *testing.T) {
			failures := 0
			for n := 1; ; n++ {
				g := newRig(t, keyring.Options{Wrapping: op.wrapping, RekeyAfter: time.Hour, Lease: 10 * time.Hour, AllowLongLease: true}, 0)
				g.Steps = Steps{Records: 2, Bytes: 1 << 20, Mark: 1}
				for i := range blocks {
					g.put(fmt.Sprint("block ", i), fmt.Sprint("data ", i))
				}
				was := g.infos()
				op.before(g)
				part := &failing{Partition: g.Table.Part, left: n}
				g.Table.Part = part
				err := op.do(g)
				if err == nil && part.left > 0 {
					break // there are no more calls
				}
				failures++
				require.ErrorIs(t, err, errEngine, "call %d", n)
				g.Table.Part = part.Partition
				g.reads(blocks)
				require.NoError(t, op.do(g), "call %d", n)
				g.reads(blocks)
				for id, is := range g.infos() {
					op.done(g, was[id], is)
				}
			}
			t.Logf("%d calls", failures)
			require.Greater(t, failures, blocks)
		})
	}
}

// infos returns what every DEK record says in clear, by block id.
func (g rig) infos() map[string]keyring.RecordInfo {
	out := map[string]keyring.RecordInfo{}
	require.NoError(g.t, g.Table.EachRecord(g.t.Context(), nil, func(id, _ []byte, in keyring.RecordInfo) (bool, error) {
		out[string(id)] = in
		return true, nil
	}))
	return out
}

// reads requires that all blocks are there.
func (g rig) reads(n int) {
	g.t.Helper()
	g.held(func(h *keyring.Hold) {
		for i := range n {
			got, err := g.Table.Get(g.t.Context(), h, fmt.Append(nil, "block ", i), nil)
			require.NoError(g.t, err)
			require.Equal(g.t, fmt.Sprint("data ", i), string(got))
		}
	})
}

// losing is a partition of several processes. Its turn is lost during the walk, and the next owner, which
// is cut off, has taken the refusal back; then somebody writes behind the walk, who has not met the change
// of the KEK.
type losing struct {
	engine.Partition
	walked func() // is called when the walk has ended that looks who needs a KEK
	lost   bool
}

func (l *losing) Turn(context.Context) (release func(), err error) { return func() {}, nil }

func (l *losing) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	c, err := l.Partition.Cursor(ctx, part, lower, upper)
	return &losingCursor{c, l}, err
}

func (l *losing) RefuseKEKs(ctx context.Context, keks []uint32) error {
	if l.lost {
		return engine.ErrTurnLost
	}
	return l.Partition.RefuseKEKs(ctx, keks)
}

type losingCursor struct {
	engine.Cursor
	l *losing
}

func (c *losingCursor) Next() bool {
	if c.Cursor.Next() {
		return true
	}
	if len(c.l.Floor().KEKs) > 0 && !c.l.lost {
		c.l.lost = true
		c.l.walked()
	}
	return false
}

// A KEK is not dropped by who has lost the turn since it was refused: a record may name it that was
// written behind the walk.
func TestLostTurnDropsNoKEK(t *testing.T) {
	g := newRig(t, keyring.Options{Wrapping: keyring.ByKEK}, 0)
	g.put("block 0", "data 0")
	var late engine.Row
	require.NoError(t, g.Table.Part.Get(t.Context(), []byte("block 0"), engine.Both, &late))
	record, sealed := bytes.Clone(late.Record), bytes.Clone(late.Sealed)
	late.Release()
	require.NoError(t, g.Keys.ChangeKEK(t.Context(), kek.New(g.vault, g.vault.CreateKey("another").Versionless())))
	under := g.Table.Part
	part := &losing{Partition: under, walked: func() {
		require.NoError(t, under.RefuseKEKs(t.Context(), nil))
		b := under.NewBatch()
		defer b.Close()
		room, err := b.Put([]byte("block 0"), record, len(sealed))
		require.NoError(t, err)
		copy(room, sealed)
		require.NoError(t, under.Apply(t.Context(), b, engine.Guard{Floor: under.Floor().Revision, Epoch: under.Floor().Epoch, Below: true}, false))
	}}
	g.Table.Part = part
	require.ErrorIs(t, g.RewrapDEKs(t.Context(), nil), engine.ErrTurnLost)
	require.True(t, part.lost)
	keks, _ := g.Keys.KEKs()
	require.Len(t, keks, 2, "a record needs the one of before")
	g.Table.Part = under
	require.NoError(t, g.RewrapDEKs(t.Context(), nil))
	keks, active := g.Keys.KEKs()
	require.Len(t, keks, 1)
	require.Equal(t, active, g.infos()["block 0"].KEK)
	g.reads(1)
}

// Who waits for the turn gets it, or the reason why it does not come.
func TestTurns(t *testing.T) {
	g := newRig(t, keyring.Options{}, 0)
	closing, end := context.WithCancel(t.Context())
	g.Ctx = closing
	require.NoError(t, g.AcquireTurn(t.Context(), "first"))
	ctx, cancel := context.WithCancel(t.Context())
	wait := func(ctx context.Context) chan error {
		out := make(chan error, 1)
		go func() { out <- g.AcquireTurn(ctx, "second") }()
		return out
	}
	waiting := wait(ctx)
	cancel()
	require.ErrorIs(t, <-waiting, context.Canceled)
	waiting = wait(t.Context())
	g.ReleaseTurn()
	require.NoError(t, <-waiting)
	waiting = wait(t.Context())
	end()
	require.ErrorIs(t, <-waiting, keyring.ErrClosed)
	require.ErrorIs(t, g.AcquireTurn(t.Context(), "third"), keyring.ErrClosed)
	require.ErrorIs(t, g.RewrapDEKs(t.Context(), nil), keyring.ErrClosed)
	g.ReleaseTurn()
	g.ReadOnly = true
	require.ErrorIs(t, g.AcquireTurn(t.Context(), "fourth"), keyring.ErrReadOnly)
	require.ErrorIs(t, g.RewrapDEKs(t.Context(), nil), keyring.ErrReadOnly)
}
