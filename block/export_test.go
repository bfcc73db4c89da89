package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// Records returns every DEK record by block id, as the engine has it.
func (s *Store) Records() map[string]string {
	out := map[string]string{}
	it, err := s.part.Cursor(context.Background(), engine.Record, nil, nil)
	if err != nil {
		panic(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			panic(err)
		}
		out[string(it.ID())] = string(v)
	}
	return out
}

// Document returns the keyring document, as the engine has it.
func (s *Store) Document() []byte {
	doc, err := register.Document(context.Background(), s.part)
	if err != nil {
		panic(err)
	}
	return doc
}

// raw is the store's engine with its keys as they are.
func (s *Store) raw() *pebble.DB { return s.db.engine.(*pebble.DB) }

// Engine returns a value as the engine has it.
func (s *Store) Engine(key []byte) []byte {
	v, closer, err := s.raw().Get(key)
	if err != nil {
		panic(err)
	}
	defer closer.Close()
	return bytes.Clone(v)
}

// SetEngine changes a value behind the store's back, or deletes it if it is nil.
func (s *Store) SetEngine(key, value []byte) {
	b := s.raw().NewBatch()
	defer b.Close()
	err := b.Delete(key)
	if value != nil {
		err = b.Set(key, value)
	}
	if err = errors.Join(err, s.raw().Commit(b, false)); err != nil {
		panic(err)
	}
}

// ReloadKeyring opens the keyring document as Open would, with RequireAccess.
func (s *Store) ReloadKeyring(ctx context.Context, k *kek.KEK) error {
	doc, err := register.Document(ctx, s.part)
	if err != nil {
		return err
	}
	if err := register.CheckStoreID(ctx, s.part, doc); err != nil {
		return err
	}
	o := s.opts.Keyring
	o.RequireAccess, o.OnEvent = true, nil
	storage := &register.Storage{}
	if err := storage.Attach(ctx, s.part); err != nil {
		return err
	}
	r, err := keyring.Open(ctx, storage, k, &o)
	if err != nil {
		return err
	}
	return r.Close()
}

// GetHeld is Get without the lease check: in a hold that the caller has.
func (s *Store) GetHeld(ctx context.Context, h *keyring.Hold, id, dst []byte) ([]byte, error) {
	if err := s.mayRead(ctx, tally.Get, id); err != nil {
		return nil, err
	}
	return s.table.Get(ctx, h, id, dst)
}

// Hold returns a hold of the store's keyring.
func (s *Store) Hold() (keyring.Hold, error) { return s.keys.Acquire() }

// SetSteps makes rewriting operations that begin from now on take smaller steps:
// records of them at a time, and a marker after every so many.
func (s *Store) SetSteps(records, mark int) {
	s.rewriter.Steps.Records, s.rewriter.Steps.Mark = records, mark
}

// FillEpochs begins epochs until the keyring holds no more.
func (s *Store) FillEpochs(t testing.TB, ctx context.Context) {
	t.Helper()
	for {
		if err := s.keys.BeginEpoch(ctx); err != nil {
			require.ErrorIs(t, err, keyring.ErrLimit)
			return
		}
	}
}

// FlushEngine has the engine write its memtables out.
func (s *Store) FlushEngine(ctx context.Context) error { return s.raw().Flush(ctx) }

// LookAtCopies moves the copies that are behind, as the store does by itself.
func (s *Store) LookAtCopies(ctx context.Context) error {
	_, err := s.lookAtCopies(ctx, true)
	return err
}

// Unspoil lets a batch that refused a change be tried with another one.
func (b *Batch) Unspoil() { b.err = nil }

// Weigh makes a batch that was used count n bytes more than it has, until undo is called.
func (b *Batch) Weigh(n int) (undo func()) {
	light := b.b
	b.b = heavy{light, n}
	return func() { b.b = light }
}

// heavy is a batch that counts more bytes than it has.
type heavy struct {
	engine.Batch
	more int
}

func (h heavy) Size() int { return h.Batch.Size() + h.more }

// SetReceipt replaces what is kept of the receipt of the store that was in a partition.
func (d *DB) SetReceipt(t testing.TB, number uint32, value []byte) {
	t.Helper()
	require.NoError(t, engine.SetMeta(t.Context(), d.catalogue.Meta(), receiptName(number), value))
}

// DamageRecords overwrites every DEK record behind the store's back.
func (s *Store) DamageRecords() {
	for id := range s.Records() {
		s.SetEngine(appendKey(nil, spaceDEK, s.number, []byte(id)), []byte("damaged"))
	}
}

// DamageDocument overwrites the keyring document of a store that is not open.
func (d *DB) DamageDocument(t testing.TB, name string) {
	t.Helper()
	e, err := d.catalogue.Find(t.Context(), name)
	require.NoError(t, err)
	p := d.engine.Partition(e.Number)
	defer p.Release()
	require.NoError(t, engine.SetMeta(t.Context(), p, register.DocumentName, []byte("damaged")))
}

// Closing reports whether the store has begun to close.
func (s *Store) Closing() bool { return s.ctx.Err() != nil }

// HasCopied reports whether a Checkpoint has begun.
func (d *DB) HasCopied() bool { return d.copies.Load() > 0 }

// LeaveUnfinished leaves what an Import leaves that was cut off after some rows and could not be taken back,
// and returns the number of its partition.
func (d *DB) LeaveUnfinished(t testing.TB, name string) uint32 {
	t.Helper()
	e, err := d.catalogue.Add(t.Context(), name, nil)
	require.NoError(t, err)
	p := d.engine.Partition(e.Number)
	defer p.Release()
	b := p.NewBatch()
	room, err := b.Put([]byte("id"), []byte("record"), 100)
	require.NoError(t, err)
	copy(room, "sealed")
	require.NoError(t, p.Apply(t.Context(), b, engine.Guard{Floor: p.Floor().Revision}, false))
	require.NoError(t, b.Close())
	require.NoError(t, p.Sync(t.Context()))
	return e.Number
}

// HoldsAnything reports whether a partition that nobody has open holds anything.
func (d *DB) HoldsAnything(t testing.TB, number uint32) bool {
	t.Helper()
	p := d.engine.Partition(number)
	defer p.Release()
	some, err := engine.HoldsAnything(t.Context(), p)
	require.NoError(t, err)
	return some
}

// FillRegister has the store remember copies until it remembers no more.
func (s *Store) FillRegister(t testing.TB) {
	t.Helper()
	require.NoError(t, s.saveCopies(t.Context(), func(r register.Register) []register.Entry {
		for n := len(r.Copies); n < register.MaxCopies; n++ {
			var instance inner.InstanceID
			binary.BigEndian.PutUint32(instance[:], uint32(n+1))
			r.Copies = append(r.Copies, s.aboutToBe("gone", instance)) // in their order
		}
		return r.Copies
	}))
}

// EpochIDs returns the ids of the epochs.
func (s *Store) EpochIDs() ([]uint32, error) { return s.keys.Epochs() }

// MarkDropping begins a drop of a store that is not open, with something in the place of the draft.
func (d *DB) MarkDropping(t testing.TB, name string, draft []byte) {
	t.Helper()
	e, err := d.catalogue.Find(t.Context(), name)
	require.NoError(t, err)
	_, err = d.catalogue.Advance(t.Context(), e, catalogue.Dropping, engine.Swap{Name: receiptName(e.Number), Revision: engine.AnyRevision, Value: draft})
	require.NoError(t, err)
}

// Helpers returns how many goroutines seal for batches.
func (s *Store) Helpers() int { return s.table.Helpers() }
