package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
)

// Limits in bytes.
const (
	// MaxID is the size of the longest block id; the shortest has 1 byte.
	MaxID = row.MaxID
	// MaxBlock is the size of the largest block; the smallest has 0 bytes.
	MaxBlock = row.MaxBlock
)

// Get appends the block with the given id to dst and returns the extended slice. On error it
// returns nil; dst's spare capacity may have been written to.
//
// Errors: [ErrNotFound], [ErrInaccessible], [ErrCorrupt], [ErrInvalidID], [ErrClosed].
func (s *Store) Get(ctx context.Context, id, dst []byte) ([]byte, error) {
	if err := s.mayRead(ctx, tally.Get, id); err != nil {
		return nil, wrapErr("get", id, err)
	}
	h, err := s.keys.Acquire()
	if err != nil {
		s.counts.Got(0, err)
		return nil, wrapErr("get", id, err)
	}
	defer func() { h.Release() }()
	out, err := s.table.Get(ctx, &h, id, dst)
	s.counts.Got(len(out)-len(dst), err)
	if err != nil {
		return nil, wrapErr("get", id, err)
	}
	return out, nil
}

func (s *Store) mayRead(ctx context.Context, op tally.Op, id []byte) error {
	if err := row.CheckID(id); err != nil {
		return err
	}
	return s.counts.Fail(op, ctx.Err())
}

// Has reports whether there is a block with the given id. It opens nothing, so that it finds
// damaged blocks too.
func (s *Store) Has(ctx context.Context, id []byte) (bool, error) {
	if err := s.mayRead(ctx, tally.Has, id); err != nil {
		return false, wrapErr("has", id, err)
	}
	h, err := s.keys.Acquire()
	if err != nil {
		return false, wrapErr("has", id, s.counts.Fail(tally.Has, err))
	}
	defer h.Release()
	ok, err := s.has(ctx, &h, s.table.Part, id)
	if err != nil {
		return false, wrapErr("has", id, s.counts.Fail(tally.Has, err))
	}
	return ok, nil
}

// Put stores data, 0 to [MaxBlock] bytes, as the block with the given id, 1 to [MaxID] bytes, in
// place of an older one. When it returns nil the block is durable (unless Options.NoSync is set);
// when it returns an error the store has either the old block or the new one.
//
// It keeps no reference to id or data. Errors: [ErrInvalidID], [ErrTooLarge], [ErrInaccessible],
// [ErrReadOnly], [ErrClosed].
//
// When blocks come faster than the disk writes them, Put waits for the disk. Neither ctx nor Close
// ends that wait, and a lock of the store waits for Put. When the disk and the memtables are full,
// writes are refused with the file system's error, and nothing is lost; only a write that already
// waits when the disk begins to fail waits until there is room.
func (s *Store) Put(ctx context.Context, id, data []byte) error {
	if err := row.CheckBlock(id, data); err != nil {
		return wrapErr("put", id, err)
	}
	if err := s.counts.Fail(tally.Put, ctx.Err()); err != nil {
		return wrapErr("put", id, err)
	}
	h, err := s.writeHold(ctx)
	if err == nil {
		defer func() { h.Release() }()
		err = s.table.Put(ctx, &h, id, data)
	}
	if err != nil {
		s.counts.Put(0, err)
		return wrapErr("put", id, err)
	}
	s.counts.Put(len(data), nil)
	return nil
}

// PutIf is Put if the block's contents are old; nil says that there is no block, an empty slice
// that it has 0 bytes. Else PutIf returns [ErrChanged] and writes nothing. So if several callers
// read a block and put what they made of it, none overwrites what another did; who gets ErrChanged
// reads again.
//
// PutIf costs a Get that uses no cache, and a Put that excludes all other writes of the store for a
// moment. With ByKEK it calls the vault to read and to write. It does not replace a block that is
// damaged ([ErrCorrupt]) or of a later release ([ErrVersion]). Its other errors are those of Put.
func (s *Store) PutIf(ctx context.Context, id, old, data []byte) error {
	if err := row.CheckBlock(id, data); err != nil {
		return wrapErr("put if", id, err)
	}
	if err := s.counts.Fail(tally.Put, ctx.Err()); err != nil {
		return wrapErr("put if", id, err)
	}
	h, err := s.writeHold(ctx)
	if err == nil {
		defer func() { h.Release() }()
		err = s.table.PutIf(ctx, &h, id, old, data)
	}
	if !errors.Is(err, ErrChanged) { // ErrChanged is an answer and no failure
		s.counts.Put(len(data), err)
	}
	if err != nil {
		return wrapErr("put if", id, err)
	}
	return nil
}

