package row

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// A load seals on several cores what comes in order, and has the engine take it up at once. Its
// caller's goroutine gathers blocks into runs, workers seal those, and one goroutine gives them to the
// engine in order. Each run is sealed, and given to the engine, inside a hold of the load's session.
//
// What is put meanwhile by others is older than the load, whose rows replace it when they are applied.

const (
	loadRunBytes  = 256 << 10 // bytes of blocks in a run, or one larger block
	loadRunBlocks = 1024      // most blocks in a run
	loadWorkers   = 4         // most workers; never more than GOMAXPROCS
)

// loader is one load. It belongs to the goroutine of its caller.
type loader struct {
	t       *Table
	session uint64
	to      engine.Load
	ctx     context.Context
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	free    chan *loadRun
	work    chan *loadRun // to seal
	order   chan *loadRun // the same, in the order of the ids
	all     []*loadRun
	least   uint32 // the least epoch of the records so far; the writer's until it has ended
}

// loadRun is blocks that follow one another. What it has in clear is overwritten once it is sealed.
type loadRun struct {
	ids, plain []byte
	blocks     []loadBlock
	records    []byte
	sealed     []byte
	least      uint32
	err        error
	done       chan struct{} // told when it is sealed; its capacity is 1
}

type loadBlock struct{ id, plain, record, sealed int } // where each ends

// Load puts blocks whose ids ascend, all or none, in place of what the store has under their ids. The
// caller has no hold; session is that of the load, and its epochs are pinned. added is told of each
// block. It returns errors.ErrUnsupported if the engine cannot load, or if the vault wraps each DEK.
func (t *Table) Load(ctx context.Context, session uint64, blocks iter.Seq2[Pair, error], added func(size int)) error {
	h, err := t.keys.For(inner.Block{}).AcquireSession(session)
	if err != nil {
		return err
	}
	to, err := t.newLoad(ctx, &h)
	h.Release()
	if err != nil {
		return err
	}
	defer t.use.Finish(to)
	l := t.startLoad(ctx, session, to)
	err = errUnwound // unless gather returns
	func() {
		defer func() { err = l.end(err) }()
		err = l.gather(blocks, added)
	}()
	if err != nil {
		return err
	}
	return l.apply(ctx)
}

// loadFailed tells what failed in a load from the cause of a context that its caller has ended.
type loadFailed struct{ error }

// errUnwound ends a load whose blocks come from what panics, or ends its goroutine.
var errUnwound = errors.New("what the blocks come from has ended without an error")

func (t *Table) newLoad(ctx context.Context, h *keyring.Hold) (engine.Load, error) {
	e, ok := t.Part.(engine.Loader)
	switch {
	case !ok:
		return nil, fmt.Errorf("this engine takes blocks in batches alone: %w", errors.ErrUnsupported)
	case h.For(inner.Block{}).Wrapping() == keyring.ByKEK:
		return nil, fmt.Errorf("with ByKEK the vault wraps each DEK; put blocks in batches: %w", errors.ErrUnsupported)
	}
	to, err := e.NewLoad(ctx)
	if err == nil {
		t.use.Track(to)
	}
	return to, err
}

func (t *Table) startLoad(ctx context.Context, session uint64, to engine.Load) *loader {
	workers := min(runtime.GOMAXPROCS(0), loadWorkers)
	n := workers + 2
	l := &loader{t: t, session: session, to: to, least: NoEpoch,
		free: make(chan *loadRun, n), work: make(chan *loadRun, n), order: make(chan *loadRun, n)}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	for range n {
		r := &loadRun{done: make(chan struct{}, 1)}
		l.all = append(l.all, r)
		l.free <- r
	}
	for range workers {
		l.wg.Go(func() {
			for r := range l.work {
				l.seal(r)
				r.done <- struct{}{}
			}
		})
	}
	l.wg.Go(l.write)
	return l
}

// gather makes runs of what comes, until it ends, or something has failed.
func (l *loader) gather(blocks iter.Seq2[Pair, error], added func(size int)) error {
	var r *loadRun
	var last []byte
	some := false
	for b, err := range blocks {
		if err != nil {
			return err
		}
		if err := CheckBlock(b.ID, b.Value); err != nil {
			return fmt.Errorf("block %s: %w", Shown(b.ID), err)
		}
		if some && bytes.Compare(last, b.ID) >= 0 {
			return fmt.Errorf("block %s comes after %s: blocks are loaded in the byte order of their ids, each once", Shown(b.ID), Shown(last))
		}
		last, some = append(last[:0], b.ID...), true
		if r == nil {
			select {
			case r = <-l.free:
			case <-l.ctx.Done():
				return context.Cause(l.ctx)
			}
			r.reset()
		}
		r.add(b.ID, b.Value)
		added(len(b.Value))
		if len(r.plain) >= loadRunBytes || len(r.blocks) >= loadRunBlocks {
			l.hand(r)
			r = nil
		}
	}
	if r != nil {
		l.hand(r)
	}
	return l.ctx.Err()
}

// hand hands a run on. There is room for all runs in both channels.
func (l *loader) hand(r *loadRun) {
	l.order <- r
	l.work <- r
}

// end waits for what was handed on, or, after an error, gives it up. It returns what failed first.
func (l *loader) end(err error) error {
	if err != nil {
		l.cancel(loadFailed{err})
	}
	close(l.order)
	close(l.work)
	l.wg.Wait()
	for _, r := range l.all {
		clear(r.plain[:cap(r.plain)])
	}
	if cause := context.Cause(l.ctx); cause != nil {
		var failed loadFailed
		if errors.As(cause, &failed) {
			return failed.error
		}
		return l.ctx.Err() // and not the caller's cause, which need not say that a context has ended
	}
	l.cancel(nil)
	return nil
}

