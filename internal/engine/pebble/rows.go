package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/blockseal/blockseal/internal/engine"
)

// batch is ops on a partition's rows. It is pooled, like Pebble's own, because each Put makes one.
type batch struct {
	p *partition
	b Batch

	blocks bool    // b has an op on a sealed block: ops on records go to later
	later  records // come after all that b has
	// b has no op on a record from blocksFrom to blocksTo, which are places as Op has them.
	blocksFrom, blocksTo int
}

// NewBatch implements [engine.Rows].
func (p *partition) NewBatch() engine.Batch {
	b := p.db.batches.Get().(*batch)
	b.p, b.b = p, p.db.NewBatch()
	return b
}

// Put implements [engine.Batch].
func (b *batch) Put(id, record []byte, size int) ([]byte, error) {
	copy(b.reserveRecord(id, len(record)), record)
	return b.reserveSealed(id, size), nil
}

// PutLater implements [engine.Batch].
func (b *batch) PutLater(id []byte, record, size int) (rec, sealed []byte, err error) {
	rec = b.reserveRecord(id, record)
	sealed = b.reserveSealed(id, size)
	return rec[:record:record], sealed[:size:size], nil
}

// reserveRecord sets a record, which the caller fills in. A batch of one row, or of records alone, has
// them in b at once.
func (b *batch) reserveRecord(id []byte, size int) []byte {
	if b.blocks {
		b.hold()
		return b.later.put(id, size)
	}
	return b.reserve(spaceDEK, id, size)
}

func (b *batch) reserveSealed(id []byte, size int) []byte {
	b.blocks = true
	return b.reserve(spaceData, id, size)
}

func (b *batch) reserve(space byte, id []byte, size int) []byte {
	key, value := b.b.Reserve(prefixSize+len(id), size)
	putKey(key, space, b.p.number, id)
	return value
}

// hold comes before an op in later.
func (b *batch) hold() {
	if len(b.later.ops) == 0 {
		b.blocksFrom, b.blocksTo = len(b.b.b.Reader()), 0
	}
}

// gather puts into b what was held back.
func (b *batch) gather() {
	if len(b.later.ops) == 0 {
		return
	}
	b.blocksTo = len(b.b.b.Reader())
	for _, o := range b.later.ops {
		if o.Deleted {
			b.delete(spaceDEK, o.ID)
		} else {
			copy(b.reserve(spaceDEK, o.ID, len(o.Record)), o.Record)
		}
	}
	b.later.reset()
}

// Spare implements [engine.Batch].
func (b *batch) Spare() int {
	all := b.b.b.Repr()
	return max(0, cap(all)-len(all)-b.later.size)
}

// batchHead is more than Pebble has at the beginning of a batch.
const batchHead = 64

// Grow implements [engine.Batch]. Pebble's batches double, and those above 1 MiB begin small each
// time: what a batch of some MiB is asked for at once is not copied, nor allocated several times.
func (b *batch) Grow(n int) error {
	if b.Spare() >= n {
		return nil
	}
	if b.Empty() {
		before := b.b
		b.b = Batch{b.p.db.p.NewBatchWithSize(batchHead + n)}
		return before.Close()
	}
	all := b.b.b.Repr()
	return translate(b.b.b.SetRepr(append(make([]byte, 0, len(all)+max(b.later.size+n, len(all))), all...)))
}

// PutRecord implements [engine.Batch].
func (b *batch) PutRecord(id, record []byte) error {
	copy(b.reserveRecord(id, len(record)), record)
	return nil
}

// Delete implements [engine.Batch].
func (b *batch) Delete(id []byte) error {
	if b.blocks {
		b.hold()
		b.later.delete(id)
	} else {
		b.delete(spaceDEK, id)
	}
	b.blocks = true
	b.delete(spaceData, id)
	return nil
}

func (b *batch) delete(space byte, id []byte) {
	putKey(b.b.b.DeleteDeferred(prefixSize+len(id)).Key, space, b.p.number, id)
}

// Op implements [engine.Batch].
func (b *batch) Op(at int) (c engine.Op, next int, err error) {
	b.gather()
	all := b.b.b.Reader()
	for r := all[min(at, len(all)):]; ; {
		if len(all)-len(r) == b.blocksFrom {
			r = all[min(max(b.blocksFrom, b.blocksTo), len(all)):]
		}
		kind, key, value, ok, err := r.Next()
		if err != nil || !ok {
			return c, 0, translate(err)
		}
		if key[0] == spaceDEK {
			deleted := kind == pebble.InternalKeyKindDelete
			return engine.Op{ID: key[prefixSize:], Record: value, Deleted: deleted}, len(all) - len(r), nil
		}
	}
}

// Size implements [engine.Batch].
func (b *batch) Size() int { return b.b.Size() + b.later.size }

// Empty implements [engine.Batch]. What is held back comes after ops that b has.
func (b *batch) Empty() bool { return b.b.Empty() }

// Wait implements [engine.Batch].
func (b *batch) Wait() error { return b.b.Wait() }

