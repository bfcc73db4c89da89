package row

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Put commits one block.
func (t *Table) Put(ctx context.Context, h *keyring.Hold, id, data []byte) error {
	if !t.common.Shared {
		return t.putBlock(ctx, h, id, data)
	}
	ctx, end := within(ctx, h)
	return end(t.putBlock(ctx, h, id, data))
}

func (t *Table) putBlock(ctx context.Context, h *keyring.Hold, id, data []byte) error {
	sc := t.borrow(id)
	defer t.giveBack(sc)
	for {
		// ErrStale: the KEK was changed between sealing and committing. Seal again.
		if err := t.putOnce(ctx, h, sc, id, data); !errors.Is(err, ErrStale) {
			return err
		}
	}
}

func (t *Table) putOnce(ctx context.Context, h *keyring.Hold, sc *scratch, id, data []byte, was ...engine.Was) error {
	b := t.Part.NewBatch()
	defer b.Close()
	if err := t.seal(ctx, h, b, sc, id, data); err != nil {
		return err
	}
	sc.key.Destroy() // now, and not after the wait for the log
	write := t.common.rows.announce(t.salt, id)
	err := t.apply(ctx, h, b, recordEpoch(sc.row.Record), was...)
	t.common.rows.report(write)
	if err != nil {
		return err
	}
	t.common.records.put(t.salt, id, sc.row.Record)
	return t.durable(b)
}

// PutIf commits one block in place of one whose contents are old, or of none if old is nil;
// ErrChanged says that the store has another, or none. It reads the block from the engine, opens
// and compares it, and writes if the row still has the record that was read. If the record was only
// rewrapped in between, PutIf reads again.
func (t *Table) PutIf(ctx context.Context, h *keyring.Hold, id, old, data []byte) error {
	if !t.common.Shared {
		return t.putBlockIf(ctx, h, id, old, data)
	}
	ctx, end := within(ctx, h)
	return end(t.putBlockIf(ctx, h, id, old, data))
}

func (t *Table) putBlockIf(ctx context.Context, h *keyring.Hold, id, old, data []byte) error {
	sc := t.borrow(id)
	defer t.giveBack(sc)
	for {
		was := engine.Was{ID: id}
		plain, err := t.getAt(ctx, h, sc, t.Part, id, nil)
		same := old != nil && subtle.ConstantTimeCompare(plain, old) == 1
		clear(plain) // now, and not after the wait for the log
		sc.key.Destroy()
		switch {
		case err == nil:
			if !same {
				return ErrChanged
			}
			was.Record = bytes.Clone(sc.row.Record)
		case !errors.Is(err, ErrNotFound):
			return err
		case old != nil:
			return ErrChanged
		}
		err = t.putOnce(ctx, h, sc, id, data, was)
		if !errors.Is(err, ErrStale) && !errors.Is(err, engine.ErrChanged) {
			return err
		}
	}
}

// Delete commits the deletion of one block.
func (t *Table) Delete(ctx context.Context, h *keyring.Hold, id []byte) error {
	if !t.common.Shared {
		return t.deleteBlock(ctx, h, id)
	}
	ctx, end := within(ctx, h)
	return end(t.deleteBlock(ctx, h, id))
}

func (t *Table) deleteBlock(ctx context.Context, h *keyring.Hold, id []byte) error {
	b := t.Part.NewBatch()
	defer b.Close()
	if err := b.Delete(id); err != nil {
		return err
	}
	write := t.common.rows.announce(t.salt, id)
	err := t.apply(ctx, h, b, NoEpoch)
	t.common.rows.report(write)
	if err != nil {
		return err
	}
	t.common.records.drop(t.salt, id)
	return t.durable(b)
}

// Add adds a block to a batch, and returns the epoch that its DEK record names.
func (t *Table) Add(ctx context.Context, h *keyring.Hold, b engine.Batch, id, data []byte) (epoch uint32, err error) {
	sc := t.borrow(id)
	defer t.giveBack(sc)
	if err := t.seal(ctx, h, b, sc, id, data); err != nil {
		return 0, err
	}
	return recordEpoch(sc.row.Record), nil
}

