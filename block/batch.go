package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
)

// MaxBatch bounds the sum of a batch's ids, blocks and DEK records, in bytes.
const MaxBatch = engine.MaxBatch

// Batch is puts and deletions that are applied together or not at all. It belongs to one goroutine.
// Of several on one block the last wins.
//
// Blocks are sealed as they are put, so that a batch holds no plaintext, but for those that
// [Batch.PutLent] is lent. A batch ends with the
// session in which it was first used: if the store went Inaccessible since, Put, Delete and Commit
// return [ErrInaccessible], and the batch has to be made again.
type Batch struct {
	s       *Store
	b       engine.Batch
	state   batchState
	session uint64    // of the first use; 0: not used yet
	oldest  uint32    // the least epoch that a DEK record of the batch names
	unpin   func()    // releases the epochs that the batch was sealed under
	err     error     // what spoiled the batch
	lent    *row.Lent // nil: no block was lent
	tally   tally.Batch
}

type batchState uint8

const (
	batchOpen batchState = iota
	batchCommitted
	batchClosed
)

// NewBatch returns an empty batch, which may be made before the store is available. The caller
// commits or closes it.
func (s *Store) NewBatch() *Batch { return &Batch{s: s, oldest: row.NoEpoch} }

// hold returns a hold in the batch's session, which the first call sets.
func (b *Batch) hold(ctx context.Context) (keyring.Hold, error) {
	switch {
	case b.state == batchCommitted:
		return keyring.Hold{}, fmt.Errorf("the batch was committed: %w", ErrClosed)
	case b.state == batchClosed:
		return keyring.Hold{}, fmt.Errorf("the batch was closed: %w", ErrClosed)
	case b.err != nil:
		return keyring.Hold{}, b.err
	}
	if b.session != 0 {
		return b.s.keys.For(inner.Block{}).AcquireSession(b.session)
	}
	h, err := b.s.writeHold(ctx)
	if err != nil {
		return h, err
	}
	b.session, b.unpin = h.For(inner.Block{}).Session(), h.Pin()
	b.b = b.s.part.NewBatch()
	b.s.use.Track(b.b)
	return h, nil
}

// spoil makes every later call return err: a batch that lacks a put or a deletion must not commit
// the rest.
func (b *Batch) spoil(op tally.Op, id []byte, err error) error {
	if b.err == nil && b.state == batchOpen {
		b.err = err
	}
	if !errors.Is(err, ErrInvalidID) && !errors.Is(err, ErrTooLarge) {
		b.s.counts.Fail(op, err)
	}
	return wrapErr("batch "+tally.OpNames()[op], id, err)
}

// Put adds a block to the batch; see [Store.Put] for its limits and errors. After an error the
// batch cannot be committed.
func (b *Batch) Put(ctx context.Context, id, data []byte) error {
	if err := row.CheckBlock(id, data); err != nil {
		return b.spoil(tally.Put, id, err)
	}
	if err := ctx.Err(); err != nil {
		return b.spoil(tally.Put, id, err)
	}
	h, err := b.hold(ctx)
	if err != nil {
		return b.spoil(tally.Put, id, err)
	}
	defer func() { h.Release() }()
	if err := b.settleFor(ctx, &h, 2*len(id)+len(data)+maxRowOverhead); err != nil {
		return b.spoil(tally.Put, id, err)
	}
	if err := b.room(id, len(data)); err != nil {
		return b.spoil(tally.Put, id, err)
	}
	epoch, err := b.s.table.Add(ctx, &h, b.b, id, data)
	if err != nil {
		return b.spoil(tally.Put, id, err)
	}
	b.oldest = min(b.oldest, epoch)
	b.tally.Put(len(data))
	return nil
}