// Close implements [io.Closer].
func (b *batch) Close() error {
	db, err := b.p.db, b.b.Close()
	b.later.reset()
	*b = batch{later: b.later}
	db.batches.Put(b)
	return err
}

func (p *partition) own(b engine.Batch) (*batch, error) {
	o, ok := b.(*batch)
	if !ok || o.p != p {
		return nil, fmt.Errorf("engine: the batch was made for another partition than %d", p.number)
	}
	return o, nil
}

// Floor implements [engine.Rows].
func (p *partition) Floor() engine.Floor { return *p.floor.Load() }

// Apply implements [engine.Rows].
func (p *partition) Apply(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	o, err := p.own(b)
	if err != nil {
		return err
	}
	o.gather()
	if len(g.Was) > 0 { // nobody may write between the comparison and the write
		p.gate.Lock()
		defer p.gate.Unlock()
	} else {
		p.gate.RLock()
		defer p.gate.RUnlock()
	}
	if floor := p.floor.Load(); !floor.Admits(g) {
		return fmt.Errorf("%w: it is epoch %d, revision %d; the batch names epoch %d and went by revision %d",
			engine.ErrFloor, floor.Epoch, floor.Revision, g.Epoch, g.Floor)
	}
	if len(g.Was) > 0 {
		changed, err := p.overwritten(g.Was)
		if err != nil {
			return err
		}
		if len(changed) > 0 {
			return engine.ErrChanged
		}
	}
	return p.db.Apply(o.b, sync)
}

// RaiseFloor implements [engine.Rows].
func (p *partition) RaiseFloor(ctx context.Context, epoch uint32) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	p.raise(func(f *engine.Floor) { f.Epoch = max(f.Epoch, epoch) })
	return nil
}

// RefuseKEKs implements [engine.Rows].
func (p *partition) RefuseKEKs(ctx context.Context, keks []uint32) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	p.raise(func(f *engine.Floor) { f.KEKs = slices.Clone(keks) })
	return nil
}

func (p *partition) raise(set func(f *engine.Floor)) {
	p.gate.Lock()
	defer p.gate.Unlock()
	p.raiseLocked(set)
}

// raiseLocked is raise for a caller that has locked the gate.
func (p *partition) raiseLocked(set func(f *engine.Floor)) {
	f := *p.floor.Load()
	f.Revision++
	set(&f)
	p.floor.Store(&f)
}

// Sync implements [engine.Rows]. A synced entry of Pebble's log makes all before it durable.
func (p *partition) Sync(ctx context.Context) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	b := p.db.NewBatch()
	defer b.Close()
	if err := b.LogData(nil); err != nil {
		return err
	}
	return p.db.Commit(b, true)
}

// Replace implements [engine.Rows].
func (p *partition) Replace(ctx context.Context, b engine.Batch, was []engine.Was) (lost int, err error) {
	if err := p.db.ready(ctx); err != nil {
		return 0, err
	}
	o, err := p.own(b)
	if err != nil || len(was) == 0 {
		return 0, err
	}
	o.gather()
	p.gate.Lock()
	defer p.gate.Unlock()
	skip, err := p.overwritten(was)
	if err != nil {
		return 0, err
	}
	if len(skip) > 0 {
		if err := o.leaveOut(skip); err != nil {
			return 0, err
		}
	}
	if o.Empty() {
		return len(skip), nil
	}
	return len(skip), p.db.Apply(o.b, false)
}

func (b *batch) leaveOut(skip map[string]bool) error {
	out := b.p.db.NewBatch()
	if err := b.b.Each(func(key, value []byte, deleted bool) error {
		switch {
		case skip[string(key[prefixSize:])]:
			return nil
		case deleted:
			return out.Delete(key)
		}
		return out.Set(key, value)
	}); err != nil {
		return errors.Join(err, out.Close())
	}
	before := b.b
	b.b, b.blocksFrom, b.blocksTo = out, 0, 0
	return before.Close()
}

// overwritten returns the ids of the rows that are not as they were read. The ids are in order, so
// that one iterator goes from each to the next, at a tenth of the cost of look-ups. The gate is
// locked.
func (p *partition) overwritten(was []engine.Was) (skip map[string]bool, err error) {
	upper := append(appendKey(nil, spaceDEK, p.number, was[len(was)-1].ID), 0)
	it, err := p.db.NewIter(appendKey(nil, spaceDEK, p.number, was[0].ID), upper)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	skip = map[string]bool{}
	var key []byte
	for _, w := range was {
		key = appendKey(key[:0], spaceDEK, p.number, w.ID)
		found := it.SeekGE(key)
		if err := it.Err(); err != nil { // the next seek would forget it
			return nil, err
		}
		found = found && bytes.Equal(it.Key(), key)
		same := found == (w.Record != nil)
		if same && found {
			record, err := it.Value()
			if err != nil {
				return nil, err
			}
			same = bytes.Equal(record, w.Record)
		}
		if !same {
			skip[string(w.ID)] = true
		}
	}
	return skip, nil
}
