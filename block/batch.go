package block

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Batch is a set of changes that happen together or not at all. It belongs to one
// goroutine. Later changes of a block win over earlier ones in the batch.
//
// Blocks are sealed as they are put, so that a batch holds no plaintext. A batch
// ends with the stretch of access in which its first block was put: if the store
// went Inaccessible since, Put and Commit return [ErrInaccessible], and the batch
// is to be made again.
type Batch struct {
	s       *Store
	b       engine.Batch
	state   batchState
	session uint64 // of the first change; 0: none yet
	oldest  uint32 // the least epoch that a record in the batch names
	unpin   func() // lets go of the epochs that the batch was sealed under
	err     error  // what spoiled the batch
	tally   tally
}

type batchState uint8

const (
	batchOpen batchState = iota
	batchCommitted
	batchClosed
)

// NewBatch returns an empty batch. Commit or Close it; it may be made before the
// store is available.
func (s *Store) NewBatch() *Batch { return &Batch{s: s, oldest: noEpoch} }

// hold returns a hold in the batch's session, which the first call determines.
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
		return b.s.keys.AcquireSession(b.session)
	}
	h, err := b.s.writeHold(ctx)
	if err != nil {
		return h, err
	}
	b.session, b.unpin = h.Session(), h.Pin()
	b.b = b.s.part.NewBatch()
	b.s.track(b.b)
	return h, nil
}

// spoil makes every later call return err: a batch that could not take a change
// must not commit the rest.
func (b *Batch) spoil(op failureOp, id []byte, err error) error {
	if b.err == nil && b.state == batchOpen {
		b.err = err
	}
	if !errors.Is(err, ErrInvalidID) && !errors.Is(err, ErrTooLarge) {
		b.s.counts.fail(op, err)
	}
	return wrapErr("batch "+failureOpNames()[op], id, err)
}

// Put adds a block to the batch; see [Store.Put] for its limits and errors. After
// an error the batch cannot be committed.
func (b *Batch) Put(ctx context.Context, id, data []byte) error {
	if err := checkBlock(id, data); err != nil {
		return b.spoil(failedPut, id, err)
	}
	if err := ctx.Err(); err != nil {
		return b.spoil(failedPut, id, err)
	}
	h, err := b.hold(ctx)
	if err != nil {
		return b.spoil(failedPut, id, err)
	}
	defer func() { h.Release() }()
	if err := b.room(id, len(data)); err != nil {
		return b.spoil(failedPut, id, err)
	}
	sc := b.s.take(id)
	defer b.s.give(sc)
	if err := b.s.seal(ctx, &h, b.b, sc, id, data); err != nil {
		return b.spoil(failedPut, id, err)
	}
	b.oldest = min(b.oldest, recordEpoch(sc.row.Record))
	b.tally.put(len(data))
	return nil
}

// room refuses a change of a block that would make the batch larger than MaxBatch. Both
// of the block's keys have its id; 512 bytes are more than all else that a change takes.
func (b *Batch) room(id []byte, size int) error {
	if grown := b.b.Size() + 2*len(id) + size + 512; grown > MaxBatch {
		return fmt.Errorf("the batch would have %d bytes, the most is %d: %w", grown, MaxBatch, ErrTooLarge)
	}
	return nil
}

// Delete adds the deletion of a block to the batch, which counts towards [MaxBatch] as a
// block of 0 bytes does. After an error the batch cannot be committed.
func (b *Batch) Delete(ctx context.Context, id []byte) error {
	if err := checkID(id); err != nil {
		return b.spoil(failedDelete, id, err)
	}
	if err := ctx.Err(); err != nil {
		return b.spoil(failedDelete, id, err)
	}
	h, err := b.hold(ctx)
	if err != nil {
		return b.spoil(failedDelete, id, err)
	}
	defer h.Release()
	if err := b.room(id, 0); err != nil {
		return b.spoil(failedDelete, id, err)
	}
	if err := b.b.Delete(id); err != nil {
		return b.spoil(failedDelete, id, err)
	}
	b.tally.deletes++
	return nil
}

// Commit makes the changes happen, atomically, and durably unless Options.NoSync.
// A batch is committed once; it needs no Close afterwards. An empty batch commits
// nothing.
func (b *Batch) Commit(ctx context.Context) error {
	if err := b.s.counts.fail(failedCommit, ctx.Err()); err != nil {
		return fmt.Errorf("block: commit: %w", err)
	}
	h, err := b.hold(ctx)
	if err != nil {
		b.s.counts.fail(failedCommit, err)
		return fmt.Errorf("block: commit: %w", err)
	}
	defer func() { h.Release() }()
	b.state = batchCommitted
	defer b.unpin()
	defer b.s.finish(b.b)
	if b.b.Empty() {
		return nil
	}
	err = b.s.commitMany(ctx, &h, b.b, b.oldest)
	b.s.counts.commit(b.tally, err)
	if err != nil {
		return fmt.Errorf("block: commit: %w", err)
	}
	return nil
}

// Close forgets a batch that was not committed. It is not needed after Commit, and
// does no harm.
func (b *Batch) Close() error {
	if b.state != batchOpen {
		return nil
	}
	b.state = batchClosed
	if b.session == 0 {
		return nil
	}
	defer b.unpin()
	return b.s.finish(b.b)
}