// PutLent is Put for a caller who lends data: it is the batch's to read until Commit has returned nil
// or Close has returned, and must not be changed until then. So the block is sealed later, on other
// cores too, while the caller goes on, and a batch of many blocks is committed sooner. id is the
// caller's again when PutLent returns. Put and PutLent may be mixed.
//
// At most 4 goroutines seal for one batch, beside the one that has it, and at most 16 for a directory,
// and always fewer than GOMAXPROCS. They end when there is nothing to seal, also if the batch is
// neither committed nor closed. For a block that is not sealed yet a batch has its id and 100 bytes.
// ctx bounds PutLent itself, and not the sealing, which Commit waits for.
//
// The errors are those of Put; what goes wrong later is an error of a later call, of Commit at the
// latest, and names the block. The batch cannot be committed then.
func (b *Batch) PutLent(ctx context.Context, id, data []byte) error {
	if err := row.CheckBlock(id, data); err != nil {
		return b.spoil(tally.Put, id, err)
	}
	if err := ctx.Err(); err != nil {
		return b.spoil(tally.Put, id, err)
	}
	h, err := b.hold(ctx)
	if err != nil {
		return b.spoil(tally.Put, id, err)
	}
	if b.lent == nil {
		b.lent = b.s.table.Lend(ctx, b.b, b.session)
	}
	full := false
	if err = b.room(id, len(data)); err == nil {
		full, err = b.lent.Put(&h, id, data)
	}
	h.Release()
	if err == nil && full {
		err = b.settle(ctx)
	}
	if err != nil {
		return b.spoil(tally.Put, id, err)
	}
	b.tally.Put(len(data))
	return nil
}

// settle has all lent blocks sealed. The caller has no hold.
func (b *Batch) settle(ctx context.Context) error {
	if b.lent == nil {
		return nil
	}
	oldest, err := b.lent.Settle(ctx)
	b.oldest = min(b.oldest, oldest)
	return err
}

// settleFor is settle if the batch could not take n bytes otherwise. The hold is let go meanwhile.
func (b *Batch) settleFor(ctx context.Context, h *keyring.Hold, n int) (err error) {
	if b.lent == nil || b.lent.Quiet(n) {
		return nil
	}
	h.Release()
	*h = keyring.Hold{}
	if err := b.settle(ctx); err != nil {
		return err
	}
	*h, err = b.hold(ctx)
	return err
}

// maxRowOverhead is more than all that one op has besides its ids and its data.
const maxRowOverhead = 512

// room refuses what would make the batch larger than MaxBatch. Both keys of a row have the id.
func (b *Batch) room(id []byte, size int) error {
	grown := b.b.Size() + 2*len(id) + size + maxRowOverhead
	if b.lent != nil {
		grown += b.lent.Waiting()
	}
	if grown > MaxBatch {
		return fmt.Errorf("the batch would have %d bytes, the most is %d: %w", grown, MaxBatch, ErrTooLarge)
	}
	return nil
}

// Delete adds the deletion of a block to the batch. It counts towards [MaxBatch] like a block of 0
// bytes. After an error the batch cannot be committed.
func (b *Batch) Delete(ctx context.Context, id []byte) error {
	if err := row.CheckID(id); err != nil {
		return b.spoil(tally.Delete, id, err)
	}
	if err := ctx.Err(); err != nil {
		return b.spoil(tally.Delete, id, err)
	}
	h, err := b.hold(ctx)
	if err != nil {
		return b.spoil(tally.Delete, id, err)
	}
	defer func() { h.Release() }()
	if err := b.settleFor(ctx, &h, 2*len(id)+maxRowOverhead); err != nil {
		return b.spoil(tally.Delete, id, err)
	}
	if err := b.room(id, 0); err != nil {
		return b.spoil(tally.Delete, id, err)
	}
	if err := b.b.Delete(id); err != nil {
		return b.spoil(tally.Delete, id, err)
	}
	b.tally.Delete()
	return nil
}

