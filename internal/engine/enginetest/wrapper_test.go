package enginetest

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
)

// brokenEngine is an engine whose partitions are wrong in a way.
type brokenEngine struct {
	*memory.Engine
	wrong func(p *brokenPartition)
}

func (e *brokenEngine) Partition(number uint32) engine.Partition {
	p := &brokenPartition{Partition: e.Engine.Partition(number)}
	e.wrong(p)
	return p
}

// brokenPartition does what its fields say, and what is right where they are nil.
type brokenPartition struct {
	engine.Partition
	applied atomic.Uint64 // changes, views and swaps that were asked for
	viewed  atomic.Uint64
	swapped atomic.Uint64

	get     func(context.Context, []byte, engine.Parts, *engine.Row) error
	cursor  func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error)
	view    func(context.Context) (engine.View, error)
	batch   func(b *brokenBatch)
	apply   func(context.Context, engine.Batch, engine.Guard, bool) error
	replace func(context.Context, engine.Batch, []engine.Was) (int, error)
	raise   func(context.Context, uint32) error
	refuse  func(context.Context, []uint32) error
	load    func(context.Context, string) ([]byte, uint64, error)
	list    func(context.Context, string, func(string, []byte) error) error
	swap    func(context.Context, ...engine.Swap) ([]uint64, error)
	clear   func(context.Context) error
	floor   func() engine.Floor
}

func (p *brokenPartition) Floor() engine.Floor {
	return or(p.floor, p.Partition.Floor, p.floor != nil)()
}

// lose waits until somebody else was faster, if there is somebody.
func lose(n func() uint64) {
	before := n()
	for range 10_000 {
		if n() != before {
			return
		}
		runtime.Gosched()
	}
}

func or[F any](mine, right F, is bool) F {
	if is {
		return mine
	}
	return right
}

func (p *brokenPartition) Clear(ctx context.Context) error {
	return or(p.clear, p.Partition.Clear, p.clear != nil)(ctx)
}

func (p *brokenPartition) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	return or(p.get, p.Partition.Get, p.get != nil)(ctx, id, want, row)
}

func (p *brokenPartition) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	return or(p.cursor, p.Partition.Cursor, p.cursor != nil)(ctx, part, lower, upper)
}

func (p *brokenPartition) View(ctx context.Context) (engine.View, error) {
	defer p.viewed.Add(1)
	return or(p.view, p.Partition.View, p.view != nil)(ctx)
}

func (p *brokenPartition) NewBatch() engine.Batch {
	b := &brokenBatch{Batch: p.Partition.NewBatch()}
	if p.batch != nil {
		p.batch(b)
	}
	return b
}

func right(b engine.Batch) engine.Batch {
	if w, ok := b.(*brokenBatch); ok {
		return w.Batch
	}
	return b
}

func (p *brokenPartition) Apply(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
	defer p.applied.Add(1)
	return or(p.apply, p.Partition.Apply, p.apply != nil)(ctx, right(b), g, sync)
}

func (p *brokenPartition) Replace(ctx context.Context, b engine.Batch, was []engine.Was) (int, error) {
	return or(p.replace, p.Partition.Replace, p.replace != nil)(ctx, right(b), was)
}

func (p *brokenPartition) RaiseFloor(ctx context.Context, epoch uint32) error {
	return or(p.raise, p.Partition.RaiseFloor, p.raise != nil)(ctx, epoch)
}

func (p *brokenPartition) RefuseKEKs(ctx context.Context, keks []uint32) error {
	return or(p.refuse, p.Partition.RefuseKEKs, p.refuse != nil)(ctx, keks)
}

func (p *brokenPartition) LoadMeta(ctx context.Context, name string) ([]byte, uint64, error) {
	return or(p.load, p.Partition.LoadMeta, p.load != nil)(ctx, name)
}

func (p *brokenPartition) ListMeta(ctx context.Context, prefix string, f func(string, []byte) error) error {
	return or(p.list, p.Partition.ListMeta, p.list != nil)(ctx, prefix, f)
}

func (p *brokenPartition) SwapMeta(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
	p.swapped.Add(1)
	return or(p.swap, p.Partition.SwapMeta, p.swap != nil)(ctx, changes...)
}

// brokenBatch does what its fields say.
type brokenBatch struct {
	engine.Batch
	put       func(id, record []byte, size int) ([]byte, error)
	putLater  func(id []byte, record, size int) (rec, sealed []byte, err error)
	putRecord func(id, record []byte) error
	delete    func(id []byte) error
	change    func(at int) (engine.Op, int, error)
}

func (b *brokenBatch) Put(id, record []byte, size int) ([]byte, error) {
	return or(b.put, b.Batch.Put, b.put != nil)(id, record, size)
}