func (r *loadRun) reset() {
	r.ids, r.plain, r.blocks, r.records, r.sealed = r.ids[:0], r.plain[:0], r.blocks[:0], r.records[:0], r.sealed[:0]
	r.least, r.err = NoEpoch, nil
}

func (r *loadRun) add(id, data []byte) {
	if need := len(r.plain) + len(data); need > cap(r.plain) {
		// The last block of a run may be as large as a block can be.
		grown := append(make([]byte, 0, max(need, loadRunBytes+64<<10)), r.plain...)
		clear(r.plain)
		r.plain = grown
	}
	r.ids, r.plain = append(r.ids, id...), append(r.plain, data...)
	r.blocks = append(r.blocks, loadBlock{id: len(r.ids), plain: len(r.plain)})
}

func (l *loader) seal(r *loadRun) {
	defer func() { clear(r.plain) }()
	if l.ctx.Err() != nil {
		return
	}
	h, err := l.t.keys.For(inner.Block{}).AcquireSession(l.session)
	if err != nil {
		r.err = err
		return
	}
	defer func() { h.Release() }()
	sc := l.t.common.scratch.Get().(*scratch)
	defer l.t.giveBack(sc)
	if room := len(r.plain) + len(r.blocks)*Overhead; room > cap(r.sealed) {
		r.sealed = make([]byte, 0, room)
	}
	var at loadBlock
	for i := range r.blocks {
		b := &r.blocks[i]
		l.t.bind(sc, r.ids[at.id:b.id])
		if r.err = l.sealOne(&h, sc, r, r.plain[at.plain:b.plain]); r.err != nil {
			return
		}
		b.record, b.sealed = len(r.records), len(r.sealed)
		at = *b
	}
}

func (l *loader) sealOne(h *keyring.Hold, sc *scratch, r *loadRun, data []byte) (err error) {
	if sc.row.Record, err = h.NewDEK(l.ctx, sc.row.Record[:0], &sc.key, &sc.binding); err != nil {
		return err
	}
	r.records = append(r.records, sc.row.Record...)
	r.least = min(r.least, recordEpoch(sc.row.Record))
	n := len(r.sealed)
	r.sealed = r.sealed[:n+Overhead+len(data)]
	return sealBlock(sc, r.sealed[n:len(r.sealed):len(r.sealed)], data)
}

// write gives the runs to the engine, in order.
func (l *loader) write() {
	for r := range l.order {
		select {
		case <-r.done: // workers seal all that they are given, or look at ctx
		case <-l.ctx.Done():
			continue
		}
		err := r.err
		if err == nil && l.ctx.Err() == nil {
			err = l.writeRun(r)
		}
		if err != nil {
			l.cancel(loadFailed{err})
		}
		l.free <- r
	}
}

func (l *loader) writeRun(r *loadRun) error {
	h, err := l.t.keys.For(inner.Block{}).AcquireSession(l.session)
	if err != nil {
		return err
	}
	defer h.Release()
	l.least = min(l.least, r.least)
	var at loadBlock
	for _, b := range r.blocks {
		if err := l.to.Put(r.ids[at.id:b.id], r.records[at.record:b.record], r.sealed[at.sealed:b.sealed]); err != nil {
			return err
		}
		at = b
	}
	return nil
}

// apply has the engine take up what was loaded. Records that name an epoch below the floor are
// rewrapped first: RotateEpoch has raised it since they were made.
func (l *loader) apply(ctx context.Context) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	for {
		floor := l.t.Part.Floor()
		g := engine.Guard{Floor: floor.Revision, Epoch: l.least}
		if l.least < floor.Epoch {
			if err := l.rewrap(ctx, floor.Epoch); err != nil {
				return err
			}
			g.Epoch, g.Below = l.least, l.least < floor.Epoch // no epoch is left to begin; see judge
		}
		err := l.applyOnce(ctx, g)
		if !errors.Is(err, engine.ErrFloor) {
			return err
		}
	}
}

// prepare waits for the disk without a hold, so that a lock does not wait with it.
func (l *loader) prepare(ctx context.Context) error {
	if err := l.t.use.Begin(); err != nil {
		return err
	}
	defer l.t.use.End()
	return l.to.Prepare(ctx)
}

func (l *loader) applyOnce(ctx context.Context, g engine.Guard) error {
	h, err := l.t.keys.For(inner.Block{}).AcquireSession(l.session)
	if err != nil {
		return err
	}
	defer h.Release()
	defer l.t.common.rows.announceAll(l.t.salt)()
	if err := l.to.Apply(ctx, g); err != nil {
		return err
	}
	l.t.wrote()
	return nil // the record cache is not trusted
}

// rewrap rewraps the records below an epoch. It has a hold for each, so that a lock does not wait for
// all of them.
func (l *loader) rewrap(ctx context.Context, floor uint32) error {
	if err := l.t.use.Begin(); err != nil {
		return err
	}
	defer l.t.use.End()
	least := uint32(NoEpoch)
	var bind keyring.Binding
	var again []byte
	err := l.to.Rewrite(ctx, func(id, record []byte) ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if e := recordEpoch(record); e >= floor {
			least = min(least, e)
			return record, nil
		}
		h, err := l.t.keys.For(inner.Block{}).AcquireSession(l.session)
		if err != nil {
			return nil, err
		}
		defer func() { h.Release() }()
		bind.Set(id)
		if again, err = h.For(inner.Block{}).Rewrap(ctx, again[:0], record, &bind); err != nil {
			return nil, fmt.Errorf("block %s: %w", Shown(id), err)
		}
		least = min(least, recordEpoch(again))
		return again, nil
	})
	if err == nil {
		l.least = least
	}
	return err
}
