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

// A walk of more than prefetchAfter blocks reads ahead: one goroutine cuts the DEK records into
// chunks, workers read and open the chunks' blocks, and the walk yields them in order. So reading
// and opening, which costs more, use several cores, and no sealed block is copied.
//
// The plaintext ahead is bounded by prefetchMost and a buffer for each chunk, and overwritten when
// the walk ends. The walk checks the session before each block. A block without room is opened when
// its turn comes.

const (
	prefetchAfter   = 16        // blocks
	prefetchChunk   = 256       // most blocks in a chunk
	prefetchBytes   = 512 << 10 // bytes of plaintext in a chunk, or one larger block
	prefetchMost    = 8 << 20   // bytes of plaintext in all chunks
	prefetchWorkers = 4         // most workers; never more than GOMAXPROCS
)

// prefetch reads ahead for one walk, and belongs to the walk's goroutine.
type prefetch struct {
	t       *Table
	session uint64
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	deks    *way        // on the next record to read, once started
	started bool        // deks was moved past the walk's current block
	data    []*way      // a cursor for each worker
	work    chan *chunk // to open
	order   chan *chunk // the same, in the order of the walk
	free    chan *chunk
	all     []*chunk
	size    atomic.Int64 // mean size of the latest blocks, in bytes
	ahead   aheadBytes
}

// newPrefetch goes on from a cursor whose current block was yielded and has size bytes. It uses the
// cursor's records until stop returns; the cursor's blocks stay the walk's.
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
	after := slices.Clone(c.deks.ID()) // of the current block
	p.wg.Go(func() { p.read(after) })
	for _, it := range p.data {
		p.wg.Go(func() { p.open(it) })
	}
	return p, nil
}

// Close implements [io.Closer] for [Use.CloseAll]: workers use their cursors inside holds of the
// session alone.
func (p *prefetch) Close() error {
	var errs []error
	for _, it := range p.data {
		errs = append(errs, it.Close())
	}
	return errors.Join(errs...)
}

// stop ends the reading ahead and overwrites the plaintext.
func (p *prefetch) stop() {
	p.cancel()
	p.wg.Wait()
	p.t.use.Finish(p)
	for _, ch := range p.all {
		clear(ch.plain[:cap(ch.plain)])
	}
}

// next returns the next chunk, opened, or nil at the end. The caller hands it back with release.
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
