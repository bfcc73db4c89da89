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

// Put commits a block.
func (t *Table) Put(ctx context.Context, h *keyring.Hold, id, data []byte) error {
	sc := t.take(id)
	defer t.give(sc)
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
	sc.key.Destroy() // not after the wait for the log
	change := t.rows.announce(id)
	err := t.apply(ctx, h, b, recordEpoch(sc.row.Record), was...)
	t.rows.report(change)
	if err != nil {
		return err
	}
	t.records.put(id, sc.row.Record)
	return t.durable(b)
}

// PutIf commits a block in the place of one that has the contents old, or of none if old is nil;
// ErrChanged says that there is another, or none. The block is read from the engine, opened and
// compared, and the change made if its record is that which was read still. A record that was
// rewrapped in between is read again.
func (t *Table) PutIf(ctx context.Context, h *keyring.Hold, id, old, data []byte) error {
	sc := t.take(id)
	defer t.give(sc)
	for {
		was := engine.Was{ID: id}
		plain, err := t.getAt(ctx, h, sc, t.Part, id, nil)
		same := old != nil && subtle.ConstantTimeCompare(plain, old) == 1
		clear(plain) // not after the wait for the log
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

// Delete commits that a block is not there.
func (t *Table) Delete(ctx context.Context, h *keyring.Hold, id []byte) error {
	b := t.Part.NewBatch()
	defer b.Close()
	if err := b.Delete(id); err != nil {
		return err
	}
	change := t.rows.announce(id)
	err := t.apply(ctx, h, b, NoEpoch)
	t.rows.report(change)
	if err != nil {
		return err
	}
	t.records.drop(id)
	return t.durable(b)
}

// Add adds a block to a batch, and returns the epoch that its DEK record names.
func (t *Table) Add(ctx context.Context, h *keyring.Hold, b engine.Batch, id, data []byte) (epoch uint32, err error) {
	sc := t.take(id)
	defer t.give(sc)
	if err := t.seal(ctx, h, b, sc, id, data); err != nil {
		return 0, err
	}
	return recordEpoch(sc.row.Record), nil
}

// Reseal adds to a batch a block under a fresh DEK, which is to replace one that opens.
func (t *Table) Reseal(ctx context.Context, h *keyring.Hold, b engine.Batch, id, data []byte) error {
	sc := t.take(id)
	defer t.give(sc)
	if err := t.seal(ctx, h, b, sc, id, data); err != nil {
		return err
	}
	return t.proveRecord(ctx, h, sc, id)
}

// seal adds to b a block under a fresh DEK, and the DEK's record, which it leaves
// in sc.row.Record. The block is sealed into the batch's own memory.
func (t *Table) seal(ctx context.Context, h *keyring.Hold, b engine.Batch, sc *scratch, id, data []byte) (err error) {
	if sc.row.Record, err = h.NewDEK(ctx, sc.row.Record[:0], &sc.key, &sc.binding); err != nil {
		return err
	}
	value, err := b.Put(id, sc.row.Record, Overhead+len(data))
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

// proveRecord has the vault unwrap a DEK that it just wrapped (ByKEK): what it answered
// is about to replace a wrap that is good.
func (t *Table) proveRecord(ctx context.Context, h *keyring.Hold, sc *scratch, id []byte) error {
	in, err := keyring.ParseRecord(sc.row.Record)
	if err != nil || in.Wrapping != keyring.ByKEK {
		return err
	}
	again := t.take(id)
	defer t.give(again)
	if err := h.OpenDEK(ctx, &again.key, sc.row.Record, &again.binding); err != nil {
		return fmt.Errorf("the vault's wrap of the new DEK is of no use: %w", err)
	}
	if subtle.ConstantTimeCompare(again.key.Bytes(), sc.key.Bytes()) != 1 {
		return fmt.Errorf("the vault unwrapped to another DEK than it had wrapped: %w", keyring.ErrCorrupt)
	}
	return nil
}

var (
	// ErrWritten says that a block was written since its record was read.
	ErrWritten = errors.New("block: written meanwhile")
	// ErrUnopened says that the DEK of a record does not open its block. Either is damaged, or the
	// vault answered wrongly; as long as nobody knows which, the wrap that is there is not
	// replaced.
	ErrUnopened = fmt.Errorf("its DEK does not open the block, and was left as it is: %w", keyring.ErrCorrupt)
)

// RewrapKEK returns the record of a DEK, wrapped by the KEK that wraps the keyring now (ByKEK),
// when the DEK has been seen to open the block.
func (t *Table) RewrapKEK(ctx context.Context, h *keyring.Hold, was engine.Was) (record []byte, err error) {
	sc := t.take(was.ID)
	defer t.give(sc)
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

// sealedWith returns a copy of the sealed block that goes with a record: the vault is
// asked next, and nothing of the engine's may be held then.
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
