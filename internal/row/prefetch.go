package row

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
)

// A walk that goes on for more than a few blocks reads ahead: one goroutine takes DEK
// records from the engine and cuts them into chunks, a few others, each with an iterator
// of its own, take the chunks' blocks from the engine and open them, and the walk hands
// them out in order. So the engine's work and the opening, which costs more, use more than
// one core, and no sealed block is copied on its way. What is ahead is a few chunks of
// plaintext in memory, prefetchMost bytes and the chunks' usual ones, which are overwritten when the
// walk ends, and which nobody is given once the store has gone Inaccessible: the walk looks
// before each step. A block for which that leaves no room is neither read nor opened ahead.

const (
	prefetchAfter   = 16        // blocks
	prefetchChunk   = 256       // blocks in a chunk at most
	prefetchBytes   = 512 << 10 // of plaintext in a chunk, or one block that is larger
	prefetchMost    = 8 << 20   // of plaintext in all chunks
	prefetchWorkers = 4         // at most; at most GOMAXPROCS
)

// prefetch is a walk's reading ahead. It belongs to the walk's goroutine.
type prefetch struct {
	t       *Table
	session uint64
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	deks    *way        // on the next record to take, once started
	started bool        // see deks
	data    []*way      // a worker's each
	work    chan *chunk // to open
	order   chan *chunk // the same, as they are to be handed out
	free    chan *chunk
	all     []*chunk
	size    atomic.Int64 // of a block of late, in bytes: so many make a chunk
	ahead   aheadBytes
}

// newPrefetch goes on with a cursor whose current block, of so many bytes, has been handed
// out. The cursor's records are the prefetch's until stop returns; its blocks stay the
// walk's.
func (t *Table) newPrefetch(ctx context.Context, c *Cursor, session uint64, size int) (*prefetch, error) {
	workers := min(runtime.GOMAXPROCS(0), prefetchWorkers)
	p := &prefetch{t: t, session: session, deks: c.deks, work: make(chan *chunk, workers+2), order: make(chan *chunk, workers+2), free: make(chan *chunk, workers+2)}
	p.size.Store(int64(size))
	h, err := t.keys.For(inner.Block{}).AcquireSession(session)
	if err != nil {
		return nil, err
	}
	defer h.Release()
	for range workers {
		it, err := c.data.clone(engine.Sealed, c.start, c.end)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.data = append(p.data, it)
	}
	t.use.Track(p)
	p.ctx, p.cancel = context.WithCancel(ctx)
	for range cap(p.free) {
		ch := &chunk{opened: make(chan struct{}, 1)}
		p.all = append(p.all, ch)
		p.free <- ch
	}
	after := slices.Clone(c.deks.ID()) // the current id
	p.wg.Go(func() { p.read(after) })
	for _, it := range p.data {
		p.wg.Go(func() { p.open(it) })
	}
	return p, nil
}

// Close implements [io.Closer], for [Use.CloseAll]: workers use their iterators inside holds
// of the session alone, so that it finds them at rest.
func (p *prefetch) Close() error {
	var errs []error
	for _, it := range p.data {
		errs = append(errs, it.Close())
	}
	return errors.Join(errs...)
}

// stop ends the reading ahead and overwrites what was opened.
func (p *prefetch) stop() {
	p.cancel()
	p.wg.Wait()
	p.t.use.Finish(p)
	for _, ch := range p.all {
		clear(ch.plain[:cap(ch.plain)])
	}
}

// next returns the chunk that follows, opened, or nil at the end. The caller gives
// it back by release.
func (p *prefetch) next() (*chunk, error) {
	select {
	case ch, ok := <-p.order:
		if !ok {
			return nil, nil
		}
		select {
		case <-ch.opened:
			return ch, nil
		case <-p.ctx.Done():
			return nil, p.ctx.Err()
		}
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
}

func (p *prefetch) release(ch *chunk) { p.free <- ch }

// read fills chunks from the records, the first of them with what follows an id.
func (p *prefetch) read(after []byte) {
	defer close(p.order)
	defer close(p.work)
	for more := true; more; {
		var ch *chunk
		select {
		case ch = <-p.free:
		case <-p.ctx.Done():
			return
		}
		ch.after = append(ch.after[:0], after...)
		more = p.fill(ch)
		if n := len(ch.records); n > 0 {
			after = append(after[:0], ch.records[n-1].id...)
		}
		for _, to := range []chan *chunk{p.order, p.work} {
			select {
			case to <- ch:
			case <-p.ctx.Done():
				return
			}
		}
	}
}

// fill fills a chunk with records, and reports whether there may be another one.
func (p *prefetch) fill(ch *chunk) (more bool) {
	ch.reset()
	h, err := p.t.keys.For(inner.Block{}).AcquireSession(p.session)
	if err != nil {
		ch.err = err
		return false
	}
	defer h.Release()
	if !p.started {
		p.started = true
		p.deks.Next()
	}
	most := min(max(prefetchBytes/max(int(p.size.Load()), 1), 1), prefetchChunk)
	for len(ch.records) < most && p.deks.Valid() {
		record, err := p.deks.Value()
		if err != nil {
			ch.err = Damage(err)
			ch.locate()
			return false
		}
		ch.add(p.deks.ID(), record)
		p.deks.Next()
	}
	ch.locate()
	if err := p.deks.Err(); err != nil {
		ch.err = Damage(err)
		return false
	}
	if ch.last = !p.deks.Valid(); !ch.last {
		ch.to = append(ch.to[:0], p.deks.ID()...)
	}
	return !ch.last
}

// open opens chunks, with an iterator over the blocks.
func (p *prefetch) open(it *way) {
	for ch := range p.work {
		p.openChunk(it, ch)
		ch.opened <- struct{}{}
	}
}

func (p *prefetch) openChunk(it *way, ch *chunk) {
	fail := func(err error) { ch.err, ch.rest = err, len(ch.records) }
	if p.ctx.Err() != nil {
		fail(p.ctx.Err())
		return
	}
	h, err := p.t.keys.For(inner.Block{}).AcquireSession(p.session)
	if err != nil {
		fail(err)
		return
	}
	defer func() { h.Release() }()
	ch.seek(it, 0)
	for i := range ch.records {
		at, err := ch.match(it, i)
		if err == nil && !ch.fits(it.Size(), &p.ahead) {
			ch.rest = i
			return
		}
		if err == nil {
			at.Value, err = it.Value()
			err = Damage(err)
		}
		if err == nil {
			at.Value, err = p.t.Open(p.ctx, &h, at, ch.plain)
		}
		if err != nil {
			fail(fmt.Errorf("block %s: %w", Shown(at.ID), err))
			return
		}
		ch.blocks = append(ch.blocks, prefetched{at.ID, at.Value[len(ch.plain):len(at.Value):len(at.Value)]})
		ch.plain = at.Value
		it.Next()
	}
	ch.rest = len(ch.records)
	if n := len(ch.blocks); n > 0 {
		p.size.Store(int64(len(ch.plain) / n))
	}
	if err := ch.reachesEnd(it); err != nil {
		ch.err = err
	}
}