// Reseal adds a block under a fresh DEK to a batch that is to replace one that opens.
func (t *Table) Reseal(ctx context.Context, h *keyring.Hold, b engine.Batch, id, data []byte) error {
	sc := t.borrow(id)
	defer t.giveBack(sc)
	if err := t.seal(ctx, h, b, sc, id, data); err != nil {
		return err
	}
	return t.proveRecord(ctx, h, sc, id)
}

// seal adds a block under a fresh DEK to a batch, and leaves the DEK record in sc.row.Record. It
// seals into the batch's own memory.
func (t *Table) seal(ctx context.Context, h *keyring.Hold, b engine.Batch, sc *scratch, id, data []byte) (err error) {
	if sc.row.Record, err = h.NewDEK(ctx, sc.row.Record[:0], &sc.key, &sc.binding); err != nil {
		return err
	}
	value, err := b.Put(id, sc.row.Record, Overhead+len(data))
	if err != nil {
		return err
	}
	return sealBlock(sc, value, data)
}

// sealBlock seals data with the scratch's key into value, the block's place in a batch.
func sealBlock(sc *scratch, value, data []byte) error {
	value[0] = blockVersion
	sealed := sc.key.Seal(value[1:1], data, sc.aad)
	if len(sealed) != len(value)-1 || &sealed[0] != &value[1] {
		// The room is exact, so that Seal has no reason to allocate. If it ever did, the batch
		// would commit zeros.
		return fmt.Errorf("a block of %d bytes sealed to %d bytes outside the batch", len(data), len(sealed))
	}
	return nil
}

// proveRecord has the vault unwrap a DEK that it just wrapped (ByKEK): its answer is about to
// replace a wrap that is good.
func (t *Table) proveRecord(ctx context.Context, h *keyring.Hold, sc *scratch, id []byte) error {
	in, err := keyring.ParseRecord(sc.row.Record)
	if err != nil || in.Wrapping != keyring.ByKEK {
		return err
	}
	again := t.borrow(id)
	defer t.giveBack(again)
	if err := h.OpenDEK(ctx, &again.key, sc.row.Record, &again.binding); err != nil {
		return fmt.Errorf("the vault's wrap of the new DEK is of no use: %w", err)
	}
	if subtle.ConstantTimeCompare(again.key.Bytes(), sc.key.Bytes()) != 1 {
		return fmt.Errorf("the vault unwrapped to another DEK than it had wrapped: %w", keyring.ErrCorrupt)
	}
	return nil
}

var (
	// ErrWritten says that a block was written after its record was read.
	ErrWritten = errors.New("block: written meanwhile")
	// ErrUnopened says that the DEK of a record does not open its block. One of them is damaged, or
	// the vault answered wrongly; while nobody knows which, the present wrap is not replaced.
	ErrUnopened = fmt.Errorf("its DEK does not open the block, and was left as it is: %w", keyring.ErrCorrupt)
)

// RewrapKEK returns a DEK record that the KEK of the keyring's document wraps (ByKEK), once the DEK
// has opened the block.
func (t *Table) RewrapKEK(ctx context.Context, h *keyring.Hold, was engine.Was) (record []byte, err error) {
	sc := t.borrow(was.ID)
	defer t.giveBack(sc)
	sealed, err := t.sealedWith(ctx, sc, was)
	if err != nil {
		return nil, err
	}
	return h.RewrapKEK(ctx, nil, was.Record, &sc.binding, func(k *dek.Key) error {
		plain, err := k.Open(nil, sealed, sc.aad)
		clear(plain)
		if err != nil {
			return ErrUnopened
		}
		return nil
	})
}

// sealedWith returns a copy of the sealed block that belongs to a record. The vault is asked next,
// and nothing may pin the engine then.
func (t *Table) sealedWith(ctx context.Context, sc *scratch, was engine.Was) ([]byte, error) {
	defer sc.row.Release()
	err := t.Part.Get(ctx, was.ID, engine.Both|engine.Together, &sc.row)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil, ErrWritten
	case err != nil:
		return nil, Damage(err)
	case sc.row.Has&engine.Record == 0 || !bytes.Equal(sc.row.Record, was.Record):
		return nil, ErrWritten
	case sc.row.Has&engine.Sealed == 0:
		return nil, ErrUnopened
	}
	sealed, err := checkSealed(bytes.Clone(sc.row.Sealed))
	if err != nil {
		return nil, ErrUnopened
	}
	return sealed, nil
}
