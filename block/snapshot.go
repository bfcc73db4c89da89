package block

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
)

// Snapshot is the store at one moment. It is safe for concurrent use. It ends with the session in
// which it was made: if the store went Inaccessible since, or was then, everything returns
// [ErrInaccessible].
type Snapshot struct {
	s       *Store
	snap    engine.View // nil if err is set
	session uint64
	unpin   func() // releases the epochs that the snapshot reads
	err     error
}

// Snapshot returns the store as it is now. The caller closes it: until then the engine keeps what
// is overwritten and deleted.
func (s *Store) Snapshot() *Snapshot {
	h, err := s.keys.Acquire()
	if err != nil {
		return &Snapshot{s: s, err: err}
	}
	defer h.Release()
	ctx, end := h.For(inner.Block{}).Within(s.ctx) // in a directory View does not wait
	view, err := s.part.View(ctx)
	if err = end(s.ending(err)); err != nil {
		return &Snapshot{s: s, err: err}
	}
	s.use.Track(view)
	return &Snapshot{s: s, snap: view, session: h.For(inner.Block{}).Session(), unpin: sync.OnceFunc(h.Pin())}
}

// hold returns a hold in the snapshot's session. Within it the engine's view stays open, unless the
// caller closed the snapshot before.
func (sn *Snapshot) hold() (keyring.Hold, error) {
	if sn.err != nil {
		return keyring.Hold{}, sn.err
	}
	h, err := sn.s.keys.For(inner.Block{}).AcquireSession(sn.session)
	if err != nil {
		return h, err
	}
	if !sn.s.use.Tracked(sn.snap) {
		h.Release()
		return keyring.Hold{}, fmt.Errorf("the snapshot was closed: %w", ErrClosed)
	}
	return h, nil
}

// Get is [Store.Get] at the snapshot's moment.
func (sn *Snapshot) Get(ctx context.Context, id, dst []byte) ([]byte, error) {
	if err := sn.s.mayRead(ctx, tally.Get, id); err != nil {
		return nil, wrapErr("get", id, err)
	}
	h, err := sn.hold()
	if err != nil {
		sn.s.counts.Got(0, err)
		return nil, wrapErr("get", id, err)
	}
	defer func() { h.Release() }()
	out, err := sn.s.table.GetAt(ctx, &h, sn.snap, id, dst)
	sn.s.counts.Got(len(out)-len(dst), err)
	if err != nil {
		return nil, wrapErr("get", id, err)
	}
	return out, nil
}

// Has is [Store.Has] at the snapshot's moment.
func (sn *Snapshot) Has(ctx context.Context, id []byte) (bool, error) {
	if err := sn.s.mayRead(ctx, tally.Has, id); err != nil {
		return false, wrapErr("has", id, err)
	}
	h, err := sn.hold()
	if err != nil {
		return false, wrapErr("has", id, sn.s.counts.Fail(tally.Has, err))
	}
	defer h.Release()
	ok, err := sn.s.has(ctx, &h, sn.snap, id)
	if err != nil {
		return false, wrapErr("has", id, sn.s.counts.Fail(tally.Has, err))
	}
	return ok, nil
}

// Blocks is [Store.Blocks] at the snapshot's moment.
func (sn *Snapshot) Blocks(ctx context.Context, r Range) iter.Seq2[Block, error] {
	return sn.s.walk(ctx, r, sn.then)
}

// IDs is [Store.IDs] at the snapshot's moment.
func (sn *Snapshot) IDs(ctx context.Context, r Range) iter.Seq2[[]byte, error] {
	return sn.s.ids(ctx, r, sn.then)
}

// then begins a walk over the snapshot.
func (sn *Snapshot) then() (keyring.Hold, engine.Reader, error) {
	h, err := sn.hold()
	return h, sn.snap, err
}

// Close releases the snapshot. Nobody may use the snapshot meanwhile. Closing twice does nothing.
func (sn *Snapshot) Close() error {
	if sn.snap == nil {
		return nil
	}
	defer sn.unpin()
	return sn.s.use.Finish(sn.snap)
}

// String, GoString and Format, on the value too, print the store; see Store.String.

func (sn Snapshot) String() string { return "block.Snapshot of " + sn.s.String() }

func (sn Snapshot) GoString() string { return sn.String() }

func (sn Snapshot) Format(f fmt.State, _ rune) { io.WriteString(f, sn.String()) }