// Commit applies the batch, durably unless Options.NoSync is set. A batch is committed once; it
// needs no Close afterwards. An empty batch commits nothing.
func (b *Batch) Commit(ctx context.Context) error {
	if err := b.s.counts.Fail(tally.Commit, ctx.Err()); err != nil {
		return fmt.Errorf("block: commit: %w", err)
	}
	if b.state == batchOpen && b.err == nil {
		if err := b.settle(ctx); err != nil && ctx.Err() == nil {
			b.err = err
		}
		if err := b.s.counts.Fail(tally.Commit, ctx.Err()); err != nil {
			return fmt.Errorf("block: commit: %w", err)
		}
	}
	h, err := b.hold(ctx)
	if err != nil {
		b.s.counts.Fail(tally.Commit, err)
		return fmt.Errorf("block: commit: %w", err)
	}
	defer func() { h.Release() }()
	b.state = batchCommitted
	defer b.unpin()
	defer b.s.use.Finish(b.b)
	if b.lent != nil {
		b.lent.End()
	}
	if b.b.Empty() {
		return nil
	}
	err = b.s.table.Commit(ctx, &h, b.b, b.oldest)
	b.s.counts.Committed(b.tally, err)
	if err != nil {
		return fmt.Errorf("block: commit: %w", err)
	}
	return nil
}

// Close discards a batch that was not committed. After Commit it does nothing.
func (b *Batch) Close() error {
	if b.state != batchOpen {
		return nil
	}
	b.state = batchClosed
	if b.session == 0 {
		return nil
	}
	if b.lent != nil {
		b.lent.End()
	}
	defer b.unpin()
	return b.s.use.Finish(b.b)
}

// String, GoString and Format, on the value too, print the store; see Store.String.

func (b Batch) String() string { return "block.Batch of " + b.s.String() }

func (b Batch) GoString() string { return b.String() }

func (b Batch) Format(f fmt.State, _ rune) { io.WriteString(f, b.String()) }

// errUnwound is what a load is counted as that ends with a panic of where the blocks come from.
var errUnwound = errors.New("what the blocks come from has panicked")

// Load puts many blocks at once: all of them or, if it returns an error, none. Their ids ascend in
// byte order, each comes once, and an error that comes with a block ends the load. So what
// [Store.Blocks] walks in one store can be loaded into another. A block's ID and Data are the caller's
// again at the next step. Load returns how many blocks there were.
//
//	n, err := to.Load(ctx, from.Blocks(ctx, block.Range{}))
//
// Load writes the engine's tables directly, past its log and memtables, beside DEK records in tables
// of their own, and seals on several cores. Nothing is visible until all is durable, when it returns.
// The blocks replace what the store has under their ids by then, also what others have put since Load
// began. What is written meanwhile is not held up until the tables are taken up, which waits for the
// disk. A crash before that leaves nothing: what was written lies in the store's directory, as large as
// the blocks, and the next Open removes it. Erase refuses with [ErrPinned] during a load, and a
// rotation goes on beside it.
//
// Memory is bounded: some MiB, and the largest block a few times. A load ends with the session in which
// it began, with [ErrInaccessible] or [ErrClosed]. On a full disk ctx and Close end it. Where the engine's
// files are closed just when the blocks become visible (DBOptions.FileKEK), the error says that it is not
// known whether they are: all or none. With ByKEK, and on engines without tables
// (PostgreSQL), it returns [errors.ErrUnsupported]: put the blocks in batches there. Other errors are
// those of [Store.Put]. At most 5 goroutines work beside the caller's.
func (s *Store) Load(ctx context.Context, blocks iter.Seq2[Block, error]) (n uint64, err error) {
	var t tally.Batch
	defer func() {
		s.counts.Committed(t, err)
		if err != nil {
			n, err = 0, fmt.Errorf("block: load: %w", err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	h, err := s.writeHold(ctx)
	if err != nil {
		return 0, err
	}
	session := h.For(inner.Block{}).Session()
	defer h.Pin()() // what is sealed under an epoch is rewrapped when it is applied
	h.Release()
	ctx, cancel := s.whileOpen(ctx)
	defer cancel()
	defer func() { err = s.ending(err) }()
	pairs := func(yield func(row.Pair, error) bool) {
		for b, err := range blocks {
			if !yield(row.Pair{ID: b.ID, Value: b.Data}, err) {
				return
			}
		}
	}
	err = errUnwound
	err = s.table.Load(ctx, session, pairs, func(size int) {
		n++
		t.Put(size)
	})
	return n, err
}
