package block

import (
	"context"
	"fmt"
	"runtime"
	"sync"
)

// A walk that goes on for more than a few blocks reads ahead: one goroutine takes
// blocks from the engine, a few open them, and the walk hands them out in order.
// Opening costs more than reading, so that this is what lets a walk use more than
// one core. What is ahead is a few chunks of plaintext in memory, which are
// overwritten when the walk ends, and which nobody is given once the store has gone
// Inaccessible: the walk looks before each step.

const (
	prefetchAfter   = 16        // blocks
	prefetchChunk   = 256       // blocks
	prefetchBytes   = 256 << 10 // a chunk ends with the block that reaches this
	prefetchWorkers = 4         // at most; at most GOMAXPROCS
)

// prefetch is a walk's reading ahead. It belongs to the walk's goroutine.
type prefetch struct {
	s       *Store
	session uint64
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	work    chan *chunk // to open
	order   chan *chunk // the same, as they are to be handed out
	free    chan *chunk
	all     []*chunk
}

// chunk is a run of blocks.
type chunk struct {
	sealed []byte // id | record | sealed block, of one block after the other
	plain  []byte // the blocks, opened
	blocks []prefetched
	err    error // what came after the blocks, or in place of those that are left out
	opened chan struct{}
}

// prefetched is a block in its chunk.
type prefetched struct {
	pair
	plain []byte
}

// newPrefetch goes on with a cursor whose current block has been handed out. The
// cursor is the prefetch's until stop returns.
func (s *Store) newPrefetch(ctx context.Context, c *cursor, session uint64) *prefetch {
	workers := min(runtime.GOMAXPROCS(0), prefetchWorkers)
	p := &prefetch{s: s, session: session, work: make(chan *chunk), order: make(chan *chunk, workers+1), free: make(chan *chunk, workers+2)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	for range cap(p.free) {
		ch := &chunk{opened: make(chan struct{}, 1)}
		p.all = append(p.all, ch)
		p.free <- ch
	}
	p.wg.Go(func() { p.read(c) })
	for range workers {
		p.wg.Go(p.open)
	}
	return p
}

// stop ends the reading ahead and overwrites what was opened.
func (p *prefetch) stop() {
	p.cancel()
	p.wg.Wait()
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

// read fills chunks from the cursor.
func (p *prefetch) read(c *cursor) {
	defer close(p.order)
	defer close(p.work)
	for more := true; more; {
		var ch *chunk
		select {
		case ch = <-p.free:
		case <-p.ctx.Done():
			return
		}
		more = p.fill(c, ch)
		for _, to := range []chan *chunk{p.order, p.work} {
			select {
			case to <- ch:
			case <-p.ctx.Done():
				return
			}
		}
	}
}

// fill fills a chunk, and reports whether there may be another one. The cursor is
// used inside a hold, so that Store.Close finds it at rest.
func (p *prefetch) fill(c *cursor, ch *chunk) (more bool) {
	ch.sealed, ch.blocks, ch.err = ch.sealed[:0], ch.blocks[:0], nil
	h, err := p.s.keys.AcquireSession(p.session)
	if err != nil {
		ch.err = err
		return false
	}
	defer h.Release()
	for len(ch.blocks) < prefetchChunk && len(ch.sealed) < prefetchBytes {
		at, ok, err := c.pair()
		if err == nil && ok {
			if err = c.whole(); err != nil {
				err = fmt.Errorf("block %s: %w", shownID(at.id), err)
			}
		}
		if err != nil || !ok {
			ch.err = err
			ch.locate()
			return false
		}
		ch.blocks = append(ch.blocks, prefetched{pair: at})
		ch.sealed = append(append(append(ch.sealed, at.id...), at.record...), at.value...)
	}
	ch.locate()
	return true
}

// locate replaces the engine's slices, of which only the lengths still mean
// something, by the chunk's own.
func (ch *chunk) locate() {
	rest := ch.sealed
	take := func(n int) (part []byte) {
		part, rest = rest[:n:n], rest[n:]
		return part
	}
	for i := range ch.blocks {
		b := &ch.blocks[i]
		b.pair = pair{take(len(b.id)), take(len(b.record)), take(len(b.value))}
	}
}

// open opens chunks.
func (p *prefetch) open() {
	for ch := range p.work {
		p.openChunk(ch)
		ch.opened <- struct{}{}
	}
}

func (p *prefetch) openChunk(ch *chunk) {
	fail := func(i int, err error) {
		ch.blocks, ch.err = ch.blocks[:i], err
	}
	h, err := p.s.keys.AcquireSession(p.session)
	if err != nil {
		fail(0, err)
		return
	}
	defer func() { h.Release() }()
	ch.plain = ch.plain[:0]
	if cap(ch.plain) < len(ch.sealed) {
		clear(ch.plain[:cap(ch.plain)])
		ch.plain = make([]byte, 0, cap(ch.sealed))
	}
	for i := range ch.blocks {
		if err := p.ctx.Err(); err != nil {
			fail(i, err)
			return
		}
		b := &ch.blocks[i]
		out, err := p.s.openPair(p.ctx, &h, b.pair, ch.plain)
		if err != nil {
			fail(i, fmt.Errorf("block %s: %w", shownID(b.id), err))
			return
		}
		b.plain = out[len(ch.plain):len(out):len(out)]
		ch.plain = out
	}
}
