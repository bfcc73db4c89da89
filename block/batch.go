package block

import (
	"context"
	"errors"
	"fmt"
	"io"

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
// Blocks are sealed as they are put, so that a batch holds no plaintext. A batch ends with the
// session in which it was first used: if the store went Inaccessible since, Put, Delete and Commit
// return [ErrInaccessible], and the batch has to be made again.
type Batch struct {
	s       *Store
	b       engine.Batch
	state   batchState
	session uint64 // of the first use; 0: not used yet
	oldest  uint32 // the least epoch that a DEK record of the batch names
	unpin   func() // releases the epochs that the batch was sealed under
	err     error  // what spoiled the batch
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

// room refuses what would make the batch larger than MaxBatch. Both keys of a row have the id; 512
// bytes are more than all else that one op has.
func (b *Batch) room(id []byte, size int) error {
	if grown := b.b.Size() + 2*len(id) + size + 512; grown > MaxBatch {
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
	defer h.Release()
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
	h, err := b.hold(ctx)
	if err != nil {
		b.s.counts.Fail(tally.Commit, err)
		return fmt.Errorf("block: commit: %w", err)
	}
	defer func() { h.Release() }()
	b.state = batchCommitted
	defer b.unpin()
	defer b.s.use.Finish(b.b)
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
	defer b.unpin()
	return b.s.use.Finish(b.b)
}

// String, GoString and Format, on the value too, print the store; see Store.String.

func (b Batch) String() string { return "block.Batch of " + b.s.String() }

func (b Batch) GoString() string { return b.String() }

func (b Batch) Format(f fmt.State, _ rune) { io.WriteString(f, b.String()) }
