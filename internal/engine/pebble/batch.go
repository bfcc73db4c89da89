package pebble

import "github.com/cockroachdb/pebble/v2"

// Batch collects changes that happen together or not at all. It belongs to one
// goroutine.
type Batch struct{ b *pebble.Batch }

// NewBatch returns an empty batch. Close it.
func (d *DB) NewBatch() Batch { return Batch{d.p.NewBatch()} }

// Set sets key to value. It keeps neither.
func (b Batch) Set(key, value []byte) error { return translate(b.b.Set(key, value, nil)) }

// Reserve adds a set of a key and a value of the given sizes, for the caller to
// fill in before anything else is done with the batch. The slices are the
// batch's memory, so that what is sealed into value is copied no more.
func (b Batch) Reserve(keySize, valueSize int) (key, value []byte) {
	op := b.b.SetDeferred(keySize, valueSize)
	return op.Key, op.Value
}

// Delete deletes key.
func (b Batch) Delete(key []byte) error { return translate(b.b.Delete(key, nil)) }

// Size is the batch's size in bytes.
func (b Batch) Size() int { return b.b.Len() }

// Empty reports whether the batch has no changes.
func (b Batch) Empty() bool { return b.b.Empty() }

// Apply makes the batch's changes visible. With sync, the caller must call Wait
// before Close; the changes are durable when Wait returns.
// It refuses with engine.ErrNoRoom; see there.
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

// Commit makes the batch's changes visible and, with sync, durable. It refuses as Apply.
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

// Each calls f for each set and delete in the batch, in order, until it returns an
// error. The slices are the batch's own memory.
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

// LogData adds a record to the log that changes nothing: committing it with sync
// makes everything before it durable.
func (b Batch) LogData(data []byte) error { return translate(b.b.LogData(data, nil)) }