func (b *brokenBatch) PutLater(id []byte, record, size int) (rec, sealed []byte, err error) {
	return or(b.putLater, b.Batch.PutLater, b.putLater != nil)(id, record, size)
}

func (b *brokenBatch) PutRecord(id, record []byte) error {
	return or(b.putRecord, b.Batch.PutRecord, b.putRecord != nil)(id, record)
}

func (b *brokenBatch) Delete(id []byte) error {
	return or(b.delete, b.Batch.Delete, b.delete != nil)(id)
}

func (b *brokenBatch) Op(at int) (engine.Op, int, error) {
	return or(b.change, b.Batch.Op, b.change != nil)(at)
}

// brokenCursor seeks too far, or has clones of now.
type brokenCursor struct {
	engine.Cursor
	p   *brokenPartition
	far bool
}

func (c brokenCursor) SeekGE(id []byte) bool {
	ok := c.Cursor.SeekGE(id)
	if c.far && ok && len(id) > 0 && string(c.ID()) == string(id) {
		return c.Next()
	}
	return ok
}

func (c brokenCursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if c.far {
		return c.Cursor.Clone(part, lower, upper)
	}
	return c.p.Partition.Cursor(context.Background(), part, lower, upper)
}

// lateCursor looks at its bounds when it is moved.
type lateCursor struct {
	engine.Cursor
	p            *brokenPartition
	part         engine.Parts
	lower, upper []byte
}

func (c *lateCursor) First() bool {
	fresh, err := c.p.Partition.Cursor(context.Background(), c.part, c.lower, c.upper)
	if err != nil {
		return false
	}
	c.Cursor = fresh
	return fresh.First()
}

// shortCursor seeks to the row before that which it is to seek to.
type shortCursor struct{ engine.Cursor }

func (c shortCursor) SeekLT(id []byte) bool { return c.Cursor.SeekLT(id) && c.Prev() }

// openView is a view that is none.
type openView struct{ engine.Partition }

func (openView) Close() error { return nil }

// onePartition has one, whatever it is asked for.
type onePartition struct{ *memory.Engine }

func (e *onePartition) Partition(uint32) engine.Partition { return e.Engine.Partition(0) }

// neverClosed does not close.
type neverClosed struct{ *memory.Engine }

func (e *neverClosed) Close() error { return nil }

// brokenPurge takes everything.
type brokenPurge struct{ *memory.Engine }

func (e *brokenPurge) Partition(number uint32) engine.Partition {
	return &purging{e.Engine.Partition(number)}
}

type purging struct{ engine.Partition }

func (p *purging) Purge(ctx context.Context, touch func() error, _ func() bool) error {
	b := p.NewBatch()
	return errors.Join(touch(), b.Delete([]byte("a")), p.Apply(ctx, b, engine.Guard{Floor: p.Floor().Revision}, true))
}

// remembering is an engine that keeps all that it was ever given, and forgets it in a purge if it
// is a good one.
type remembering struct {
	*memory.Engine
	good  bool
	given *[]byte
}

func (e remembering) Partition(number uint32) engine.Partition {
	p := &brokenPartition{Partition: e.Engine.Partition(number)}
	p.batch = func(b *brokenBatch) {
		b.put = func(id, record []byte, size int) ([]byte, error) {
			*e.given = append(*e.given, record...)
			return b.Batch.Put(id, record, size)
		}
	}
	p.swap = func(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
		for _, c := range changes {
			*e.given = append(*e.given, c.Value...)
		}
		return p.Partition.SwapMeta(ctx, changes...)
	}
	return rememberingPartition{p, e}
}

type rememberingPartition struct {
	*brokenPartition
	e remembering
}

func (p rememberingPartition) Purge(ctx context.Context, touch func() error, _ func() bool) error {
	if p.e.good {
		*p.e.given = nil
		c, err := p.Cursor(ctx, engine.Record, nil, nil)
		if err != nil {
			return err
		}
		for ok := c.First(); ok; ok = c.Next() {
			record, _ := c.Value()
			*p.e.given = append(*p.e.given, record...)
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return touch()
}

// errorsOf is an error, or another one.
func errorsOf(err error, other *error) error { return errors.Join(err, *other) }

// deferring is an engine whose partitions say that they are engine.Deferrer.
type deferring struct{ *memory.Engine }

type deferringPartition struct{ engine.Partition }

func (e deferring) Partition(number uint32) engine.Partition {
	return deferringPartition{e.Engine.Partition(number)}
}

func (p deferringPartition) SwapMetaLater(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	return p.SwapMeta(ctx, swaps...)
}