// Delete removes the block with the given id, and its DEK. It is not an error if there is none. The
// files keep traces of a deleted block until compaction, and the end of its epoch key, remove them;
// see docs/threat-model.md.
func (s *Store) Delete(ctx context.Context, id []byte) error {
	if err := row.CheckID(id); err != nil {
		return wrapErr("delete", id, err)
	}
	if err := s.counts.Fail(tally.Delete, ctx.Err()); err != nil {
		return wrapErr("delete", id, err)
	}
	h, err := s.writeHold(ctx)
	if err == nil {
		defer func() { h.Release() }()
		err = s.table.Delete(ctx, &h, id)
	}
	s.counts.Deleted(err)
	if err != nil {
		return wrapErr("delete", id, err)
	}
	return nil
}

// writeHold is a hold for a write.
func (s *Store) writeHold(ctx context.Context) (keyring.Hold, error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return h, err
	}
	if err := s.mayWrite(ctx, &h); err != nil {
		h.Release()
		return keyring.Hold{}, err
	}
	return h, nil
}

func (s *Store) mayWrite(ctx context.Context, h *keyring.Hold) error {
	if s.readOnly {
		return ErrReadOnly
	}
	return s.prove(ctx, h)
}

// Range is the ids from Start, inclusive, to End, exclusive, in byte order. A nil bound is none.
type Range struct {
	Start, End []byte
	// Reverse has a walk go from the greatest id to the least. [Store.Rekey] ignores it.
	Reverse bool
}

// Prefix returns the range of the ids that begin with p; all ids if p is empty.
func Prefix(p []byte) Range {
	r := Range{Start: slices.Clone(p)}
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] < 0xff { // the last byte that can be raised ends the range
			r.End = slices.Clone(p[:i+1])
			r.End[i]++
			break
		}
	}
	return r
}

// Block is a block of a scan. ID and Data are valid until the next step: copy what you keep.
type Block struct{ ID, Data []byte }

// Blocks walks the blocks of r in order, as they are when the walk begins. A walk ends with its
// first error, which comes with an empty Block; after the store went Inaccessible, the next step is
// [ErrInaccessible].
//
//	for b, err := range s.Blocks(ctx, block.Range{}) {
//		if err != nil { ... }
//	}
func (s *Store) Blocks(ctx context.Context, r Range) iter.Seq2[Block, error] {
	return s.walk(ctx, r, s.now)
}

// IDs walks the ids of the blocks of r in order, as they are when the walk begins. It opens no
// block and costs a small part of [Store.Blocks]; a damaged block has an id too. An id is valid
// until the next step. A walk ends with its first error, which comes with a nil id; after the store
// went Inaccessible, the next step is [ErrInaccessible]. Erase refuses with [ErrPinned] while a
// walk is open.
func (s *Store) IDs(ctx context.Context, r Range) iter.Seq2[[]byte, error] {
	return s.ids(ctx, r, s.now)
}

// now begins a walk over the store as it is.
func (s *Store) now() (keyring.Hold, engine.Reader, error) {
	h, err := s.keys.Acquire()
	return h, s.table.Part, err
}

func (s *Store) ids(ctx context.Context, r Range, begin func() (keyring.Hold, engine.Reader, error)) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		err := s.table.EachID(ctx, r.Start, r.End, r.Reverse, begin, func(id []byte) bool { return yield(id, nil) })
		if err != nil {
			s.counts.Fail(tally.Scan, err)
			yield(nil, fmt.Errorf("block: ids: %w", err))
		}
	}
}

// walk is Blocks over what begin returns. It calls begin when the walk begins.
func (s *Store) walk(ctx context.Context, r Range, begin func() (keyring.Hold, engine.Reader, error)) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		err := s.table.Walk(ctx, r.Start, r.End, r.Reverse, begin, func(id, data []byte) bool {
			s.counts.Scanned(len(data))
			return yield(Block{ID: id, Data: data}, nil)
		})
		if err != nil {
			s.counts.Fail(tally.Scan, err)
			yield(Block{}, fmt.Errorf("block: scan: %w", err))
		}
	}
}

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
