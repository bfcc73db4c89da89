package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// scratch is the memory of one operation, pooled, so that the hot paths allocate
// nothing but what the standard library's key set-up does.
type scratch struct {
	key     dek.Key
	binding keyring.Binding // partition | block id
	aad     []byte          // of the sealed block: version | store id | partition | block id
	row     engine.Row      // what was found of a block, and the record of one that is put
}

// take returns a scratch that is bound to a block.
func (s *Store) take(id []byte) *scratch {
	sc := s.scratch.Get().(*scratch)
	store := s.keys.StoreID()
	sc.aad = append(sc.aad[:0], blockVersion)
	sc.aad = append(sc.aad, store[:]...)
	sc.aad = binary.BigEndian.AppendUint32(sc.aad, s.partition)
	sc.aad = append(sc.aad, id...)
	// What follows the store id is what the DEK record is bound to as well.
	sc.binding.Set(sc.aad[1+len(store):])
	return sc
}

// give returns a scratch with its key destroyed.
func (s *Store) give(sc *scratch) {
	sc.key.Destroy()
	s.scratch.Put(sc)
}

// Put stores data, 0 to [MaxBlock] bytes, as the block with the given id, 1 to
// [MaxID] bytes, in place of an older one. When it returns nil the block is
// durable (unless Options.NoSync); when it returns an error the store holds either
// the old block or the new one.
//
// It keeps no reference to id or data. Errors: [ErrInvalidID], [ErrTooLarge],
// [ErrInaccessible], [ErrReadOnly], [ErrClosed].
//
// When blocks come faster than the disk takes them Put waits for it, which neither ctx nor
// Close ends, and a lock of the store waits for Put. When the disk is full, and what is in
// memory has filled the memtables, changes are refused with the file system's error, and
// nothing is lost. Only one that waits already when the disk begins to fail goes on waiting
// until there is room.
func (s *Store) Put(ctx context.Context, id, data []byte) error {
	if err := checkBlock(id, data); err != nil {
		return wrapErr("put", id, err)
	}
	if err := s.counts.fail(failedPut, ctx.Err()); err != nil {
		return wrapErr("put", id, err)
	}
	h, err := s.writeHold(ctx)
	if err != nil {
		s.counts.put(0, err)
		return wrapErr("put", id, err)
	}
	defer func() { h.Release() }()

	sc := s.take(id)
	defer s.give(sc)
	for {
		err := s.putOnce(ctx, &h, sc, id, data)
		if err == nil {
			s.counts.put(len(data), nil)
			return nil
		}
		if !errors.Is(err, ErrStale) {
			s.counts.put(0, err)
			return wrapErr("put", id, err)
		}
		// The KEK was changed between sealing and committing: seal again.
	}
}

func (s *Store) putOnce(ctx context.Context, h *keyring.Hold, sc *scratch, id, data []byte) error {
	b := s.part.NewBatch()
	defer b.Close()
	if err := s.seal(ctx, h, b, sc, id, data); err != nil {
		return err
	}
	sc.key.Destroy() // not after the wait for the log
	change := s.rows.announce(id)
	err := s.apply(ctx, h, b, recordEpoch(sc.row.Record))
	s.rows.report(change)
	if err != nil {
		return err
	}
	s.records.put(id, sc.row.Record)
	return s.durable(b)
}

// Delete removes the block with the given id, and its DEK. It is not an error if
// there is none. What the files still hold of a deleted block goes with
// compaction, and with the epoch key; see docs/threat-model.md.
func (s *Store) Delete(ctx context.Context, id []byte) error {
	if err := checkID(id); err != nil {
		return wrapErr("delete", id, err)
	}
	if err := s.counts.fail(failedDelete, ctx.Err()); err != nil {
		return wrapErr("delete", id, err)
	}
	h, err := s.writeHold(ctx)
	if err != nil {
		s.counts.deleted(err)
		return wrapErr("delete", id, err)
	}
	defer func() { h.Release() }()
	b := s.part.NewBatch()
	defer b.Close()
	if err := b.Delete(id); err != nil {
		return wrapErr("delete", id, err)
	}
	change := s.rows.announce(id)
	err = s.apply(ctx, &h, b, noEpoch)
	s.rows.report(change)
	if err == nil {
		s.records.drop(id)
		err = s.durable(b)
	}
	s.counts.deleted(err)
	if err != nil {
		return wrapErr("delete", id, err)
	}
	return nil
}

// writeHold is a hold for a change.
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
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if s.proven.Load() {
		return nil
	}
	return s.prove(ctx, h)
}

// seal adds to b a block under a fresh DEK, and the DEK's record, which it leaves
// in sc.row.Record. The block is sealed into the batch's own memory.
func (s *Store) seal(ctx context.Context, h *keyring.Hold, b engine.Batch, sc *scratch, id, data []byte) (err error) {
	if sc.row.Record, err = h.NewDEK(ctx, sc.row.Record[:0], &sc.key, &sc.binding); err != nil {
		return err
	}
	value, err := b.Put(id, sc.row.Record, blockOverhead+len(data))
	if err != nil {
		return err
	}
	value[0] = blockVersion
	sealed := sc.key.Seal(value[1:1], data, sc.aad)
	if len(sealed) != len(value)-1 || &sealed[0] != &value[1] {
		// The room is exact, so that Seal has no reason to allocate; if it ever
		// did, the batch would commit zeros.
		return fmt.Errorf("a block of %d bytes sealed to %d bytes outside the batch", len(data), len(sealed))
	}
	return nil
}

// bind makes a binding that of a block.
func (s *Store) bind(b *keyring.Binding, id []byte) {
	var partition [partitionSize]byte
	binary.BigEndian.PutUint32(partition[:], s.partition)
	b.Set(partition[:], id)
}
