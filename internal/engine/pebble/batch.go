package pebble

import "github.com/cockroachdb/pebble/v2"

// Batch collects ops that are applied together or not at all. It belongs to one goroutine.
type Batch struct{ b *pebble.Batch }

// NewBatch returns an empty batch. The caller closes it.
func (d *DB) NewBatch() Batch { return Batch{d.p.NewBatch()} }

// Set sets key to value. It keeps neither slice.
func (b Batch) Set(key, value []byte) error { return translate(b.b.Set(key, value, nil)) }

// Reserve adds a set of a key and a value of the given sizes. The caller fills both in before the
// next call of the batch. They are the batch's memory, so that what is sealed into value is not
// copied.
func (b Batch) Reserve(keySize, valueSize int) (key, value []byte) {
	op := b.b.SetDeferred(keySize, valueSize)
	return op.Key, op.Value
}

// Delete deletes key.
func (b Batch) Delete(key []byte) error { return translate(b.b.Delete(key, nil)) }

// deleteRange deletes the keys in [lower, upper).
func (b Batch) deleteRange(lower, upper []byte) error {
	return translate(b.b.DeleteRange(lower, upper, nil))
}

// Size returns the batch's size in bytes.
func (b Batch) Size() int { return b.b.Len() }

// Empty reports whether the batch has no ops.
func (b Batch) Empty() bool { return b.b.Empty() }

// Apply applies the batch. With sync, the caller calls Wait before Close, and the ops are durable
// when Wait returns. Apply may refuse the batch with engine.ErrNoRoom.
func (d *DB) Apply(b Batch, sync bool) error {
	admitted, err := d.admit()
	if err != nil {
		return err
	}
	defer admitted()
	d.quiet.RLock()
	defer d.quiet.RUnlock()
	d.lookups.begin()
	defer d.lookups.end()
	defer d.log.ended()
	if sync {
		return translate(d.p.ApplyNoSyncWait(b.b, pebble.Sync))
	}
	return translate(d.p.Apply(b.b, pebble.NoSync))
}

// Wait waits until an applied batch is durable.
func (b Batch) Wait() error { return translate(b.b.SyncWait()) }

// Commit applies the batch and, with sync, makes it durable. It refuses like Apply.
func (d *DB) Commit(b Batch, sync bool) error {
	admitted, err := d.admit()
	if err != nil {
		return err
	}
	defer admitted()
	d.quiet.RLock()
	defer d.quiet.RUnlock()
	d.lookups.begin()
	defer d.lookups.end()
	defer d.log.ended()
	opts := pebble.NoSync
	if sync {
		opts = pebble.Sync
	}
	return translate(d.p.Apply(b.b, opts))
}

// Close releases the batch.
func (b Batch) Close() error { return b.b.Close() }

// Each calls f for each set and delete in the batch, in order, until f returns an error. The slices
// are the batch's memory.
func (b Batch) Each(f func(key, value []byte, deleted bool) error) error {
	for r := b.b.Reader(); ; {
		kind, key, value, ok, err := r.Next()
		if err != nil || !ok {
			return translate(err)
		}
		if kind != pebble.InternalKeyKindSet && kind != pebble.InternalKeyKindDelete {
			continue
		}
		if err := f(key, value, kind == pebble.InternalKeyKindDelete); err != nil {
			return err
		}
	}
}

// LogData adds an entry to the log that changes nothing. Committing it with sync makes all before
// it durable.
func (b Batch) LogData(data []byte) error { return translate(b.b.LogData(data, nil)) }
